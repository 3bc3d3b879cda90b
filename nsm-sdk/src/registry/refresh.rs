use std::sync::{Arc, Weak};
use std::time::Duration;

use nsm_chain::{Call, Element, Handle, Next, Order, Result, Slot, Timer, Timers, Why, time};
use tokio::time::Instant;

use super::{Endpoints, expiration};
use crate::lifetime::Backoff;

/// Keeps a registration alive.
///
/// *Register*: when it succeeds and says when it ends, another one is made at two thirds of the time left, or up to a
/// tenth earlier at random, so that what registered at one moment does not come back at one; it asks for a new end. If
/// that fails it is tried again, ever more slowly, until it works, the application registers the name again, or
/// unregisters it. *Unregister*: passes; the timer goes with the registration's state.
///
/// It belongs to whoever registers for itself, not to a hop in between. It stands after `Begin`.
#[derive(Debug)]
pub struct RefreshRegistration {
    timers: Timers,
    seed: Option<u64>,
    armed: Slot<Armed>,
}

/// Dropping it stops the timer, and the tries that the timer has started.
#[derive(Debug)]
struct Armed {
    _timer: Timer,
    _wanted: Arc<()>,
}

/// Pause before asking again where the answer says that the registration has ended already: the clocks
/// differ.
const ENDED: Duration = Duration::from_secs(1);

impl RefreshRegistration {
    /// Keeps its timers there.
    #[must_use]
    pub fn new(timers: Timers) -> Self {
        Self { timers, seed: None, armed: Slot::new() }
    }

    /// Spreads its tries from this seed, so that a simulation can be repeated.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    fn arm(&self, left: Duration, handle: Handle<Endpoints>) -> Armed {
        let (first, most) = (Duration::from_millis(200), Duration::from_secs(10));
        let mut pauses = match self.seed {
            Some(seed) => Backoff::new(first, most, seed),
            None => Backoff::of(first, most, handle.key()),
        };
        let after = if left.is_zero() { ENDED } else { pauses.spread(left * 2 / 3) };
        let wanted = Arc::new(());
        let still = Arc::downgrade(&wanted);
        let timer = self.timers.at(Instant::now() + after, move || {
            drop(tokio::spawn(refresh(handle, still, pauses)));
        });
        Armed { _timer: timer, _wanted: wanted }
    }
}

impl Element<Endpoints> for RefreshRegistration {
    async fn request(&self, mut call: Call<Endpoints>, next: Next<'_, Endpoints>) -> Result<Call<Endpoints>> {
        if call.is_own() {
            call.body_mut().expiration_time = None;
        }
        let call = next.request(call).await?;
        let state = call.state()?;
        match expiration(call.body()).zip(call.handle().cloned()) {
            Some((end, handle)) => drop(self.armed.set(state, self.arm(time::until(end), handle))),
            None => drop(self.armed.take(state)),
        }
        Ok(call)
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}

/// Registers again, while nothing else has taken care of it (`still` is gone then).
async fn refresh(handle: Handle<Endpoints>, still: Weak<()>, mut pauses: Backoff) {
    loop {
        tokio::time::sleep(pauses.pause()).await;
        if still.strong_count() == 0 {
            return;
        }
        match handle.request(Why::Refresh).await {
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(endpoint = &**handle.key(), %error, "cannot refresh the registration, trying again");
            }
        }
    }
}

#[cfg(test)]
mod tests;
