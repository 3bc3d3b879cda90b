use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use nsm_api::connection::State;
use nsm_chain::{Call, Element, Handle, Next, Order, Result, Slot, Why};

use crate::connect::{News, NextHopWatch, Sink, Subscription};

/// Asks again when a hop further on wants to be asked: an endpoint whose MTU or addresses have changed, say.
///
/// *Request*: on success it listens to the next hop; a connection in state REFRESH_REQUESTED is asked for once more, one
/// time after the other, and not more often than four times a second, whatever a peer says. *Close*: it stops listening.
///
/// Only the initiator refreshes. It stands behind `Begin` and before `Connect`.
#[derive(Debug, Default)]
pub struct UpstreamRefresh {
    listening: Slot<Subscription>,
}

/// What the next hop says of a connection. The subscription keeps it: a refresh under way asks by it whether it is still
/// wanted.
struct Ear {
    own: Weak<Self>,
    handle: Handle,
    wanted: AtomicU8,
}

/// Nobody wants a refresh.
const NONE: u8 = 0;
/// One is under way.
const UNDER_WAY: u8 = 1;
/// One is under way, and another one was wanted since.
const ANOTHER: u8 = 2;
/// After each.
const PAUSE: Duration = Duration::from_millis(250);

impl Sink for Ear {
    fn told(&self, news: News<'_>) {
        let News::Changed(connection) = news else { return };
        if connection.state() != State::RefreshRequested {
            return;
        }
        let before = self.wanted.fetch_update(Ordering::AcqRel, Ordering::Acquire, |wanted| {
            Some(if wanted == NONE { UNDER_WAY } else { ANOTHER })
        });
        if before == Ok(NONE)
            && let Some(ear) = self.own.upgrade()
        {
            tokio::spawn(ear.refresh());
        }
    }
}

impl Ear {
    async fn refresh(self: Arc<Self>) {
        let ear = Arc::downgrade(&self);
        let handle = self.handle.clone();
        drop(self);
        loop {
            if let Err(error) = handle.request(Why::Refresh).await {
                // It stands as it was, and is refreshed in its time.
                tracing::debug!(connection = &**handle.key(), %error, "a hop wanted a refresh, and it failed");
            }
            tokio::time::sleep(PAUSE).await;
            // A closed connection wants nothing any more.
            let Some(ear) = ear.upgrade() else { return };
            if ear.wanted.compare_exchange(UNDER_WAY, NONE, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return;
            }
            ear.wanted.store(UNDER_WAY, Ordering::Release);
        }
    }
}

impl Element for UpstreamRefresh {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let call = next.request(call).await?;
        let state = call.state()?;
        let (Some(watch), Some(handle)) = (call.fact::<NextHopWatch>(), call.handle()) else {
            return Ok(call);
        };
        let ear = || -> Arc<dyn Sink> {
            Arc::new_cyclic(|own| Ear { own: own.clone(), handle: handle.clone(), wanted: AtomicU8::new(NONE) })
        };
        let former = self.listening.take(state);
        drop(self.listening.set(state, watch.listen(former, ear)));
        Ok(call)
    }

    async fn close(&self, call: Call, next: Next<'_>) -> Result<Call> {
        if let Ok(state) = call.state() {
            drop(self.listening.take(state));
        }
        next.close(call).await
    }

    fn order(&self) -> Order {
        Order { after: &["UpdatePath", "Begin"], before: &["Connect"], last: false }
    }
}
