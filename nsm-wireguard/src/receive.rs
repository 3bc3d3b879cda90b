//! From the network between the nodes to the workloads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use boringtun::noise::TunnResult;
use boringtun::noise::errors::WireGuardError;
use tun_rs::GROTable;

use crate::device::HEADROOM;
use crate::message::{Message, SEALED};
use crate::node::Shared;
use crate::peer::{Inside, Peer};
use crate::peers::Peers;
use crate::socket::Inbox;
use crate::{Reason, message};

/// Packets that are given to an interface at once, at most.
const MOST: usize = 128;
/// The largest packet that joined ones may become.
const LARGEST_JOINED: usize = HEADROOM + 65_535;
/// After an error of the socket, such as that its interface is down.
const PAUSE: Duration = Duration::from_millis(100);

/// Opens what arrives, for as long as the node lives.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut inbox = Inbox::new();
    let mut opened = Opened::new();
    loop {
        if let Err(error) = shared.socket.receive(&mut inbox).await {
            tracing::debug!(address = %shared.socket.address(), %error, "nothing received");
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        for (from, datagrams) in inbox.bursts() {
            if datagrams.len() == 0 {
                shared.drops.count(Reason::Malformed, 1);
            }
            // While it is read no tunnel goes: whoever removes one can close its interface afterwards.
            let peers = shared.peers.read();
            burst(&shared, &peers, from, datagrams, &mut opened);
        }
    }
}

/// Handles datagrams that came from one sender.
fn burst<'a>(
    shared: &Shared,
    peers: &Peers,
    from: SocketAddr,
    datagrams: impl Iterator<Item = &'a [u8]>,
    opened: &mut Opened,
) {
    let mut current: Option<&Peer> = None;
    for datagram in datagrams {
        let receiver = match message::parse(datagram) {
            Ok(Message::Initiation) => {
                initiation(shared, peers, from, datagram, opened.buffer(datagram.len()));
                continue;
            }
            Ok(Message::To(receiver)) => receiver,
            Err(reason) => {
                shared.drops.count(reason, 1);
                continue;
            }
        };
        let Some(peer) = peers.of(receiver) else {
            shared.drops.count(Reason::UnknownReceiver, 1);
            continue;
        };
        if current.is_some_and(|current| !std::ptr::eq(current, peer)) || opened.count == MOST {
            opened.give_to(current);
        }
        current = Some(peer);
        open(shared, peer, from, datagram, opened);
    }
    opened.give_to(current);
}

/// Opens a message to a tunnel of ours.
fn open(shared: &Shared, peer: &Peer, from: SocketAddr, datagram: &[u8], opened: &mut Opened) {
    let buffer = opened.buffer(datagram.len());
    let result = peer.noise().decapsulate(Some(from.ip()), datagram, &mut buffer[HEADROOM..]);
    match result {
        TunnResult::WriteToTunnelV4(packet, _) => {
            let length = packet.len();
            opened.keep(length);
        }
        TunnResult::WriteToTunnelV6(packet, _) => {
            let length = packet.len();
            opened.keep(length);
        }
        TunnResult::WriteToNetwork(reply) => {
            answer(shared, peer, from, reply);
            send_kept_back(shared, peer, buffer);
        }
        // A keepalive: it may be the first message of a new session.
        TunnResult::Done => send_kept_back(shared, peer, buffer),
        TunnResult::Err(WireGuardError::InvalidPacket) => peer.dropped(Reason::NotIp, 1),
        TunnResult::Err(error) => peer.dropped(Reason::from(&error), 1),
    }
}

/// Finds the tunnel that a handshake initiation is for: the one whose public key its first checksum (mac1) was made with.
/// Each connection has keys of its own, so every tunnel to that node must be tried.
fn initiation(shared: &Shared, peers: &Peers, from: SocketAddr, datagram: &[u8], buffer: &mut [u8]) {
    for peer in peers.to(from.ip()) {
        if !shared.trials.one_more() {
            shared.drops.count(Reason::UnderLoad, 1);
            return;
        }
        match peer.noise().decapsulate(Some(from.ip()), datagram, buffer) {
            TunnResult::Err(WireGuardError::InvalidMac) => continue,
            TunnResult::WriteToNetwork(reply) => answer(shared, peer, from, reply),
            TunnResult::Err(error) => peer.dropped(Reason::from(&error), 1),
            _ => {}
        }
        return;
    }
    shared.drops.count(Reason::UnknownInitiator, 1);
}

/// Sends what waited for a session.
fn send_kept_back(shared: &Shared, peer: &Peer, buffer: &mut Vec<u8>) {
    loop {
        buffer.resize(buffer.len().max(peer.mtu() + SEALED + HEADROOM), 0);
        match peer.noise().decapsulate(None, &[], buffer) {
            TunnResult::WriteToNetwork(sealed) => answer(shared, peer, peer.endpoint, sealed),
            _ => return,
        }
    }
}

pub(crate) fn answer(shared: &Shared, peer: &Peer, to: SocketAddr, datagram: &[u8]) {
    if let Err(error) = shared.socket.try_send(to, datagram) {
        tracing::debug!(%to, %error, "not sent");
        peer.dropped(Reason::Network, 1);
    }
}

/// Packets on their way to one interface.
struct Opened {
    packets: Vec<Vec<u8>>,
    count: usize,
    joins: GROTable,
}

impl Opened {
    fn new() -> Self {
        // As much as joined ones need: a buffer that cannot grow is not joined to.
        let packets = (0..MOST).map(|_| Vec::with_capacity(LARGEST_JOINED)).collect();
        Self { packets, count: 0, joins: GROTable::default() }
    }

    /// Room for what a datagram of this length holds, or for any answer to it.
    fn buffer(&mut self, length: usize) -> &mut Vec<u8> {
        if self.count == self.packets.len() {
            self.packets.push(Vec::with_capacity(LARGEST_JOINED));
        }
        let buffer = &mut self.packets[self.count];
        buffer.resize(HEADROOM + length.max(message::LARGEST_ANSWER), 0);
        buffer
    }

    /// A packet of this length is in the buffer.
    fn keep(&mut self, length: usize) {
        self.packets[self.count].truncate(HEADROOM + length);
        self.count += 1;
    }

    /// Gives them to the workload, joined where they are pieces of one stream.
    fn give_to(&mut self, peer: Option<&Peer>) {
        let packets = &mut self.packets[..self.count];
        let Some(peer) = peer.filter(|_| !packets.is_empty()) else { return };
        match &peer.inside {
            Inside::Device(device) => {
                let octets = packets.iter().map(|packet| packet.len() - HEADROOM).sum();
                // Not the asynchronous way: nobody else's packets wait for this interface.
                match (**device).send_multiple(&mut self.joins, packets, HEADROOM) {
                    Ok(_) => peer.received.count(self.count, octets),
                    Err(error) => {
                        tracing::debug!(%error, "not delivered");
                        peer.dropped(Reason::Interface, self.count);
                    }
                }
            }
            Inside::Process(takes) => {
                let taken = takes.take(&mut packets.iter().map(|packet| &packet[HEADROOM..])).min(self.count);
                let octets = packets[..taken].iter().map(|packet| packet.len() - HEADROOM).sum();
                peer.received.count(taken, octets);
                peer.dropped(Reason::Interface, self.count - taken);
            }
        }
        self.count = 0;
    }
}
