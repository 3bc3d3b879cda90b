use std::time::{Duration, SystemTime};

use nsm_api::connection::Path;
use nsm_chain::{Call, Element, Handle, Next, Order, Result, Slot, Timer, Timers, Why, time};

use super::Backoff;

/// Asks again before the tokens along the path expire.
///
/// *Request*: on success a timer is set to a part of the shortest remaining life along the path: a third if the path
/// is one segment, else 0.2 to 0.4 of it, less the further out this hop stands; and up to a tenth earlier at random, so
/// that what was asked for at one moment is not refreshed at one. A refresh that fails is tried again,
/// ever more slowly, until it works or the connection is closed. *Close*: the timer goes with the connection's state.
///
/// Only the initiator refreshes. It stands behind `Begin`.
#[derive(Debug)]
pub struct Refresh {
    timers: Timers,
    armed: Slot<Timer>,
}

impl Refresh {
    /// Sets its timers in this queue.
    #[must_use]
    pub fn new(timers: Timers) -> Self {
        Self { timers, armed: Slot::new() }
    }
}

/// How long until the path should be refreshed; none if no segment says when it expires.
fn delay(path: &Path) -> Option<Duration> {
    let first = path.path_segments.iter().filter_map(|segment| SystemTime::try_from(segment.expires?).ok()).min()?;
    let count = path.path_segments.len();
    let factor = if count <= 1 { 1.0 / 3.0 } else { 0.2 + 0.2 * f64::from(path.index) / count as f64 };
    // An expired token must not turn into a busy loop.
    Some(time::until(first).mul_f64(factor.min(0.4)).max(Duration::from_millis(10)))
}

fn pauses(handle: &Handle) -> Backoff {
    Backoff::of(Duration::from_millis(200), Duration::from_secs(10), handle.key())
}

async fn refresh(handle: Handle) {
    let mut pauses = pauses(&handle);
    loop {
        pauses.wait().await;
        match handle.request(Why::Refresh).await {
            Ok(_) => return,
            Err(error) => {
                tracing::debug!(connection = &**handle.key(), %error, "refresh failed, trying again");
            }
        }
    }
}

impl Element for Refresh {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let call = next.request(call).await?;
        let state = call.state()?;
        let (Some(delay), Some(handle)) = (call.body().path.as_ref().and_then(delay), call.handle().cloned()) else {
            return Ok(call);
        };
        let delay = pauses(&handle).spread(delay);
        let timer = self.timers.at(tokio::time::Instant::now() + delay, move || {
            tokio::spawn(refresh(handle));
        });
        self.armed.set(state, timer);
        Ok(call)
    }

    fn order(&self) -> Order {
        Order::after(&["UpdatePath", "Begin"])
    }
}
