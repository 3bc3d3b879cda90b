use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The port blocks of one public address.
#[derive(Debug)]
pub struct Blocks {
    size: u16,
    free: Mutex<BTreeSet<u16>>,
}

/// A block in use; dropping it gives it back.
#[derive(Debug)]
pub struct Block {
    first: u16,
    of: Arc<Blocks>,
}

impl Blocks {
    /// The ports above the well-known ones (RFC 6335) in blocks of this size, at least 1.
    #[must_use]
    pub fn of_size(size: u16) -> Arc<Self> {
        let size = size.max(1);
        let last = u16::MAX - (size - 1);
        let free = (1024..=last).step_by(size.into()).collect();
        Arc::new(Self { size, free: Mutex::new(free) })
    }

    /// The lowest free block; none if all are in use.
    pub fn take(blocks: &Arc<Self>) -> Option<Arc<Block>> {
        let first = blocks.lock().pop_first()?;
        Some(Arc::new(Block { first, of: Arc::clone(blocks) }))
    }

    /// How many are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<u16>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.first + (self.of.size - 1))
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.of.lock().insert(self.first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_lie_side_by_side_and_come_back() {
        let blocks = Blocks::of_size(32_256);
        assert_eq!(blocks.free(), 2);
        let (one, two) = (Blocks::take(&blocks).unwrap(), Blocks::take(&blocks).unwrap());
        assert_eq!((one.to_string().as_str(), two.to_string().as_str()), ("1024-33279", "33280-65535"));
        assert!(Blocks::take(&blocks).is_none());
        drop(one);
        assert_eq!(blocks.free(), 1);
    }

    #[test]
    fn no_size_is_out_of_range() {
        for size in [0, 1, 64_512, 64_513, u16::MAX] {
            let blocks = Blocks::of_size(size);
            while let Some(block) = Blocks::take(&blocks) {
                assert!(block.first >= 1024);
                std::mem::forget(block);
            }
        }
    }
}
