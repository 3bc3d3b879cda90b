use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Random numbers for names and tunnel identifiers: spread well, but no secrets.
///
/// Seeded by the system, or by a fixed number where a simulation must replay exactly.
#[derive(Debug)]
pub struct Random(AtomicU64);

impl Random {
    /// The same seed gives the same numbers (SplitMix64).
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(&self, limit: u32) -> u32 {
        // The high half of a product: no division, and a bias far below what names and VNIs could show.
        ((u64::from(limit) * (self.next() >> 32)) >> 32) as u32
    }
}

impl Default for Random {
    fn default() -> Self {
        // The standard library's hash keys are the system's randomness.
        Self::seeded(RandomState::new().hash_one(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays_and_the_system_does_not() {
        let draw = |random: Random| [random.next(), random.next()];
        assert_eq!(draw(Random::seeded(7)), draw(Random::seeded(7)));
        assert_ne!(draw(Random::default()), draw(Random::default()));
    }

    #[test]
    fn every_number_below_a_limit_comes_up() {
        let random = Random::seeded(1);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[random.below(5) as usize] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(random.below(0), 0);
    }
}
