//! What both ends of a ring have in common: whose its buffers are.

use crate::shm::{Descriptor, Ring};

/// Whose the buffers of a ring are, and so who may say where they are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Buffers {
    /// Ours, as the client: one for each descriptor, all in region 0. What the ring says of their place is ignored, since the
    /// peer can write there too.
    Ours {
        /// Where the first one is.
        first: u32,
        /// Octets of each.
        size: u32,
        /// Octets from one to the next.
        stride: u32,
    },
    /// The client's: their descriptors say where they are.
    Peers,
}

impl Buffers {
    /// The descriptor of our empty buffer of that index.
    pub(crate) fn empty(&self, ring: &Ring, index: u16) -> Descriptor {
        let (first, size, stride) = match *self {
            Self::Ours { first, size, stride } => (first, size, stride),
            Self::Peers => (0, 0, 0),
        };
        let slot = u32::from(index & (ring.size() - 1));
        Descriptor { next: false, region: 0, length: size, offset: first + slot * stride }
    }
}

/// A ring and its buffers.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) ring: Ring,
    pub(crate) buffers: Buffers,
}
