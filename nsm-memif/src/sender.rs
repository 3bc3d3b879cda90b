use std::sync::Arc;

use crate::interrupt::Interrupt;
use crate::link::Link;
use crate::packet::{MAX_PACKET_LENGTH, Packet};
use crate::queue::{Buffers, Place};
use crate::shm::{Descriptor, Region, Ring};
use crate::{Error, Result, Violation};

/// Sends packets by one queue.
///
/// [`push`](Self::push) writes packets into free buffers of the ring, [`flush`](Self::flush) lets the peer see them. A full
/// ring is no error: the peer is slow, and nobody can wait for it (memif has no interrupt for that). What does not fit is
/// dropped, or tried again later, as with any network interface.
#[derive(Debug)]
pub struct Sender {
    link: Arc<Link>,
    regions: Arc<[Arc<Region>]>,
    ring: Ring,
    number: u16,
    buffers: Buffers,
    interrupt: Interrupt,
    /// The next descriptor to fill.
    next: u16,
    /// How far the peer can see.
    published: u16,
    /// Descriptors known to be free, from `next` on.
    free: u16,
    parts: Vec<(u16, Descriptor)>,
}

impl Sender {
    pub(crate) fn new(
        link: Arc<Link>,
        regions: Arc<[Arc<Region>]>,
        place: Place,
        number: u16,
        interrupt: Interrupt,
    ) -> Self {
        let Place { ring, buffers } = place;
        if let Buffers::Peers = buffers {
            ring.set_tail(0);
        }
        Self { link, regions, ring, number, buffers, interrupt, next: 0, published: 0, free: 0, parts: Vec::new() }
    }

    /// Writes a packet; the peer sees it with the next [`flush`](Self::flush). Says whether there was room for it.
    ///
    /// # Errors
    /// [`Error::PacketLength`] if this interface can never carry it; [`Error::Closed`] once the interface is closed;
    /// [`Error::Violation`] if the peer broke the protocol, which closes it.
    pub fn push(&mut self, packet: &[u8]) -> Result<bool> {
        self.write(packet.len(), |regions, to, at, length| {
            regions[usize::from(to.region)].write(to.offset, &packet[at..at + length]);
        })
    }

    /// As [`push`](Self::push), a packet that another interface has received, or this one: copied once, from the one shared
    /// memory into the other.
    ///
    /// # Errors
    /// As `push`.
    pub fn push_packet(&mut self, packet: Packet<'_>) -> Result<bool> {
        let (mut from, mut skip) = (packet.segments.iter(), 0);
        let mut segment = from.next();
        self.write(packet.len(), |regions, to, _at, length| {
            let (region, mut done) = (&regions[usize::from(to.region)], 0);
            while let Some(piece) = segment.filter(|_| done < length) {
                let part = (piece.length - skip).min((length - done) as u32);
                packet.region(piece).copy_to(piece.offset + skip, region, to.offset + done as u32, part as usize);
                (skip, done) = (skip + part, done + part as usize);
                if skip == piece.length {
                    (segment, skip) = (from.next(), 0);
                }
            }
        })
    }

    /// Lets the peer see what was pushed, and wakes it if it waits.
    ///
    /// # Errors
    /// [`Error::Closed`] once the interface is closed.
    pub fn flush(&mut self) -> Result<()> {
        if let Some(closed) = self.link.closed() {
            return Err(Error::Closed(closed.clone()));
        }
        if self.next != self.published {
            match self.buffers {
                Buffers::Ours { .. } => self.ring.set_head(self.next),
                Buffers::Peers => self.ring.set_tail(self.next),
            }
            self.published = self.next;
            if self.ring.wants_interrupt() {
                self.interrupt.raise();
            }
        }
        Ok(())
    }

    /// Sends packets until one does not fit; says how many did.
    ///
    /// # Errors
    /// As [`push`](Self::push). What was pushed before is sent all the same.
    pub fn send_burst<P: AsRef<[u8]>>(&mut self, packets: impl IntoIterator<Item = P>) -> Result<usize> {
        let mut sent = 0;
        for packet in packets {
            match self.push(packet.as_ref()) {
                Ok(true) => sent += 1,
                Ok(false) => break,
                Err(error) => {
                    // If that fails, it is for the same reason.
                    let _sent_before = self.flush();
                    return Err(error);
                }
            }
        }
        self.flush()?;
        Ok(sent)
    }

    /// Returns once the interface is closed: why.
    pub async fn closed(&self) -> crate::Closed {
        self.link.until_closed().await
    }

    /// Finds free buffers for so many octets, has them filled (`fill` gets each buffer, where in the packet its part begins,
    /// and how long that is), and describes them.
    fn write(&mut self, length: usize, mut fill: impl FnMut(&[Arc<Region>], Descriptor, usize, usize)) -> Result<bool> {
        if let Some(closed) = self.link.closed() {
            return Err(Error::Closed(closed.clone()));
        }
        if length == 0 || length > MAX_PACKET_LENGTH {
            return Err(Error::PacketLength { length, max: MAX_PACKET_LENGTH });
        }
        if !self.reserve(length)? {
            return Ok(false);
        }
        let (mut at, last) = (0, self.parts.len() - 1);
        for (part, (index, mut descriptor)) in self.parts.drain(..).enumerate() {
            let written = (descriptor.length as usize).min(length - at);
            fill(&self.regions, descriptor, at, written);
            at += written;
            descriptor.length = written as u32;
            descriptor.next = part != last;
            self.ring.set_descriptor(index, descriptor);
            self.next = index.wrapping_add(1);
            self.free -= 1;
        }
        Ok(true)
    }

    /// Fills `parts` with free buffers for so many octets. Nothing is written before it is certain that there are enough:
    /// an empty buffer's size is in the descriptor that will say how much of it is used.
    fn reserve(&mut self, length: usize) -> Result<bool> {
        self.parts.clear();
        let mut room = 0;
        while room < length {
            let used = self.parts.len() as u16;
            if used >= self.free {
                let before = self.free;
                self.free = self.count_free()?;
                if self.free == before {
                    return self.full(room, length);
                }
                continue;
            }
            let index = self.next.wrapping_add(used);
            let buffer = self.buffer(index)?;
            room += buffer.length as usize;
            self.parts.push((index, buffer));
        }
        Ok(true)
    }

    /// There is no room; an error if there never will be.
    fn full(&mut self, room: usize, length: usize) -> Result<bool> {
        self.parts.clear();
        if self.free == self.ring.size() {
            return Err(Error::PacketLength { length, max: room });
        }
        Ok(false)
    }

    fn buffer(&self, index: u16) -> Result<Descriptor> {
        if let Buffers::Ours { .. } = self.buffers {
            return Ok(self.buffers.empty(&self.ring, index));
        }
        let buffer = self.ring.descriptor(index);
        let region = self.regions.get(usize::from(buffer.region));
        if buffer.length == 0 || !region.is_some_and(|region| region.contains(buffer.offset, buffer.length)) {
            let Descriptor { region, offset, length, .. } = buffer;
            return Err(self.link.violated(Violation::Buffer { ring: self.number, region, offset, length }));
        }
        Ok(buffer)
    }

    /// Asks the ring how many descriptors are free.
    fn count_free(&self) -> Result<u16> {
        let possible = self.ring.size();
        let distance = match self.buffers {
            // What the server has not taken yet is not free.
            Buffers::Ours { .. } => self.next.wrapping_sub(self.ring.tail()),
            // What the client has given and was not filled yet is.
            Buffers::Peers => self.ring.head().wrapping_sub(self.next),
        };
        if distance > possible {
            return Err(self.link.violated(Violation::RingIndex { ring: self.number, distance, possible }));
        }
        Ok(match self.buffers {
            Buffers::Ours { .. } => possible - distance,
            Buffers::Peers => distance,
        })
    }
}
