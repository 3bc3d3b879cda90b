use std::sync::atomic::{AtomicU64, Ordering};

/// What became of the packets of a wire that this process copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Copied {
    /// Packets given to the shared memory.
    pub to_memif: u64,
    /// Packets taken from the shared memory and sent on.
    pub from_memif: u64,
    /// Dropped: the peer's ring was full, or there was no peer.
    pub full: u64,
    /// Dropped: longer than the wire's MTU.
    pub too_long: u64,
    /// Dropped: the interface did not take it, because it is down or gone.
    pub interface: u64,
    /// Dropped: nobody has said yet who is at the other end.
    pub unresolved: u64,
    /// Dropped: no IP packet, or a frame that is for somebody else.
    pub foreign: u64,
}

/// The same, while it is counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(super) to_memif: Count,
    pub(super) from_memif: Count,
    pub(super) full: Count,
    pub(super) too_long: Count,
    pub(super) interface: Count,
    pub(super) unresolved: Count,
    pub(super) foreign: Count,
}

#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, packets: usize) {
        self.0.fetch_add(packets as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counts {
    pub(crate) fn so_far(&self) -> Copied {
        Copied {
            to_memif: self.to_memif.get(),
            from_memif: self.from_memif.get(),
            full: self.full.get(),
            too_long: self.too_long.get(),
            interface: self.interface.get(),
            unresolved: self.unresolved.get(),
            foreign: self.foreign.get(),
        }
    }
}
