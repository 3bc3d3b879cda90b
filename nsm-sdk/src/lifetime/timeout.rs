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
    let Some(caller) = call.body().prev_segment() else {
        return Ok(None);
    };
    let expires = caller
        .expires
        .ok_or_else(|| Error::invalid("the caller's path segment has no expiry").hint("send a token with each call"))?;
    SystemTime::try_from(expires).map(Some).map_err(|_| Error::invalid("the caller's expiry is not a time"))
}

impl Element for Timeout {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let patience = call.remaining().unwrap_or(Duration::ZERO);
        // Refused before anything is made further on.
        let expiry = expiry(&call)?;
        let call = next.request(call).await?;
        let state = call.state()?;
        let (Some(expiry), Some(handle)) = (expiry, call.handle().cloned()) else {
            return Ok(call);
        };
        let life = time::until(expiry);
        let timer = self.timers.at(time::instant(expiry) - patience.min(life / 3), move || {
            tokio::spawn(async move {
                // A refresh that was under way when the time came has set a later one.
                let still = |connection: &Connection| {
                    connection.prev_segment().and_then(|caller| caller.expires) == Some(expiry.into())
                };
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use nsm_api::connection::{Path, PathSegment};
    use nsm_chain::{Begin, Chain, elements};

    const LIFE: Duration = Duration::from_secs(60);

    /// Takes its time for a refresh, and counts.
    #[derive(Clone, Default)]
    struct Slow(Arc<AtomicUsize>);

    impl Element for Slow {
        async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
            if !call.is_first() {
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
            next.request(call).await
        }

        async fn close(&self, call: Call, next: Next<'_>) -> Result<Call> {
            self.0.fetch_add(1, Ordering::SeqCst);
            next.close(call).await
        }
    }

    /// A Request whose caller's token lives that long from now.
    fn asked(life: Option<Duration>) -> Call {
        let caller = PathSegment { expires: life.map(|life| (time::now() + life).into()), ..Default::default() };
        let path = Path { index: 1, path_segments: vec![caller, PathSegment::default()] };
        Call::new(Connection { id: "c".into(), path: Some(path), ..Default::default() })
    }

    fn hop() -> (Chain, Timers, Slow) {
        let (timers, slow) = (Timers::default(), Slow::default());
        // Stands in for what the order asks for.
        struct UpdateToken;
        impl Element for UpdateToken {}
        let list = elements![Begin::default(), UpdateToken, Timeout::new(timers.clone()), slow.clone()];
        (Chain::new("nse", list).unwrap(), timers, slow)
    }

    fn closes(slow: &Slow) -> usize {
        slow.0.load(Ordering::SeqCst)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_refreshed_is_closed_when_the_token_ends() {
        let (chain, timers, slow) = hop();
        chain.request(asked(Some(LIFE))).await.unwrap();
        tokio::time::sleep(LIFE - Duration::from_millis(1)).await;
        assert_eq!(closes(&slow), 0);
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!((closes(&slow), timers.armed()), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_under_way_when_the_time_comes_saves_the_connection() {
        let (chain, timers, slow) = hop();
        chain.request(asked(Some(LIFE))).await.unwrap();
        tokio::time::sleep(LIFE - Duration::from_secs(5)).await;
        chain.request(asked(Some(LIFE))).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((closes(&slow), timers.armed()), (0, 1));
        tokio::time::sleep(LIFE).await;
        assert_eq!(closes(&slow), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_patient_caller_gets_at_least_two_thirds_of_his_tokens_life() {
        let (chain, _timers, slow) = hop();
        chain.request(asked(Some(LIFE)).within(10 * LIFE)).await.unwrap();
        tokio::time::sleep(LIFE * 2 / 3 - Duration::from_millis(1)).await;
        assert_eq!(closes(&slow), 0);
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(closes(&slow), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_without_an_expiry_is_refused_before_anything_is_made() {
        let (chain, timers, slow) = hop();
        let error = chain.request(asked(None)).await.unwrap_err();
        assert_eq!(error.code(), nsm_chain::Code::InvalidArgument);
        assert_eq!((closes(&slow), timers.armed()), (0, 0));
    }
}
