use std::time::{Duration, SystemTime};

use nsm_api::Connection;
use nsm_chain::{Call, Element, Error, Next, Order, Result, Slot, Timer, Timers, time};

/// Closes a connection whose caller stopped refreshing it.
///
/// *Request*: on success a timer is set to the expiry of the caller's token, less the time this Request had, so that
/// the Close it starts still carries a live token; less at most a third of the token's life, so that a patient caller
/// does not get a shorter connection for it. *Close*: the timer goes with the connection's state.
///
/// It stands behind `UpdateToken`, which writes the expiry it reads.
#[derive(Debug)]
pub struct Timeout {
    timers: Timers,
    armed: Slot<Timer>,
}

impl Timeout {
    /// Sets its timers in this queue.
    #[must_use]
    pub fn new(timers: Timers) -> Self {
        Self { timers, armed: Slot::new() }
    }
}

/// When the caller's token ends. `None`: nobody is before us on the path.
fn expiry(call: &Call) -> Result<Option<SystemTime>> {
    let Some(caller) = call.body().prev_segment() else { return Ok(None) };
    let expires = caller.expires.ok_or_else(|| {
        Error::invalid("the caller's path segment has no expiry").hint("send a token with each call")
    })?;
    SystemTime::try_from(expires).map(Some).map_err(|_| Error::invalid("the caller's expiry is not a time"))
}

impl Element for Timeout {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let patience = call.remaining().unwrap_or(Duration::ZERO);
        // Refused before anything is made further on.
        let expiry = expiry(&call)?;
        let call = next.request(call).await?;
        let state = call.state()?;
        let (Some(expiry), Some(handle)) = (expiry, call.handle().cloned()) else { return Ok(call) };
        let life = time::until(expiry);
        let timer = self.timers.at(time::instant(expiry) - patience.min(life / 3), move || {
            tokio::spawn(async move {
                // A refresh that was under way when the time came has set a later one.
                let still = |connection: &Connection| connection.prev_segment().and_then(|caller| caller.expires) == Some(expiry.into());
                if let Err(error) = handle.close_if(still).await {
                    tracing::info!(connection = &**handle.key(), %error, "expired, but not all of it could be closed");
                }
            });
        });
        self.armed.set(state, timer);
        Ok(call)
    }

    fn order(&self) -> Order {
        Order::after(&["Begin", "UpdateToken"])
    }
}
