use std::sync::Arc;

use nsm_api::Mechanism;
use nsm_chain::{Call, Code, Element, Error, Next, NextHop, Order, Result, Slot};
use tokio::time::Instant;

use crate::metrics::{self, CLIENT_INTERFACE, SERVER_INTERFACE};
use crate::select::select;
use crate::{Class, Dataplane, Origin, Wire, Wired, mtu};

/// Joins the caller to the next hop: a forwarder's purpose.
///
/// *Request*: chooses the caller's mechanism among those its data plane accepts, asks the next hop with what the data
/// plane offers it, and when the answer is there has the wire programmed between the two. The caller gets its own
/// mechanism back, completed. If the wire cannot be made, what this Request made further on is closed again: a new
/// connection, or one at another hop than before. A Request that changes nothing programs nothing. *Close*: closes
/// further on, with the mechanism negotiated there, and removes the wire, both whatever becomes of the other.
///
/// It stands behind what chose the next hop and before what calls it.
pub struct CrossConnect<D: Dataplane> {
    dataplane: D,
    joined: Slot<Joined<D::Lease>>,
}

/// What is kept of a wire that was made.
#[derive(Clone)]
struct Joined<L> {
    lease: L,
    /// The mechanism negotiated with the next hop.
    next: Mechanism,
    /// With whom; none since they said that somebody else has there what was negotiated.
    with: Option<With>,
    /// The connection's id there.
    further: Option<String>,
}

/// The other side of a negotiation. What was agreed with one is of no use with another.
#[derive(Clone, PartialEq)]
struct With {
    hop: Arc<str>,
    endpoint: String,
}

impl<D: Dataplane> CrossConnect<D> {
    /// Programs this data plane.
    #[must_use]
    pub fn new(dataplane: D) -> Self {
        Self { dataplane, joined: Slot::new() }
    }

    /// One Request, with the caller's mechanism chosen.
    async fn join(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let state = Arc::clone(call.state()?);
        let before = self.joined.cloned(&state);
        let connection = call.connection();
        let Some(hop) = call.fact::<NextHop>() else {
            return Err(Error::internal("nobody chose a next hop").hint("put a discovery element before CrossConnect"));
        };
        let class = Class::of(hop);
        let with = With { hop: Arc::clone(&hop.0), endpoint: connection.network_service_endpoint_name.clone() };
        let offers = self.dataplane.offers(&connection.id, class, &connection.payload);
        if offers.is_empty() {
            return Err(Error::unsupported(format!("no mechanism of class {class} leads to {}", with.hop))
                .hint("give this forwarder an address in the network between the nodes"));
        }
        let Some(mut caller) = connection.mechanism.clone() else {
            return Err(Error::internal("the caller's mechanism was not chosen"));
        };
        let lease = self.dataplane.accept(&connection.id, &mut caller, before.as_ref().map(|joined| &joined.lease))?;

        let fits = |next: &&Mechanism| self.dataplane.joins(&caller, next);
        let mut leads: Vec<_> = offers.iter().filter(fits).cloned().collect();
        // Between two of one kind nothing has to be made into something else.
        leads.sort_by_key(|offer| !offer.is(&caller.r#type));
        if leads.is_empty() {
            let offers: Vec<_> = offers.iter().map(|offer| offer.r#type.as_str()).collect();
            let (caller, offers) = (&caller.r#type, offers.join(", "));
            return Err(Error::unsupported(format!(
                "no wire leads from {caller} to {}: {offers} can be offered",
                with.hop
            ))
            .hint("ask for another mechanism: the scheme of the URL"));
        }
        let agreed = before.as_ref().filter(|joined| joined.with.as_ref() == Some(&with));
        let agreed = agreed.map(|joined| &joined.next).filter(fits).cloned();
        mtu::limit(call.connection_mut(), mtu::of(&caller));
        call.connection_mut().mechanism = agreed;
        let preferences = std::mem::replace(call.extra_mut(), leads);
        let mut call = match next.request(call).await {
            Ok(call) => call,
            Err(error) => {
                // A node that started anew may have given the identifier of our tunnel to somebody else. What stands stays;
                // whoever asks again is asked for without it.
                if error.code() == Code::AlreadyExists
                    && let Some(before) = before
                {
                    self.joined.set(&state, Joined { with: None, ..before });
                }
                return Err(error);
            }
        };

        let further = call.connection().next_segment().map(|segment| segment.id.clone());
        let (inner, wired) = match self.program(&mut call, &mut caller).await {
            Ok(done) => done,
            Err(error) if before.is_some_and(|before| before.further == further) => return Err(error),
            Err(error) => return Err(next.undo(call, error).await),
        };
        // The endpoint may have been chosen further on, its name is in the answer.
        let endpoint = call.connection().network_service_endpoint_name.clone();
        call.set_fact(wired);
        *call.extra_mut() = preferences;
        let connection = call.connection_mut();
        metrics::record(connection, SERVER_INTERFACE, &caller);
        metrics::record(connection, CLIENT_INTERFACE, &inner);
        connection.mechanism = Some(caller);
        self.joined.set(&state, Joined { lease, next: inner, with: Some(With { endpoint, ..with }), further });
        Ok(call)
    }

    /// Programs the wire that the answer asks for, and completes the caller's side; says what was agreed with the next hop.
    async fn program(&self, call: &mut Call, caller: &mut Mechanism) -> Result<(Mechanism, Wired)> {
        let Some(mut inner) = call.connection().mechanism.clone() else {
            return Err(
                Error::invalid("the next hop chose no mechanism").hint("an endpoint needs a Mechanisms element")
            );
        };
        if !call.preferences().iter().any(|offer| offer.is(&inner.r#type)) {
            return Err(Error::unsupported(format!(
                "the next hop chose {:?}, which was not offered to it",
                inner.r#type.chars().take(16).collect::<String>()
            )));
        }
        self.dataplane.complete(call.connection(), caller, &mut inner)?;
        for mechanism in [&*caller, &inner] {
            mtu::limit(call.connection_mut(), mtu::of(mechanism));
        }
        let connection = call.connection();
        let wire = Wire {
            id: connection.id.as_str().into(),
            caller: caller.clone(),
            next: inner.clone(),
            context: connection.context.clone().unwrap_or_default(),
            payload: connection.payload.clone(),
            origin: call.fact::<Origin>().cloned(),
        };
        let begun = Instant::now();
        let programmed = self.dataplane.connect(&wire).await?;
        let wired = Wired { programmed, took: begun.elapsed() };
        tracing::debug!(id = &*wire.id, caller = wire.caller.r#type, next = inner.r#type, ?wired, "wire");
        Ok((inner, wired))
    }
}

impl<D: Dataplane> Element for CrossConnect<D> {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let accepted = self.dataplane.accepts(&call.connection().payload);
        select(call, &accepted, |call| self.join(call, next)).await
    }

    async fn close(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let joined = call.state().ok().and_then(|state| self.joined.take(state));
        let (inner, lease) = joined.map(|joined| (joined.next, joined.lease)).unzip();
        let outer = std::mem::replace(&mut call.connection_mut().mechanism, inner);
        let id = call.connection().id.clone();
        let (closed, unwired) = futures::join!(next.close(call), self.dataplane.disconnect(&id));
        // Given back only now: the wire that used it is gone.
        drop(lease);
        match (closed, unwired) {
            (Ok(mut call), Ok(())) => {
                call.connection_mut().mechanism = outer;
                Ok(call)
            }
            (Err(error), Ok(())) | (Ok(_), Err(error)) => Err(error),
            (Err(further), Err(here)) => Err(Error::all_failed(
                "neither the wire nor the connection further on could be closed",
                vec![here, further],
            )),
        }
    }

    fn order(&self) -> Order {
        Order { after: &["Begin"], before: &["Connect"], last: false }
    }
}

impl<D: Dataplane + std::fmt::Debug> std::fmt::Debug for CrossConnect<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CrossConnect").field(&self.dataplane).finish()
    }
}

#[cfg(test)]
mod tests;
