use std::fmt;
use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nsm_chain::{Error, Result};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Life;

/// How long a side waits for a peer that is silent before it takes the link for broken.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How long a new link is tried where nothing comes back.
const DIAL: Duration = Duration::from_millis(750);

/// How long after a way is mended what was lost on it is sent again, as TCP does.
const RETRANSMIT: Duration = Duration::from_millis(200);

/// How many lines of a trace are kept: the last ones.
const LINES: usize = 20_000;

/// What lies between the hops of [`InProcess`](super::InProcess): by default nothing.
///
/// Ends are named by program or by node; `*` is everybody. A way that is cut holds what is sent until it is whole again,
/// as TCP does, and after ten seconds breaks. The same seed gives the same delays and losses, and the same trace.
///
/// ```
/// use nsm_sdk::connect::Network;
///
/// let network = Network::default();
/// network.cut("node-1", "node-2"); // between two nodes, both ways
/// network.cut_one_way("nsc-1", "*"); // what this client says is not heard
/// network.slow("forwarder-node-1", "nse-1", std::time::Duration::ZERO..std::time::Duration::from_millis(20));
/// network.mend();
/// ```
#[derive(Clone, Default)]
pub struct Network(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Nothing was ever done to it, or all is mended.
    disturbed: AtomicBool,
    conditions: Mutex<Conditions>,
    changed: Notify,
    trace: Mutex<Trace>,
}

struct Conditions {
    random: u64,
    ways: Vec<Way>,
    /// Links that were cut off without a word to either end.
    silenced: Vec<Silenced>,
    opened: u64,
}

/// How it is from one end to another.
struct Way {
    from: Arc<str>,
    to: Arc<str>,
    since: Instant,
    how: How,
}

#[derive(Clone, PartialEq)]
enum How {
    Cut,
    Slow(Range<Duration>),
    Lossy(f64),
}

struct Silenced {
    from: Arc<str>,
    to: Arc<str>,
    since: Instant,
    /// Links opened later are not concerned.
    opened: u64,
}

/// Everything that crossed.
struct Trace {
    begun: Option<Instant>,
    hash: DefaultHasher,
    lines: Option<std::collections::VecDeque<String>>,
}

impl Default for Trace {
    fn default() -> Self {
        Self { begun: None, hash: DefaultHasher::new(), lines: None }
    }
}

impl Default for Conditions {
    fn default() -> Self {
        Self { random: RandomState::new().hash_one("network") | 1, ways: Vec::new(), silenced: Vec::new(), opened: 0 }
    }
}

impl Network {
    /// Nothing gets through between these two, in either direction, until it is mended.
    pub fn cut(&self, one: &str, other: &str) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Nothing gets through in this direction.
    pub fn cut_one_way(&self, from: &str, to: &str) {
        self.set(from, to, How::Cut);
    }

    /// What is sent in this direction takes as long as that, anew each time.
    pub fn slow(&self, from: &str, to: &str, delay: Range<Duration>) {
        self.set(from, to, How::Slow(delay));
    }

    /// This share of what is sent in this direction is lost: a call then fails, a stream breaks, after
    /// a while. Mended before that, it is sent again.
    pub fn lossy(&self, from: &str, to: &str, share: f64) {
        self.set(from, to, How::Lossy(share));
    }

    /// Links that are open between these two fall silent in this direction, and neither end is told; new ones work. As
    /// after a middle box forgot them.
    pub fn silence(&self, from: &str, to: &str) {
        let mut conditions = self.conditions();
        let opened = conditions.opened;
        conditions.silenced.push(Silenced { from: from.into(), to: to.into(), since: Instant::now(), opened });
        drop(conditions);
        self.disturb(true);
    }

    /// Holds everything to and from this program or node, as if it were stopped.
    pub fn freeze(&self, name: &str) {
        self.cut(name, "*");
    }

    /// Lets it go on.
    pub fn thaw(&self, name: &str) {
        self.mend_between(name, "*");
    }

    /// Between these two all is well again.
    pub fn mend_between(&self, one: &str, other: &str) {
        let mut conditions = self.conditions();
        conditions.ways.retain(|way| (&*way.from, &*way.to) != (one, other) && (&*way.from, &*way.to) != (other, one));
        let disturbed = !conditions.ways.is_empty() || !conditions.silenced.is_empty();
        drop(conditions);
        self.disturb(disturbed);
    }

    /// All is well again. Links that had fallen silent are found to be broken.
    pub fn mend(&self) {
        let mut conditions = self.conditions();
        conditions.ways.clear();
        for silenced in &mut conditions.silenced {
            silenced.since = Instant::now().checked_sub(KEEP_ALIVE).unwrap_or_else(Instant::now);
        }
        let disturbed = !conditions.silenced.is_empty();
        drop(conditions);
        self.disturb(disturbed);
    }

    /// A number that stands for all that has crossed so far, and when. Two runs that give the same are the same.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.traced().hash.finish()
    }

    /// From now on also keeps what crosses as text, the last lines of it.
    pub fn record(&self) {
        self.traced().lines.get_or_insert_default();
    }

    /// What was recorded.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.traced().lines.iter().flatten().cloned().collect()
    }

    /// Adds an event of the outside to the trace: a fault, say.
    pub fn note(&self, what: fmt::Arguments<'_>) {
        let mut trace = self.traced();
        let at = Instant::now();
        let begun = *trace.begun.get_or_insert(at);
        let after = at.duration_since(begun);
        trace.hash.write_u128(after.as_nanos());
        let Trace { hash, lines, .. } = &mut *trace;
        let _ = fmt::write(&mut Hashed(hash), what);
        if let Some(lines) = lines {
            if lines.len() >= LINES {
                lines.pop_front();
            }
            lines.push_back(format!("{:>12.6} {what}", after.as_secs_f64()));
        }
    }

    fn set(&self, from: &str, to: &str, how: How) {
        let mut conditions = self.conditions();
        let same_kind = |other: &How| std::mem::discriminant(other) == std::mem::discriminant(&how);
        // What was so before is so since then.
        let known = conditions.ways.iter_mut().find(|way| (&*way.from, &*way.to) == (from, to) && same_kind(&way.how));
        match known {
            Some(way) => way.how = how,
            None => conditions.ways.push(Way { from: from.into(), to: to.into(), since: Instant::now(), how }),
        }
        drop(conditions);
        self.disturb(true);
    }

    fn disturb(&self, disturbed: bool) {
        self.0.disturbed.store(disturbed, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }

    pub(super) fn is_calm(&self) -> bool {
        !self.0.disturbed.load(Ordering::SeqCst)
    }

    fn conditions(&self) -> MutexGuard<'_, Conditions> {
        self.0.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn traced(&self) -> MutexGuard<'_, Trace> {
        self.0.trace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a link that is opened now.
    pub(super) fn open(&self) -> u64 {
        let mut conditions = self.conditions();
        conditions.opened += 1;
        conditions.opened
    }

    /// Returns when a message has got from one end to the other.
    ///
    /// # Errors
    /// When it never will, and whoever waits for it has noticed.
    pub(super) async fn carry(&self, from: &Life, to: &Life) -> Result<()> {
        loop {
            if self.is_calm() {
                return Ok(());
            }
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.fate(from, to) {
                Fate::Arrives(delay) if delay.is_zero() => return Ok(()),
                Fate::Arrives(delay) => {
                    // Mended, nothing holds it up any more.
                    self.mended_within(from, to, delay).await;
                    return Ok(());
                }
                Fate::Lost => {
                    if !self.mended_within(from, to, KEEP_ALIVE).await {
                        return Err(silent(to));
                    }
                    tokio::time::sleep(RETRANSMIT).await;
                }
                Fate::Held(since) => {
                    let end = (since + KEEP_ALIVE).max(Instant::now() + DIAL);
                    tokio::select! {
                        biased;
                        () = changed => {}
                        () = tokio::time::sleep_until(end) => return Err(silent(to)),
                    }
                }
            }
        }
    }

    /// Whether within that time nothing is wrong any more from one end to the other; returns as soon as that is known.
    async fn mended_within(&self, from: &Life, to: &Life, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let well = self.conditions().between(from, to).next().is_none();
            if well {
                return true;
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = tokio::time::sleep_until(end) => return false,
            }
        }
    }

    /// Returns when whoever listens at `to` has noticed that nothing comes from `from` any more over that link.
    pub(super) async fn broken(&self, from: &Life, to: &Life, link: u64) -> Error {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let Some(since) = self.silent_since(from, to, link) else {
                changed.await;
                continue;
            };
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(since + KEEP_ALIVE) => return silent(from),
                () = changed => {}
            }
        }
    }

    /// Whether that link was cut off without a word.
    pub(super) fn is_silenced(&self, from: &Life, to: &Life, link: u64) -> bool {
        !self.is_calm() && self.conditions().silenced(from, to, link).is_some()
    }

    fn silent_since(&self, from: &Life, to: &Life, link: u64) -> Option<Instant> {
        let conditions = self.conditions();
        let cut = conditions.between(from, to).filter(|way| way.how == How::Cut).map(|way| way.since).min();
        [cut, conditions.silenced(from, to, link)].into_iter().flatten().min()
    }

    fn fate(&self, from: &Life, to: &Life) -> Fate {
        let mut conditions = self.conditions();
        let mut delay = Duration::ZERO;
        let mut random = conditions.random;
        let mut share = || {
            // xorshift64
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut fate = None;
        for way in conditions.between(from, to) {
            match &way.how {
                How::Cut => fate = Some(Fate::Held(way.since)),
                How::Slow(range) => delay += range.start + range.end.saturating_sub(range.start).mul_f64(share()),
                How::Lossy(lost) if share() < *lost => fate = fate.or(Some(Fate::Lost)),
                How::Lossy(_) => {}
            }
        }
        conditions.random = random;
        fate.unwrap_or(Fate::Arrives(delay))
    }
}

/// What becomes of a message.
enum Fate {
    Arrives(Duration),
    Lost,
    Held(Instant),
}

impl Conditions {
    fn between<'a>(&'a self, from: &Life, to: &Life) -> impl Iterator<Item = &'a Way> {
        self.ways.iter().filter(move |way| from.is_called(&way.from) && to.is_called(&way.to))
    }

    fn silenced(&self, from: &Life, to: &Life, link: u64) -> Option<Instant> {
        let of_it = |one: &&Silenced| link <= one.opened && from.is_called(&one.from) && to.is_called(&one.to);
        self.silenced.iter().filter(of_it).map(|one| one.since).min()
    }
}

fn silent(peer: &Life) -> Error {
    Error::unavailable(format!("nothing comes back from {}", peer.name()))
}

/// Text into a hash.
struct Hashed<'a>(&'a mut DefaultHasher);

impl fmt::Write for Hashed<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conditions = self.conditions();
        write!(f, "Network({} ways disturbed, {} silenced)", conditions.ways.len(), conditions.silenced.len())
    }
}
