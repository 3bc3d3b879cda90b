//! One connection's tunnel.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::peer::Peer;
use crate::{Error, Node, PrivateKey, PublicKey, Reason, Result};

/// Between whom a tunnel is.
#[derive(Debug, Clone)]
pub struct Peering {
    /// Our key, of this tunnel alone.
    pub private_key: PrivateKey,
    /// The other end's.
    pub peer: PublicKey,
    /// Where the other end's socket is. What comes from another address is answered there if it is authentic, but data go here.
    pub endpoint: SocketAddr,
    /// How often something is sent though there is nothing to send, in whole seconds: whoever translates addresses between the
    /// nodes then remembers the tunnel. The reference takes 10 s.
    pub keepalive: Option<Duration>,
}

impl PartialEq for Peering {
    fn eq(&self, other: &Self) -> bool {
        // Two keys are one if what others know of them is.
        self.private_key.public_key() == other.private_key.public_key()
            && (self.peer, self.endpoint, self.keepalive) == (other.peer, other.endpoint, other.keepalive)
    }
}

impl Eq for Peering {}

impl Peering {
    /// Whether a node at this address can have such a tunnel.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::OwnKey`], [`Error::WeakKey`].
    pub fn check(&self, local: SocketAddr) -> Result<()> {
        let peer = self.endpoint;
        let one_host = match peer.ip() {
            IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
            IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
        };
        if !one_host || peer.port() == 0 || peer.is_ipv4() != local.is_ipv4() {
            return Err(Error::Unreachable { local, peer });
        }
        if self.private_key.public_key() == self.peer {
            return Err(Error::OwnKey);
        }
        if !self.private_key.secret().diffie_hellman(&self.peer.x25519()).was_contributory() {
            return Err(Error::WeakKey);
        }
        Ok(())
    }
}

/// A running tunnel: packets of its interface are sealed and sent to the peer, and those of the peer opened and delivered.
/// Instead of an interface it may have somebody in this process ([`Node::connect`]).
///
/// Dropped, it ends; its interface stays, without carrier, with its addresses and routes, until it is deleted or taken up
/// again ([`Node::attach`]).
pub struct Tunnel {
    node: Node,
    index: u32,
    peer: Arc<Peer>,
    sender: Option<JoinHandle<()>>,
}

/// What a tunnel has carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// IP packets from the interface.
    pub sent_packets: u64,
    /// Their octets.
    pub sent_octets: u64,
    /// IP packets to the interface.
    pub received_packets: u64,
    /// Their octets.
    pub received_octets: u64,
    /// Since the last handshake was completed; `None` if there is no session now.
    pub handshake_age: Option<Duration>,
}

/// Up to which length packets may be padded. A TUN device has 1500 by default.
pub(crate) fn padded_to(mtu: Option<u32>) -> usize {
    mtu.unwrap_or(1500) as usize
}

impl Tunnel {
    pub(crate) fn new(node: Node, index: u32, peer: Arc<Peer>) -> Self {
        Self { node, index, peer, sender: None }
    }

    pub(crate) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// This task reads its interface.
    pub(crate) fn sends(&mut self, sender: JoinHandle<()>) {
        self.sender = Some(sender);
    }

    /// What it has carried so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (handshake_age, ..) = self.peer.noise().stats();
        Stats {
            sent_packets: self.peer.sent.packets(),
            sent_octets: self.peer.sent.octets(),
            received_packets: self.peer.received.packets(),
            received_octets: self.peer.received.octets(),
            handshake_age,
        }
    }

    /// How many packets and messages of it were dropped for this reason.
    #[must_use]
    pub fn dropped(&self, reason: Reason) -> u64 {
        self.peer.drops.of(reason)
    }

    /// Says that the interface has another MTU now, or the kernel's default (`None`). Packets are not padded beyond it.
    pub fn set_mtu(&self, mtu: Option<u32>) {
        self.peer.set_mtu(padded_to(mtu));
    }

    /// Ends it. When this returns its task is gone and the device's descriptor closed; the interface is still to be deleted.
    pub async fn close(mut self) {
        self.node.forget(self.index);
        if let Some(sender) = self.sender.take() {
            sender.abort();
            // Cancelled, or ended because the interface is gone.
            let _ended = sender.await;
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.node.forget(self.index);
        if let Some(sender) = &self.sender {
            sender.abort();
        }
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tunnel(to {}, {:?})", self.peer.endpoint, self.stats())
    }
}
