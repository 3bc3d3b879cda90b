use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Pauses between tries: the first at once, then doubling from `first` to `most`, each shortened at random by up to a
/// half so that many clients of one dead peer do not return at one moment.
///
/// None is longer than a thirtieth of what has been waited so far, or a quarter of a second: who comes back after some
/// seconds is found at once, who is away for minutes is asked for ever more rarely.
///
/// ```
/// # use nsm_sdk::lifetime::Backoff;
/// # use std::time::Duration;
/// let mut pauses = Backoff::new(Duration::from_millis(100), Duration::from_secs(1), 7);
/// assert_eq!(pauses.pause(), Duration::ZERO);
/// let second = pauses.pause();
/// assert!(second >= Duration::from_millis(50) && second <= Duration::from_millis(100));
/// ```
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    tries: u32,
    waited: Duration,
    random: u64,
}

/// What no pause need be shorter than.
const EAGER: Duration = Duration::from_millis(250);

/// Of the time waited so far a pause is at most this part.
const PART: u32 = 30;

impl Backoff {
    /// Pauses that start from this seed; the same seed gives the same pauses.
    #[must_use]
    pub fn new(first: Duration, most: Duration, seed: u64) -> Self {
        Self { first, most, tries: 0, waited: Duration::ZERO, random: seed | 1 }
    }

    /// Pauses of a connection or record with that name, different each time and in each process.
    #[must_use]
    pub fn of(first: Duration, most: Duration, name: &str) -> Self {
        Self::new(first, most, RandomState::new().hash_one(name))
    }

    /// Pauses of that name that never get so long that the end of an outage goes unnoticed for a second.
    #[must_use]
    pub fn within_a_second(first: Duration, name: &str) -> Self {
        Self::of(first, Duration::from_millis(800), name)
    }

    /// Waits as long as one should before the next try. Before the first that is not at all: a timer, even one of no
    /// time, waits for the clock's next millisecond.
    pub async fn wait(&mut self) {
        let pause = self.pause();
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }

    /// How long to wait before the next try.
    pub fn pause(&mut self) -> Duration {
        let tries = self.tries;
        self.tries = tries.saturating_add(1);
        let Some(doublings) = tries.checked_sub(1) else {
            return Duration::ZERO;
        };
        let doubled = self.first.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
        let whole = doubled.min(self.most).min((self.waited / PART).max(EAGER.max(self.first)));
        let pause = whole - whole.mul_f64(self.random() / 2.0);
        self.waited = self.waited.saturating_add(pause);
        pause
    }

    /// A time shortened at random by up to a tenth: what began at one moment does not go on in step.
    pub(crate) fn spread(&mut self, whole: Duration) -> Duration {
        whole - whole.mul_f64(self.random() / 10.0)
    }

    /// From 0 up to 1: xorshift64, plenty for spreading pauses, and repeatable.
    fn random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_most_and_never_overflow() {
        let mut pauses = Backoff::new(Duration::from_millis(10), Duration::from_secs(1), 1);
        let all: Vec<_> = (0..200).map(|_| pauses.pause()).collect();
        assert_eq!(all[0], Duration::ZERO);
        assert!(all[1] <= Duration::from_millis(10));
        assert!(all[199] >= Duration::from_millis(500) && all[199] <= Duration::from_secs(1));
    }

    #[test]
    fn who_comes_back_soon_is_found_soon() {
        let mut pauses = Backoff::new(Duration::from_millis(50), Duration::from_secs(5), 1);
        let mut waited = Duration::ZERO;
        while waited < Duration::from_secs(600) {
            let pause = pauses.pause();
            assert!(pause <= Duration::from_millis(250).max(waited / 30), "{pause:?} after {waited:?}");
            waited += pause;
        }
        assert!(pauses.pause() >= Duration::from_millis(2500));
    }
}
