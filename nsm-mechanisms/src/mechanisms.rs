use std::fmt;

use nsm_chain::{Call, Chain, Element, Error, Next, Node, OrderError, Result};

use crate::metrics::{self, SERVER_INTERFACE};
use crate::select::select;

/// Chooses the mechanism, and lets the element kept for its type complete it.
///
/// *Request*: a mechanism that is chosen already must be supported. Otherwise the preferences are tried in order, each
/// on a copy of the call; the first with which everything behind succeeds is taken, and what a failed one left further
/// on is closed. When nobody further on is there (`Unavailable`) the others are not tried: it would change nothing. The interface is told in this hop's path segment (metric `server_interface`).
/// *Close*: passes through the element of the connection's mechanism.
///
/// It stands where a mechanism is needed for the first time: at an endpoint, before what configures the interface.
///
/// ```
/// use nsm_api::mechanism::{KERNEL, NOOP};
/// use nsm_mechanisms::{KernelAccept, Mechanisms, Noop};
///
/// let mechanisms = Mechanisms::new().with(KERNEL, KernelAccept::new())?.with(NOOP, Noop)?;
/// # Ok::<(), nsm_chain::OrderError>(())
/// ```
#[derive(Default)]
pub struct Mechanisms {
    by_type: Vec<(&'static str, Chain)>,
}

impl Mechanisms {
    /// Supports nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Supports mechanisms of this type (`nsm_api::mechanism::KERNEL`), each completed by `element`. A second element
    /// for a type takes the place of the first.
    ///
    /// # Errors
    /// When the element must stand behind others: here it stands alone. Put those before `Mechanisms`.
    pub fn with(mut self, type_name: &'static str, element: impl Element) -> Result<Self, OrderError> {
        let chain = Chain::new(type_name, vec![Node::new(UndoneOnFailure), Node::new(element)])?;
        self.by_type.retain(|(name, _)| *name != type_name);
        self.by_type.push((type_name, chain));
        Ok(self)
    }

    fn chain(&self, call: &Call) -> Option<&Chain> {
        let mechanism = call.connection().mechanism.as_ref()?;
        self.by_type.iter().find(|(name, _)| mechanism.is(name)).map(|(_, chain)| chain)
    }

    async fn attempt(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let chain =
            self.chain(&call).ok_or_else(|| Error::internal("a mechanism was selected that is not supported"))?;
        let mut call = Element::request(chain, call, next).await?;
        if let Some(mechanism) = call.connection().mechanism.clone() {
            metrics::record(call.connection_mut(), SERVER_INTERFACE, &mechanism);
        }
        Ok(call)
    }
}

impl Element for Mechanisms {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let supported: Vec<_> = self.by_type.iter().map(|(name, _)| *name).collect();
        select(call, &supported, |call| self.attempt(call, next)).await
    }

    async fn close(&self, call: Call, next: Next<'_>) -> Result<Call> {
        match self.chain(&call) {
            Some(chain) => Element::close(chain, call, next).await,
            // Whatever it is, nothing was done for it here; further on it may be known.
            None => next.close(call).await,
        }
    }
}

impl fmt::Debug for Mechanisms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mechanisms")?;
        f.debug_list().entries(self.by_type.iter().map(|(name, _)| name)).finish()
    }
}

/// Closes further on what a failed first Request may have left: a hop that succeeded after we stopped waiting does not
/// know that nobody wants its answer, and the next preference must find nothing of this one.
struct UndoneOnFailure;

impl Element for UndoneOnFailure {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        if !call.is_first() {
            return next.request(call).await;
        }
        let asked = call.clone();
        match next.request(call).await {
            Ok(call) => Ok(call),
            Err(error) => Err(next.undo(asked, error).await),
        }
    }
}

#[cfg(test)]
mod tests;
