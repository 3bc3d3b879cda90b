use crate::shm::Region;

/// The longest packet, in octets.
pub const MAX_PACKET_LENGTH: usize = 65535;

/// A piece of a packet, checked to be in its region.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) region: u16,
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

/// A packet where the peer wrote it, in one buffer or several.
///
/// The peer can still change it: what was read once may read otherwise later. So what must not change between being
/// checked and being used is copied out first.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    pub(crate) regions: &'a [std::sync::Arc<Region>],
    pub(crate) segments: &'a [Segment],
    pub(crate) length: usize,
}

impl Packet<'_> {
    /// Its length in octets.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has no octets at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Copies what begins at `offset`, as much as there is and `into` holds; says how much that was.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> usize {
        let (mut skip, mut read) = (offset, 0);
        for segment in self.segments {
            let length = segment.length as usize;
            if skip >= length {
                skip -= length;
                continue;
            }
            let part = (length - skip).min(into.len() - read);
            // Cannot be too much: a segment's end is an offset, which has 32 bits.
            let from = segment.offset.saturating_add(u32::try_from(skip).unwrap_or(u32::MAX));
            self.region(segment).read(from, &mut into[read..read + part]);
            (skip, read) = (0, read + part);
            if read == into.len() {
                break;
            }
        }
        read
    }

    pub(crate) fn region(&self, segment: &Segment) -> &Region {
        &self.regions[usize::from(segment.region)]
    }
}
