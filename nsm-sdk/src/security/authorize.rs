use nsm_api::connection::PathSegment;
use nsm_chain::{Call, Element, Error, Next, Order, Peer, Result, ServerLink, Slot, time};

use crate::identity::{About, PolicyInput, PolicySet};

/// Refuses callers whose path of tokens does not hold.
///
/// *Request and Close*: the policies judge the left part of the path, up to this hop's own segment, against the
/// caller's certificate. What comes without an identity, in process or on a link without TLS, is not judged: there is
/// nothing to judge it by. A Close of our own is not judged either: the caller's token may have expired, and that is
/// why it closes.
///
/// It stands behind `UpdateToken`, which completes the path it reads.
#[derive(Debug)]
pub struct Authorize {
    policies: PolicySet,
}

impl Authorize {
    /// Judges by these policies.
    #[must_use]
    pub fn new(policies: PolicySet) -> Self {
        Self { policies }
    }

    fn check(&self, call: &Call) -> Result<()> {
        let Some(peer) = call.peer() else {
            return Ok(());
        };
        let Some(path) = &call.body().path else {
            return Err(Error::invalid("the connection has no path"));
        };
        judge(&self.policies, path.left(), path.index, peer, &call.body().network_service)
    }
}

fn judge(policies: &PolicySet, segments: &[PathSegment], index: u32, peer: &Peer, service: &str) -> Result<()> {
    let tokens: Vec<&str> = segments.iter().map(|segment| segment.token.as_str()).collect();
    let about = About::Connection(segments);
    let input =
        PolicyInput { tokens: &tokens, index: index as usize, peer: Some(peer), owner: None, about, now: time::now() };
    policies.admit(&input, &format_args!("a connection to {service:?}"))
}

impl Element for Authorize {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        self.check(&call)?;
        next.request(call).await
    }

    async fn close(&self, call: Call, next: Next<'_>) -> Result<Call> {
        if !call.is_own() {
            self.check(&call)?;
        }
        next.close(call).await
    }

    fn order(&self) -> Order {
        Order::after(&["UpdateToken"])
    }
}

/// Refuses servers whose path of tokens does not hold.
///
/// *Request*: the policies judge the whole path that came back against the server's certificate; a server that was
/// never good is sent a Close. *Close* passes: letting go needs no permission.
///
/// It stands just before `Connect`.
#[derive(Debug)]
pub struct AuthorizeServer {
    policies: PolicySet,
    accepted: Slot<()>,
}

impl AuthorizeServer {
    /// Judges by these policies.
    #[must_use]
    pub fn new(policies: PolicySet) -> Self {
        Self { policies, accepted: Slot::new() }
    }
}

impl Element for AuthorizeServer {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let call = next.request(call).await?;
        let Some(peer) = call.fact::<ServerLink>().and_then(|server| server.0.peer.as_ref()) else {
            return Ok(call);
        };
        let (segments, index) =
            call.body().path.as_ref().map_or((&[][..], 0), |path| (path.path_segments.as_slice(), path.index));
        let judged = judge(&self.policies, segments, index, peer, &call.body().network_service);
        let state = call.state()?.clone();
        match judged {
            Ok(()) => {
                self.accepted.set(&state, ());
                Ok(call)
            }
            Err(error) if self.accepted.cloned(&state).is_some() => Err(error),
            Err(error) => Err(next.undo(call, error).await),
        }
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}
