//! Another endpoint for the way on.

use std::sync::Arc;

use nsm_chain::{Call, Element, Next, Order, Result, Slot};

/// Sends a Request on to the endpoint that an earlier one of this connection found, at first to none in particular,
/// and answers with the name the caller used.
/// To a Close it does the same.
///
/// It stands in an endpoint that is a client again, after `Begin`, before endpoints are chosen: the name the caller
/// used is this endpoint's own. See [`Passthrough`](super::Passthrough).
///
/// Reference: `passthrough/replacensename` of the Go SDK.
#[derive(Debug, Default)]
pub struct ReplaceEndpointName(Slot<String>);

impl ReplaceEndpointName {
    /// Knows of no endpoint yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts the name further on in, and hands back the caller's.
    pub(super) fn replace(&self, call: &mut Call) -> String {
        let further_on = call.slot(&self.0).unwrap_or_default();
        std::mem::replace(&mut call.connection_mut().network_service_endpoint_name, further_on)
    }

    /// Remembers who answered, and puts the caller's name back.
    pub(super) fn remember(&self, call: &mut Call, callers: String) -> Result<()> {
        let state = Arc::clone(call.state()?);
        let answered = std::mem::replace(&mut call.connection_mut().network_service_endpoint_name, callers);
        self.0.set(&state, answered);
        Ok(())
    }
}

impl Element for ReplaceEndpointName {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let callers = self.replace(&mut call);
        let mut call = next.request(call).await?;
        self.remember(&mut call, callers)?;
        Ok(call)
    }

    async fn close(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let callers = self.replace(&mut call);
        let mut call = next.close(call).await?;
        call.connection_mut().network_service_endpoint_name = callers;
        Ok(call)
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}
