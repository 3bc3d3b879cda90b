//! From a workload into the network between the nodes.

use std::io;
use std::sync::Arc;

use boringtun::noise::TunnResult;
use tun_rs::AsyncDevice;

use crate::Reason;
use crate::device::{Segments, is_gone};
use crate::node::Shared;
use crate::peer::{Inside, Peer};
use crate::socket::LARGEST;

/// What sealing adds at most: the header and tag of a data message (WireGuard paper, section 5.4.6), or a whole handshake
/// initiation, where there is no session yet.
const LARGEST_ADDED: usize = 148;
/// Reads of one interface before others have their turn.
const TURN: usize = 32;

/// Seals what the interface gives, until it is gone.
pub(crate) async fn run(peer: Arc<Peer>, shared: Arc<Shared>) {
    let Inside::Device(device) = &peer.inside else { return };
    loop {
        if let Err(error) = device.readable().await {
            tracing::debug!(%error, "an interface can no longer be read");
            return;
        }
        // Only for as long as there is something to do: many tunnels are silent most of the time.
        let mut work = shared.spare.take();
        let turn = turn(device, &peer, &shared, &mut work).await;
        shared.spare.put_back(work);
        if turn.is_break() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// What one turn needs.
pub(crate) struct Work {
    segments: Segments,
    batch: Batch,
}

impl Work {
    pub(crate) fn new() -> Self {
        Self { segments: Segments::new(), batch: Batch::default() }
    }
}

async fn turn(
    device: &AsyncDevice,
    peer: &Peer,
    shared: &Shared,
    Work { segments, batch }: &mut Work,
) -> std::ops::ControlFlow<()> {
    for _ in 0..TURN {
        match segments.read(device) {
            Ok(()) => seal(peer, shared, batch, segments.padded(peer.mtu())).await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if is_gone(&error) => return std::ops::ControlFlow::Break(()),
            Err(error) => {
                tracing::debug!(%error, "not sent");
                peer.dropped(Reason::Segmentation, 1);
                if error.raw_os_error().is_some() {
                    break;
                }
            }
        }
    }
    batch.flush(peer, shared).await;
    std::ops::ControlFlow::Continue(())
}

/// Seals packets, each with its padding and with the length that it has without. What is sealed waits in the batch for others.
pub(crate) async fn seal(
    peer: &Peer,
    shared: &Shared,
    batch: &mut Batch,
    padded: impl Iterator<Item = (&[u8], usize)>,
) {
    let (mut packets, mut octets) = (0, 0);
    for (packet, length) in padded {
        if !batch.has_room(packet.len() + LARGEST_ADDED) {
            batch.flush(peer, shared).await;
        }
        // Without a session it is kept back, and a handshake begun.
        let room = batch.room(packet.len() + LARGEST_ADDED);
        let sealed = match peer.noise().encapsulate(packet, room) {
            TunnResult::WriteToNetwork(sealed) => sealed.len(),
            _ => 0,
        };
        if !batch.fits(sealed, shared.socket.segments()) {
            batch.flush_but_last(peer, shared, sealed).await;
        } else {
            batch.add(sealed);
        }
        packets += 1;
        octets += length;
    }
    peer.sent.count(packets, octets);
}

/// Datagrams of one length on their way to one node; the last may be shorter.
#[derive(Default)]
pub(crate) struct Batch {
    octets: Vec<u8>,
    filled: usize,
    segment: usize,
    count: usize,
    /// Nothing may follow a shorter one.
    complete: bool,
}

impl Batch {
    fn has_room(&self, length: usize) -> bool {
        self.filled + length <= LARGEST
    }

    /// Room for one datagram behind those that are there.
    fn room(&mut self, length: usize) -> &mut [u8] {
        let end = self.filled + length;
        if self.octets.len() < end {
            self.octets.resize(end, 0);
        }
        &mut self.octets[self.filled..end]
    }

    /// Whether a datagram of this length can go along with those that are there.
    fn fits(&self, length: usize, most: usize) -> bool {
        length == 0 || self.count == 0 || (!self.complete && length <= self.segment && self.count < most)
    }

    /// The datagram in the room is one of them.
    fn add(&mut self, length: usize) {
        if length == 0 {
            return;
        }
        if self.count == 0 {
            self.segment = length;
        }
        self.complete = length < self.segment;
        self.count += 1;
        self.filled += length;
    }

    /// Sends those that are there; the one in the room, which does not go with them, is the first of the next ones.
    async fn flush_but_last(&mut self, peer: &Peer, shared: &Shared, last: usize) {
        let begin = self.filled;
        self.flush(peer, shared).await;
        self.octets.copy_within(begin..begin + last, 0);
        self.add(last);
    }

    pub(crate) async fn flush(&mut self, peer: &Peer, shared: &Shared) {
        if self.count > 0 {
            let contents = &self.octets[..self.filled];
            if let Err(error) = shared.socket.send(peer.endpoint, contents, self.segment).await {
                tracing::debug!(to = %peer.endpoint, %error, "not sent");
                peer.dropped(Reason::Network, self.count);
            }
        }
        (self.filled, self.segment, self.count, self.complete) = (0, 0, 0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths of datagrams, as they would be sent together.
    fn together(lengths: &[usize], most: usize) -> Vec<Vec<usize>> {
        let mut sent = vec![Vec::new()];
        let mut batch = Batch::default();
        for length in lengths {
            batch.room(*length);
            if !batch.fits(*length, most) {
                batch = Batch::default();
                sent.push(Vec::new());
            }
            batch.add(*length);
            if *length > 0 {
                sent.last_mut().unwrap().push(*length);
            }
        }
        sent
    }

    #[test]
    fn datagrams_of_one_length_go_together_and_a_shorter_one_is_the_last() {
        assert_eq!(together(&[5, 5, 3, 3, 5], 64), [vec![5, 5, 3], vec![3], vec![5]]);
        assert_eq!(together(&[5, 0, 5], 64), [vec![5, 5]]);
        assert_eq!(together(&[5, 5, 5], 2), [vec![5, 5], vec![5]]);
    }
}
