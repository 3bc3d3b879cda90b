use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use nsm_api::connection::{Connection, State};
use nsm_chain::{Call, Code, Element, Error, Handle, Next, Order, Result, Slot, Timer, Timers, Why};

use tokio::time::Instant;

use super::Backoff;
use crate::connect::{News, NextHopWatch, Sink, Subscription};

/// How long hops further on may refuse what still stands, because they restart and find each other again.
const GRACE: Duration = Duration::from_secs(15);

/// Says whether packets still get through a connection.
pub trait Liveness: Send + Sync + 'static {
    /// Whether the other end answers within this time.
    fn alive<'a>(&'a self, connection: &'a Connection, within: Duration) -> BoxFuture<'a, bool>;
}

/// Makes a broken connection again.
///
/// *Request*: on success it listens to the next hop; state DOWN, a connection the next hop closed, or a next hop that
/// is lost, start healing. With a [`Liveness`] function it also checks now and then whether packets get through.
/// Healing asks again: as long as packets get through for what still stands, and only if hops further on say for a
/// while that it does not, for a fresh choice at every hop; otherwise for a fresh choice at once. The first try is
/// immediate, the next ones ever further apart, until one works or the connection is closed. A refresh that fails leaves
/// it listening.
/// *Close*: it stops listening.
///
/// Only the initiator heals. It stands behind `Begin` and before `Connect`.
pub struct Heal {
    timers: Timers,
    liveness: Option<Arc<dyn Liveness>>,
    interval: Duration,
    within: Duration,
    patient: Slot<Arc<Patient>>,
}

impl Heal {
    /// Heals when the control plane reports a break.
    #[must_use]
    pub fn new(timers: Timers) -> Self {
        Self {
            timers,
            liveness: None,
            interval: Duration::from_millis(200),
            within: Duration::from_millis(100),
            patient: Slot::new(),
        }
    }

    /// Also heals when packets do not get through: asked every `interval`, given `within` to answer.
    #[must_use]
    pub fn with_liveness(mut self, liveness: Arc<dyn Liveness>, interval: Duration, within: Duration) -> Self {
        self.liveness = Some(liveness);
        self.interval = interval;
        self.within = within;
        self
    }
}

/// One connection under observation.
struct Patient {
    handle: Handle,
    liveness: Option<(Arc<dyn Liveness>, Duration)>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    connection: Arc<Connection>,
    watch: Option<Subscription>,
    ticker: Option<Timer>,
    healing: bool,
    /// It broke again while it was being healed.
    again: bool,
}

impl Patient {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts healing, unless that is under way.
    fn broke(self: &Arc<Self>, packets_stopped: bool) {
        {
            let mut seen = self.seen();
            seen.again = seen.healing;
            if std::mem::replace(&mut seen.healing, true) {
                return;
            }
        }
        tokio::spawn(Arc::clone(self).heal(packets_stopped));
    }

    async fn heal(self: Arc<Self>, mut packets_stopped: bool) {
        let mut pauses = Backoff::of(Duration::from_millis(50), Duration::from_secs(5), self.handle.key());
        let mut refused: Option<Instant> = None;
        loop {
            pauses.wait().await;
            let why = if packets_stopped || !self.packets_flow().await { Why::Reselect } else { Why::Heal };
            self.seen().again = false;
            match self.handle.request(why).await {
                Ok(_) => {
                    let mut seen = self.seen();
                    if !seen.again {
                        seen.healing = false;
                        return;
                    }
                    packets_stopped = false;
                    refused = None;
                }
                Err(error) => {
                    tracing::debug!(connection = &**self.handle.key(), ?why, %error, "not healed yet");
                    // As long as the next hop itself is out of reach, tearing down what works would help nobody.
                    if self.is_further_on(&error) {
                        // Nobody answers where it stood: what still answers pings there is a corpse. Or it may no
                        // longer stand there.
                        packets_stopped |= error.code() == Code::FailedPrecondition
                            || refused.get_or_insert_with(Instant::now).elapsed() >= GRACE;
                    }
                }
            }
        }
    }

    /// Whether another hop than this one failed.
    fn is_further_on(&self, error: &Error) -> bool {
        let connection = Arc::clone(&self.seen().connection);
        let own = connection.current_segment().map(|segment| segment.name.as_str());
        error.hop().is_some_and(|hop| Some(hop) != own)
    }

    /// Without a liveness function nobody can say so.
    async fn packets_flow(&self) -> bool {
        let Some((liveness, within)) = &self.liveness else {
            return false;
        };
        let connection = Arc::clone(&self.seen().connection);
        liveness.alive(&connection, *within).await
    }

    async fn check(self: Arc<Self>, timers: Timers, interval: Duration) {
        if !self.seen().healing && !self.packets_flow().await {
            self.broke(true);
        }
        self.tick(timers, interval);
    }

    /// Sets the timer of the next check, if there still is something to check.
    fn tick(self: &Arc<Self>, timers: Timers, interval: Duration) {
        let patient = Arc::downgrade(self);
        let queue = timers.clone();
        let timer = timers.at(Instant::now() + interval, move || {
            if let Some(patient) = patient.upgrade() {
                tokio::spawn(patient.check(queue, interval));
            }
        });
        let mut seen = self.seen();
        // A closed connection has no watch: it is checked no more.
        let former = seen.watch.is_some().then(|| seen.ticker.replace(timer));
        drop(seen);
        drop(former);
    }
}

/// What the next hop says of a patient. Weak: a subscription inside the patient must not keep it alive.
struct Ear(std::sync::Weak<Patient>);

impl Sink for Ear {
    fn told(&self, news: News<'_>) {
        let Some(patient) = self.0.upgrade() else {
            return;
        };
        match news {
            News::Changed(connection) if connection.state() != State::Down => {}
            News::Changed(_) | News::Gone | News::Lost(_) => patient.broke(false),
        }
    }
}

impl Element for Heal {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let call = next.request(call).await?;
        let state = call.state()?;
        let (Some(watch), Some(handle)) = (call.fact::<NextHopWatch>(), call.handle()) else {
            return Ok(call);
        };
        let patient = self.patient.cloned(state).unwrap_or_else(|| {
            let liveness = self.liveness.clone().map(|liveness| (liveness, self.within));
            let patient = Arc::new(Patient { handle: handle.clone(), liveness, seen: Mutex::default() });
            self.patient.set(state, Arc::clone(&patient));
            patient
        });
        let (new, former) = {
            let mut seen = patient.seen();
            seen.connection = call.share();
            let new = seen.watch.as_ref().is_none_or(|now| !watch.is_heard_by(now));
            (new, if new { seen.watch.take() } else { None })
        };
        drop(former);
        if new {
            let subscription = watch.listen(Arc::new(Ear(Arc::downgrade(&patient))));
            patient.seen().watch = Some(subscription);
        }
        if self.liveness.is_some() && patient.seen().ticker.is_none() {
            patient.tick(self.timers.clone(), self.interval);
        }
        Ok(call)
    }

    async fn close(&self, call: Call, next: Next<'_>) -> Result<Call> {
        if let Some(patient) = call.slot(&self.patient) {
            let (watch, ticker) = {
                let mut seen = patient.seen();
                (seen.watch.take(), seen.ticker.take())
            };
            drop((watch, ticker));
        }
        next.close(call).await
    }

    fn order(&self) -> Order {
        Order::after(&["UpdatePath", "Begin"])
    }
}

impl fmt::Debug for Heal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Heal(liveness: {})", self.liveness.is_some())
    }
}
