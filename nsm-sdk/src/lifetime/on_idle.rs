use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use nsm_chain::{Call, Element, Error, Next, Order, Result, Slot, Timer, Timers};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Tells when nobody has used this endpoint for a while, so that it can end.
///
/// *Request*: while a connection is there, or is being made, no time is counted. Once the time without any is over,
/// the token is cancelled and every Request is refused. *Close*: the connection's end; with the last one the time
/// begins again, as it does when a first Request fails.
///
/// It stands in an endpoint, behind `Begin`.
///
/// Reference: `common/onidle` of the Go SDK.
pub struct OnIdle {
    watch: Arc<IdleWatch>,
    here: Slot<Arc<Presence>>,
}

struct IdleWatch {
    timeout: Duration,
    timers: Timers,
    idle: CancellationToken,
    counted: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    present: usize,
    over: bool,
    timer: Option<Timer>,
}

/// One connection. Dropped, it is gone.
struct Presence(Arc<IdleWatch>);

impl OnIdle {
    /// After this much time without connections, from now on. To be called within a runtime.
    #[must_use]
    pub fn after(timeout: Duration, timers: Timers) -> Self {
        let watch = IdleWatch { timeout, timers, idle: CancellationToken::new(), counted: Mutex::default() };
        let watch = Arc::new(watch);
        watch.arm(&mut watch.counted());
        Self { watch, here: Slot::new() }
    }

    /// Is cancelled when the time is over.
    #[must_use]
    pub fn idle(&self) -> CancellationToken {
        self.watch.idle.clone()
    }
}

impl IdleWatch {
    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arm(self: &Arc<Self>, counted: &mut Counted) {
        let watch: Weak<Self> = Arc::downgrade(self);
        let timer = self.timers.at(Instant::now() + self.timeout, move || {
            if let Some(watch) = watch.upgrade() {
                let mut counted = watch.counted();
                // One that came at the last moment counts.
                counted.over = counted.present == 0;
                if counted.over {
                    watch.idle.cancel();
                }
            }
        });
        counted.timer = Some(timer);
    }

    fn enter(self: &Arc<Self>) -> Result<Arc<Presence>> {
        let timer = {
            let mut counted = self.counted();
            if counted.over {
                return Err(Error::unavailable("this endpoint was idle and is ending").hint("ask another endpoint"));
            }
            counted.present += 1;
            counted.timer.take()
        };
        drop(timer);
        Ok(Arc::new(Presence(Arc::clone(self))))
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut counted = self.0.counted();
        counted.present -= 1;
        if counted.present == 0 && !counted.over {
            self.0.arm(&mut counted);
        }
    }
}

impl Element for OnIdle {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let state = Arc::clone(call.state()?);
        let presence = match self.here.cloned(&state) {
            Some(presence) => presence,
            None => self.watch.enter()?,
        };
        let call = next.request(call).await?;
        self.here.set(&state, presence);
        Ok(call)
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}

impl fmt::Debug for OnIdle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = self.watch.counted();
        f.debug_struct("OnIdle")
            .field("timeout", &self.watch.timeout)
            .field("present", &counted.present)
            .field("over", &counted.over)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use nsm_api::Connection;
    use nsm_chain::{Begin, Chain, Code, OwnedNext, elements, from_fn};

    const MINUTE: Duration = Duration::from_secs(60);

    fn call(id: &str) -> Call {
        Call::new(Connection { id: id.into(), ..Default::default() })
    }

    fn chain() -> (Chain, CancellationToken, Arc<AtomicBool>) {
        let on_idle = OnIdle::after(MINUTE, Timers::default());
        let (idle, fails) = (on_idle.idle(), Arc::new(AtomicBool::new(false)));
        let failing = Arc::clone(&fails);
        let last = from_fn(move |call: Call, next: OwnedNext| {
            let fails = failing.load(Ordering::Relaxed);
            async move { if fails { Err(Error::unavailable("no")) } else { next.request(call).await } }
        });
        (Chain::new("nse", elements![Begin::default(), on_idle, last]).unwrap(), idle, fails)
    }

    async fn after(time: Duration) {
        tokio::time::sleep(time).await;
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_for_a_while_is_told_once_and_nobody_gets_in_afterwards() {
        let (chain, idle, _) = chain();
        after(MINUTE - Duration::from_millis(10)).await;
        assert!(!idle.is_cancelled());
        after(Duration::from_millis(20)).await;
        assert!(idle.is_cancelled());
        assert_eq!(chain.request(call("a")).await.unwrap_err().code(), Code::Unavailable);
    }

    #[tokio::test(start_paused = true)]
    async fn time_counts_from_the_last_close_on() {
        let (chain, idle, _) = chain();
        chain.request(call("a")).await.unwrap();
        chain.request(call("b")).await.unwrap();
        after(10 * MINUTE).await;
        chain.request(call("a")).await.unwrap();
        chain.close(call("a")).await.unwrap();
        after(10 * MINUTE).await;
        assert!(!idle.is_cancelled(), "b is there");
        chain.close(call("b")).await.unwrap();
        after(MINUTE / 2).await;
        assert!(!idle.is_cancelled());
        after(MINUTE).await;
        assert!(idle.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_request_that_fails_uses_nothing_and_a_failed_refresh_changes_nothing() {
        let (chain, idle, fails) = chain();
        chain.request(call("a")).await.unwrap();
        fails.store(true, Ordering::Relaxed);
        chain.request(call("a")).await.unwrap_err();
        after(10 * MINUTE).await;
        assert!(!idle.is_cancelled(), "a is there");
        chain.close(call("a")).await.unwrap();
        chain.request(call("b")).await.unwrap_err();
        after(MINUTE + Duration::from_millis(20)).await;
        assert!(idle.is_cancelled());
    }
}
