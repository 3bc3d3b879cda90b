//! A tunnel that has no interface: somebody in this process at its inner end.

use std::fmt;
use std::sync::Arc;

use crate::device::PADDING;
use crate::node::Shared;
use crate::peer::Peer;
use crate::send::{Batch, seal};

/// Who takes what comes out of a tunnel.
///
/// It is called where all tunnels of a node receive, so it neither waits nor works long: what it has no room for it leaves.
pub trait Takes: Send + Sync + 'static {
    /// Takes IP packets, in the order in which they came; says how many. Those it does not take are dropped, and counted as
    /// [`Reason::Interface`](crate::Reason::Interface).
    fn take(&self, packets: &mut dyn Iterator<Item = &[u8]>) -> usize;
}

/// Where packets of this process go into a tunnel. They are sealed and sent in bursts: [`push`](Self::push) collects them,
/// [`flush`](Self::flush) sends them.
pub struct Entrance {
    peer: Arc<Peer>,
    shared: Arc<Shared>,
    /// Packets one behind the other, each padded.
    octets: Vec<u8>,
    /// Where each one ends in `octets`, and how long it is without its padding.
    ends: Vec<(usize, usize)>,
    batch: Batch,
}

impl Entrance {
    pub(crate) fn new(peer: Arc<Peer>, shared: Arc<Shared>) -> Self {
        Self { peer, shared, octets: Vec::new(), ends: Vec::new(), batch: Batch::default() }
    }

    /// Adds an IP packet to the burst. An empty one is left out.
    pub fn push(&mut self, packet: &[u8]) {
        if packet.is_empty() {
            return;
        }
        let padded = packet.len().next_multiple_of(PADDING).min(self.peer.mtu()).max(packet.len());
        self.octets.extend_from_slice(packet);
        self.octets.resize(self.octets.len() + padded - packet.len(), 0);
        self.ends.push((self.octets.len(), packet.len()));
    }

    /// Seals and sends what was pushed. Waits while the node's socket has no room. Without a session a handshake is begun, and
    /// the latest packets are kept until it is completed.
    pub async fn flush(&mut self) {
        let Self { peer, shared, octets, ends, batch } = self;
        let mut begin = 0;
        let packets = ends.iter().map(|&(end, length)| {
            let packet = &octets[begin..end];
            begin = end;
            (packet, length)
        });
        seal(peer, shared, batch, packets).await;
        batch.flush(peer, shared).await;
        octets.clear();
        ends.clear();
    }
}

impl fmt::Debug for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entrance(to {}, {} packets pushed)", self.peer.endpoint, self.ends.len())
    }
}
