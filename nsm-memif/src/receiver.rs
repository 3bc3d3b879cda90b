use std::sync::Arc;
use std::time::Duration;

use crate::interrupt::Wakes;
use crate::link::Link;
use crate::packet::{MAX_PACKET_LENGTH, Packet, Segment};
use crate::queue::{Buffers, Place};
use crate::shm::{Descriptor, Region, Ring};
use crate::{Error, Result, Violation};

/// How long after interrupts were asked for the ring is looked at once more. A peer that published a packet and then saw the
/// old wish, which no fence of its own forbids, sends no interrupt for it.
const SECOND_LOOK: Duration = Duration::from_millis(1);

/// Receives the packets of one queue.
///
/// It polls: [`recv_burst`](Self::recv_burst) never waits, and the peer sends no interrupts. To wait is
/// [`ready`](Self::ready), which asks for interrupts while it does. A thread that polls calls only the former.
#[derive(Debug)]
pub struct Receiver {
    link: Arc<Link>,
    regions: Arc<[Arc<Region>]>,
    ring: Ring,
    number: u16,
    buffers: Buffers,
    wakes: Wakes,
    /// The next descriptor to read.
    next: u16,
    segments: Vec<Segment>,
    copy: Box<[u8]>,
}

impl Receiver {
    pub(crate) fn new(link: Arc<Link>, regions: Arc<[Arc<Region>]>, place: Place, number: u16, wakes: Wakes) -> Self {
        let Place { ring, buffers } = place;
        ring.want_interrupts(false);
        match buffers {
            // All buffers are empty, and the server may fill them.
            Buffers::Ours { .. } => {
                for index in 0..ring.size() {
                    ring.set_descriptor(index, buffers.empty(&ring, index));
                }
                ring.set_head(ring.size());
            }
            Buffers::Peers => ring.set_tail(0),
        }
        let copy = vec![0; MAX_PACKET_LENGTH].into_boxed_slice();
        Self { link, regions, ring, number, buffers, wakes, next: 0, segments: Vec::new(), copy }
    }

    /// Hands up to `max` packets that are there to `each`, in a copy of its own that nobody else can change; says how many
    /// there were. Does not wait.
    ///
    /// # Errors
    /// [`Error::Closed`] once the interface is closed and all packets were taken; [`Error::Violation`] if the peer broke the
    /// protocol, which closes it.
    pub fn recv_burst(&mut self, max: usize, mut each: impl FnMut(&mut [u8])) -> Result<usize> {
        let mut copy = std::mem::take(&mut self.copy);
        let outcome = self.recv_in_place(max, |packet| {
            let length = packet.read(0, &mut copy);
            each(&mut copy[..length]);
        });
        self.copy = copy;
        outcome
    }

    /// As [`recv_burst`](Self::recv_burst), without the copy: each packet is still where the peer wrote it.
    ///
    /// # Errors
    /// As `recv_burst`.
    pub fn recv_in_place(&mut self, max: usize, mut each: impl FnMut(Packet<'_>)) -> Result<usize> {
        let there = self.there()?;
        let (mut packets, mut taken) = (0, 0);
        while packets < max && taken < there {
            let length = self.gather(&mut taken, there)?;
            each(Packet { regions: &self.regions, segments: &self.segments, length });
            packets += 1;
        }
        if taken > 0 {
            self.give_back(taken);
        }
        Ok(packets)
    }

    /// Waits until packets are there. May be given up at any time.
    ///
    /// # Errors
    /// As [`recv_burst`](Self::recv_burst); [`Error::System`] if the runtime in which the interface was made is gone.
    pub async fn ready(&mut self) -> Result<()> {
        if self.there()? > 0 {
            return Ok(());
        }
        let asking = Asking::new(&self.ring);
        let mut first = true;
        loop {
            tokio::select! {
                woken = self.wakes.next() => woken.map_err(|error| Error::system("wait for a memif interrupt", error))?,
                _closed = self.link.until_closed() => {}
                () = tokio::time::sleep(SECOND_LOOK), if first => first = false,
            }
            if self.there()? > 0 {
                drop(asking);
                return Ok(());
            }
        }
    }

    /// Returns once the interface is closed: why.
    pub async fn closed(&self) -> crate::Closed {
        self.link.until_closed().await
    }

    /// How many descriptors there are to read.
    fn there(&self) -> Result<u16> {
        let possible = self.ring.size();
        let there = match self.buffers {
            Buffers::Ours { .. } => self.ring.tail(),
            Buffers::Peers => self.ring.head(),
        }
        .wrapping_sub(self.next);
        match self.link.closed() {
            Some(closed) if there == 0 || there > possible => Err(Error::Closed(closed.clone())),
            None if there > possible => {
                let violation = Violation::RingIndex { ring: self.number, distance: there, possible };
                Err(self.link.violated(violation))
            }
            _ => Ok(there),
        }
    }

    /// The pieces of the packet that begins `taken` descriptors on; its length.
    fn gather(&mut self, taken: &mut u16, there: u16) -> Result<usize> {
        self.segments.clear();
        let mut length = 0;
        while *taken < there {
            let index = self.next.wrapping_add(*taken);
            let descriptor = self.ring.descriptor(index);
            let segment = self.segment(index, descriptor)?;
            *taken += 1;
            length += segment.length as usize;
            if length > MAX_PACKET_LENGTH {
                break;
            }
            self.segments.push(segment);
            if !descriptor.next {
                return Ok(length);
            }
        }
        Err(self.link.violated(Violation::Chain { ring: self.number }))
    }

    fn segment(&self, index: u16, descriptor: Descriptor) -> Result<Segment> {
        let Descriptor { length, .. } = descriptor;
        // Where our own buffers are is for us to say.
        let place = match self.buffers {
            Buffers::Ours { size, .. } if length <= size => Some(self.buffers.empty(&self.ring, index)),
            Buffers::Ours { .. } => None,
            Buffers::Peers => Some(descriptor).filter(|at| {
                let region = self.regions.get(usize::from(at.region));
                region.is_some_and(|region| region.contains(at.offset, length))
            }),
        };
        place.map(|at| Segment { region: at.region, offset: at.offset, length }).ok_or_else(|| {
            let Descriptor { region, offset, .. } = descriptor;
            self.link.violated(Violation::Buffer { ring: self.number, region, offset, length })
        })
    }

    fn give_back(&mut self, taken: u16) {
        if let Buffers::Ours { .. } = self.buffers {
            for at in 0..taken {
                let index = self.next.wrapping_add(at);
                self.ring.set_descriptor(index, self.buffers.empty(&self.ring, index));
            }
        }
        self.next = self.next.wrapping_add(taken);
        match self.buffers {
            Buffers::Ours { .. } => self.ring.set_head(self.next.wrapping_add(self.ring.size())),
            Buffers::Peers => self.ring.set_tail(self.next),
        }
    }
}

/// While it lives the peer is asked for interrupts.
struct Asking<'a>(&'a Ring);

impl<'a> Asking<'a> {
    fn new(ring: &'a Ring) -> Self {
        ring.want_interrupts(true);
        Self(ring)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.want_interrupts(false);
    }
}
