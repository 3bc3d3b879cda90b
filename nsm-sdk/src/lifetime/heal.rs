use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use nsm_api::connection::{Connection, State};
use nsm_chain::{Call, Code, Element, Error, Handle, Next, Order, Result, Slot, Timer, Timers, Why};

use tokio::time::Instant;

use super::{Backoff, Reason};
use crate::connect::{News, NextHopWatch, Sink, Subscription};

/// Says whether packets still get through a connection.
pub trait Liveness: Send + Sync + 'static {
    /// Whether the other end answers within this time.
    fn alive<'a>(&'a self, connection: &'a Connection, within: Duration) -> BoxFuture<'a, bool>;
}

/// Makes a broken connection again.
///
/// *Request*: on success it listens to the next hop; state DOWN, a connection the next hop closed, or a next hop that
/// is lost, start healing. With a [`Liveness`] function it also checks now and then whether packets get through.
/// Healing goes from what disturbs least to what disturbs most:
///
/// 1. It asks again for what stands ([`Why::Heal`]): a hop that restarted adopts it.
/// 2. If nobody answers at the endpoint, packets do not get through, or the network service no longer lets the client have
///    the endpoint, it asks for any other one over the same hops. What stands, stands until another endpoint has accepted.
/// 3. If that does not help where packets do not get through, or the rest of the path has not been there for a while,
///    everything is closed and chosen afresh ([`Why::Reselect`]).
///
/// The first try is immediate, the next ones ever further apart, until a Request works, whoever made it, or the connection
/// is closed. A connection that breaks again and again is tried ever more slowly too. Each Request carries the [`Reason`].
/// A refresh that fails leaves it listening. A next hop that refuses to be listened to is not a broken path.
/// *Close*: it stops listening.
///
/// Only the initiator heals. It stands behind `Begin` and before `Connect`.
pub struct Heal {
    timers: Timers,
    liveness: Option<Arc<dyn Liveness>>,
    interval: Duration,
    within: Duration,
    patient: Slot<Arc<Patient>>,
    /// A patient outlives its connection's state, which each fresh choice clears.
    patients: Mutex<HashMap<Arc<str>, Weak<Patient>>>,
}

/// The first pause.
const PAUSE: Duration = Duration::from_millis(50);
/// A connection that stood for so long starts with an immediate try again.
const STEADY: Duration = Duration::from_secs(10);
/// What the first try gets; each next one gets twice as much, until it is as much as the first Request had. A hop that
/// swallows calls without an answer must not hold a try for long.
const FIRST_TRY: Duration = Duration::from_millis(500);
/// No try gets more.
const LONGEST_TRY: Duration = Duration::from_secs(60);
/// How long hops further on may refuse what still stands, because they restart and find each other again, while packets
/// flow.
const GRACE: Duration = Duration::from_secs(15);
/// The same where nobody knows whether packets flow. A program that is started again is back within a second, and what it
/// left may well carry packets: a Close would cut them.
const GRACE_UNSEEN: Duration = Duration::from_secs(2);

/// What a program that is started again needs until the others find it.
const RESTART: Duration = Duration::from_millis(300);

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
            patients: Mutex::default(),
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

    fn patients(&self) -> MutexGuard<'_, HashMap<Arc<str>, Weak<Patient>>> {
        self.patients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The patient of this connection, who may be in the middle of a healing.
    fn patient(&self, handle: &Handle) -> Arc<Patient> {
        let mut patients = self.patients();
        if let Some(known) = patients.get(handle.key()).and_then(Weak::upgrade)
            && known.handle.is_of_one_life(handle)
            && !known.seen().closed
        {
            return known;
        }
        patients.retain(|_, patient| patient.strong_count() > 0);
        let patient = Arc::new(Patient {
            handle: handle.clone(),
            liveness: self.liveness.clone().map(|liveness| (liveness, self.within)),
            seen: Mutex::new(Seen {
                connection: Arc::default(),
                watch: None,
                ticker: None,
                broken: None,
                asked: None,
                healing: false,
                closed: false,
                unproven: false,
                pauses: pauses(handle.key()),
                healed: Instant::now(),
            }),
        });
        patients.insert(Arc::clone(handle.key()), Arc::downgrade(&patient));
        patient
    }
}

fn pauses(key: &str) -> Backoff {
    Backoff::within_a_second(PAUSE, key)
}

/// One connection under observation.
struct Patient {
    handle: Handle,
    liveness: Option<(Arc<dyn Liveness>, Duration)>,
    seen: Mutex<Seen>,
}

struct Seen {
    connection: Arc<Connection>,
    watch: Option<Subscription>,
    ticker: Option<Timer>,
    /// What broke since the last Request that worked began.
    broken: Option<Reason>,
    /// What had broken when the Request under way began: that one may fail, whoever made it.
    asked: Option<Reason>,
    healing: bool,
    closed: bool,
    /// It moved because packets did not get through, and none has since. Whoever is to blame, it need not be the endpoint.
    unproven: bool,
    pauses: Backoff,
    /// When it was healed last.
    healed: Instant,
}

/// One healing: what the tries so far have shown.
struct Course {
    reason: Reason,
    /// What the next try gets.
    patience: Duration,
    /// Since when hops further on refuse.
    refused: Option<Instant>,
    /// The last refusal came from one that is there: an endpoint that is full, a service that sends the client elsewhere.
    declined: bool,
    /// Everything has been closed: there is nothing to ask again for.
    torn: bool,
}

impl Patient {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts healing, unless that is under way.
    fn broke(self: &Arc<Self>, reason: Reason) {
        {
            let mut seen = self.seen();
            if seen.closed {
                return;
            }
            // That packets stopped says more than what the control plane says.
            if seen.broken != Some(Reason::PacketsStopped) {
                seen.broken = Some(reason);
            }
            if std::mem::replace(&mut seen.healing, true) {
                return;
            }
            if seen.healed.elapsed() >= STEADY {
                seen.pauses = pauses(self.handle.key());
            }
        }
        tokio::spawn(Arc::clone(self).heal());
    }

    /// The next hop says that it is up again, by itself or because somebody asked. If it leads elsewhere now, because a
    /// Request got on further out than we waited for it, we have yet to ask where.
    fn recovered(&self, told: &Connection) {
        let mut seen = self.seen();
        if seen.broken != Some(Reason::PacketsStopped) && is_one_way(&seen.connection, told) {
            seen.broken = None;
        }
    }

    async fn heal(self: Arc<Self>) {
        let mut course: Option<Course> = None;
        loop {
            let pause = self.seen().pauses.pause();
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let reason = {
                let mut seen = self.seen();
                match seen.broken.or(seen.asked).filter(|_| !seen.closed) {
                    Some(reason) => reason,
                    None => {
                        seen.healing = false;
                        seen.healed = Instant::now();
                        return;
                    }
                }
            };
            let now = course.get_or_insert(Course {
                reason,
                patience: FIRST_TRY,
                refused: None,
                declined: false,
                torn: false,
            });
            if reason == Reason::PacketsStopped {
                now.reason = reason;
            }
            match self.attempt(now).await {
                // Nothing has broken since it began, or the next time round says so.
                Ok(true) => course = None,
                Ok(false) => {
                    self.seen().closed = true;
                }
                Err(error) => {
                    tracing::debug!(connection = &**self.handle.key(), reason = ?now.reason, %error, "not healed yet");
                    now.patience = (now.patience * 2).min(LONGEST_TRY);
                }
            }
        }
    }

    /// One try. Whether there still was something to heal.
    async fn attempt(&self, course: &mut Course) -> Result<bool> {
        let flowing = match course.reason {
            Reason::PacketsStopped => Some(false),
            _ => self.packets_flow().await,
        };
        // Who is there and declines has not let go of what stands.
        let stands = flowing == Some(true) || course.declined;
        let grace = if stands { GRACE } else { GRACE_UNSEEN };
        let waited = course.refused.is_some_and(|since| since.elapsed() >= grace);
        let stopped = flowing == Some(false);
        if course.torn || waited || (stopped && self.seen().unproven) {
            return self.ask_afresh(course).await;
        }
        if stopped {
            return match self.ask_another(course).await {
                Ok(done) => {
                    self.seen().unproven = true;
                    Ok(done)
                }
                Err(error) => {
                    tracing::debug!(connection = &**self.handle.key(), %error, "no other endpoint over the same hops");
                    self.ask_afresh(course).await
                }
            };
        }
        let error = match self.ask(Why::Heal, course, |_| {}).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        if !self.is_further_on(&error) {
            // Somebody is silent. That may well be the endpoint: where no packets are known to flow, others are worth asking.
            if error.code() == Code::DeadlineExceeded && flowing.is_none() {
                return self.ask_another(course).await;
            }
            // As long as the next hop itself is out of reach, there is nobody who could do any better.
            return Err(error);
        }
        course.declined = is_declined(&error);
        let refused = course.refused.get_or_insert_with(Instant::now).elapsed();
        match self.gone(&error) {
            Some(reason) => course.reason = reason,
            // Hops on the way restart, and find each other and the endpoint again.
            None if refused < settling(flowing, &error) => return Err(error),
            None => {}
        }
        self.ask_another(course).await
    }

    /// Any endpoint, the present one last, over the same hops.
    async fn ask_another(&self, course: &Course) -> Result<bool> {
        self.ask(Why::Heal, course, |call| call.body_mut().network_service_endpoint_name.clear()).await
    }

    /// Everything is closed and chosen afresh.
    async fn ask_afresh(&self, course: &mut Course) -> Result<bool> {
        course.torn = true;
        self.ask(Why::Reselect, course, |_| {}).await
    }

    async fn ask(&self, why: Why, course: &Course, change: impl FnOnce(&mut Call) + Send) -> Result<bool> {
        let (reason, until) = (course.reason, Instant::now() + course.patience);
        let changed = move |call: &mut Call| {
            call.set_fact(reason);
            call.set_deadline(Some(call.deadline().map_or(until, |deadline| deadline.min(until))));
            change(call);
        };
        self.handle.request_with(why, changed).await.map(|call| call.is_some())
    }

    /// Whether another hop than this one failed. One that does not say which (the reference's do not) has answered, if
    /// it says more than that there is no answer.
    fn is_further_on(&self, error: &Error) -> bool {
        let connection = Arc::clone(&self.seen().connection);
        let own = connection.current_segment().map(|segment| segment.name.as_str());
        error.hop().is_some_and(|hop| Some(hop) != own)
            || !matches!(error.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
    }

    /// Whether an error says that the endpoint is not there any more, or may not be had: what still answers pings there is
    /// a corpse. Only the hop before the endpoint knows.
    fn gone(&self, error: &Error) -> Option<Reason> {
        let connection = Arc::clone(&self.seen().connection);
        let segments = connection.path.as_ref().map_or(&[][..], |path| &path.path_segments);
        let asks_it = segments.iter().rev().nth(1).map(|segment| segment.name.as_str());
        match error.code() {
            Code::FailedPrecondition => Some(Reason::ServiceChanged),
            Code::Unavailable if error.hop() == asks_it => Some(Reason::EndpointGone),
            _ => None,
        }
    }

    /// Without a liveness function nobody can say so.
    async fn packets_flow(&self) -> Option<bool> {
        let (liveness, within) = self.liveness.as_ref()?;
        let connection = Arc::clone(&self.seen().connection);
        let alive = liveness.alive(&connection, *within).await;
        if alive {
            self.seen().unproven = false;
        }
        Some(alive)
    }

    async fn check(self: Arc<Self>, timers: Timers, interval: Duration) {
        let healing = self.seen().healing;
        if !healing && self.packets_flow().await == Some(false) {
            self.broke(Reason::PacketsStopped);
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
        let former = (!seen.closed).then(|| seen.ticker.replace(timer));
        drop(seen);
        drop(former);
    }
}

/// What the next hop says of a patient. Weak: a subscription inside the patient must not keep it alive.
struct Ear(Weak<Patient>);

impl Sink for Ear {
    fn told(&self, news: News<'_>) {
        let Some(patient) = self.0.upgrade() else {
            return;
        };
        match news {
            News::Changed(connection) => match connection.state() {
                State::Down => patient.broke(Reason::HopLost),
                State::Up => patient.recovered(connection),
                _ => {}
            },
            News::Gone => patient.broke(Reason::ClosedThere),
            News::Lost(error) if is_refusal(error) => {
                let key = &**patient.handle.key();
                tracing::info!(connection = key, %error, "the next hop lets nobody listen: what breaks there is not heard");
            }
            News::Lost(_) => patient.broke(Reason::NextHopLost),
        }
    }
}

/// Whether both go through the same hops behind this one, by the ids that they have there.
fn is_one_way(own: &Connection, told: &Connection) -> bool {
    let from = own.path.as_ref().map_or(0, |path| path.index as usize + 1);
    fn ids(connection: &Connection, from: usize) -> impl Iterator<Item = &str> {
        let segments = connection.path.iter().flat_map(move |path| path.path_segments.iter().skip(from));
        segments.map(|segment| segment.id.as_str())
    }
    ids(own, from).eq(ids(told, from))
}

/// How long the connection stays with its endpoint where hops on the way refuse, though the endpoint may be well. One that
/// nobody finds any more has not registered again after its manager's restart, or never will.
fn settling(flowing: Option<bool>, error: &Error) -> Duration {
    match flowing {
        Some(true) if error.code() == Code::NotFound => GRACE_UNSEEN,
        Some(true) => GRACE,
        _ => RESTART,
    }
}

/// Whether somebody who is there does not give what is asked for.
fn is_declined(error: &Error) -> bool {
    matches!(error.code(), Code::ResourceExhausted | Code::PermissionDenied | Code::FailedPrecondition)
}

/// Whether somebody who is there does not want to be listened to.
pub(crate) fn is_refusal(error: &Error) -> bool {
    matches!(error.code(), Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented)
}

impl Element for Heal {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let Some(handle) = call.handle().cloned() else {
            return next.request(call).await;
        };
        let state = Arc::clone(call.state()?);
        let patient = self.patient(&handle);
        // Whatever is told from now on is news of what this Request makes.
        {
            let mut seen = patient.seen();
            seen.asked = seen.broken.take().or(seen.asked);
        }
        let afresh = (call.why() == Why::Reselect).then(|| call.fact().copied().unwrap_or(Reason::Asked));
        let result = next.request(call).await;
        let before = patient.seen().asked.take();
        let call = match result {
            Ok(call) => call,
            Err(error) => {
                // What was closed to be chosen afresh is broken, even if the next hop said just before that it was up.
                let broken = patient.seen().broken.or(before).or(afresh);
                if let Some(reason) = broken {
                    patient.broke(reason);
                }
                return Err(error);
            }
        };
        let Some(watch) = call.fact::<NextHopWatch>() else {
            return Ok(call);
        };
        self.patient.set(&state, Arc::clone(&patient));
        let former = {
            let mut seen = patient.seen();
            seen.connection = call.share();
            seen.watch.take()
        };
        let subscription = watch.listen(former, || Arc::new(Ear(Arc::downgrade(&patient))));
        patient.seen().watch = Some(subscription);
        if self.liveness.is_some() && patient.seen().ticker.is_none() {
            patient.tick(self.timers.clone(), self.interval);
        }
        Ok(call)
    }

    async fn close(&self, call: Call, next: Next<'_>) -> Result<Call> {
        if let Some(patient) = call.slot(&self.patient) {
            let (watch, ticker) = {
                let mut seen = patient.seen();
                // What is closed to be made afresh is still wanted.
                seen.closed = call.why() != Why::Reselect;
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
