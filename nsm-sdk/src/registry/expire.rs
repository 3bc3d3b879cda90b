use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use nsm_api::registry::NetworkServiceEndpoint;
use nsm_chain::{Call, Closed, Element, Handle, Next, Order, Result, Slot, Timer, Timers, time};

use super::{Endpoints, OwnToken, Restored, expiration};

/// Ends a registration that is not refreshed.
///
/// *Register*: the registration ends at the earliest of what the caller asks for, the end of our own token,
/// that of the caller's token, and the default life from now; a hop further on may answer with an earlier
/// end, which counts then. The answer says when. At that time an Unregister goes through the rest of the
/// chain; one that was refreshed meanwhile stays. With none of these the registration does not end.
/// *Unregister*: passes; the timer goes with the registration's state.
///
/// The Unregister still travels under the caller's token, so it starts before that has ended: earlier by what
/// the caller gave its Register, but by no more than a tenth of the life. A client refreshes at two thirds of
/// it, so however long its deadline is, its registration never ends before it had time to. What comes from a durable
/// store ends when it was promised to end.
#[derive(Debug)]
pub struct Expire {
    default: Option<Duration>,
    timers: Timers,
    armed: Slot<Armed>,
}

/// Dropping it stops the timer, and whoever the timer has started.
#[derive(Debug)]
struct Armed {
    _timer: Timer,
    _valid: Arc<()>,
}

impl Expire {
    /// Registrations end after `default`, unless something says earlier.
    #[must_use]
    pub fn after(default: Duration, timers: Timers) -> Self {
        Self { default: Some(default), timers, armed: Slot::new() }
    }

    /// Registrations end only when the caller or a token says so.
    #[must_use]
    pub fn when_asked(timers: Timers) -> Self {
        Self { default: None, timers, armed: Slot::new() }
    }

    fn end(&self, call: &Call<Endpoints>) -> Option<SystemTime> {
        if call.fact::<Restored>().is_some() {
            return expiration(call.body());
        }
        let by_default = self.default.and_then(|life| time::now().checked_add(life));
        let own = call.fact::<OwnToken>().map(|token| token.expires);
        let callers = call.token().map(|token| token.expires);
        [expiration(call.body()), own, callers, by_default].into_iter().flatten().min()
    }

    fn arm(&self, end: SystemTime, lead: Duration, handle: Handle<Endpoints>) -> Armed {
        let lead = lead.min(time::until(end) / 10);
        let valid = Arc::new(());
        let still = Arc::downgrade(&valid);
        let timer = self.timers.at(time::instant(end) - lead, move || {
            drop(tokio::spawn(expire(handle, still)));
        });
        Armed { _timer: timer, _valid: valid }
    }
}

impl Element<Endpoints> for Expire {
    async fn request(&self, mut call: Call<Endpoints>, next: Next<'_, Endpoints>) -> Result<Call<Endpoints>> {
        let end = self.end(&call);
        let lead = call.remaining().unwrap_or_default();
        settle(call.body_mut(), end);
        call = next.request(call).await?;
        let end = [end, expiration(call.body())].into_iter().flatten().min();
        settle(call.body_mut(), end);
        let (state, handle) = (Arc::clone(call.state()?), call.handle().cloned());
        match end.zip(handle) {
            Some((end, handle)) => drop(self.armed.set(&state, self.arm(end, lead, handle))),
            None => drop(self.armed.take(&state)),
        }
        Ok(call)
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}

fn settle(endpoint: &mut NetworkServiceEndpoint, end: Option<SystemTime>) {
    endpoint.expiration_time = end.map(Into::into);
}

/// Unregisters, unless a Register or Unregister came first (`still` is gone then).
async fn expire(handle: Handle<Endpoints>, still: Weak<()>) {
    let endpoint = &**handle.key();
    match handle.close_if(|_| still.strong_count() > 0).await {
        Ok(Closed::Done) => tracing::info!(endpoint, "the registration has expired"),
        Ok(Closed::Unknown) => {}
        Err(error) => {
            tracing::warn!(endpoint, %error, "an expired registration is not gone everywhere");
        }
    }
}

#[cfg(test)]
mod tests;
