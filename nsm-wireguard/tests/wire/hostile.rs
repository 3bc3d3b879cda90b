use nsm_wireguard::Reason;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::{common::*, needs_tun};

/// Messages that begin like WireGuard's and go on as somebody likes.
fn message(receiver: u32) -> impl Strategy<Value = Vec<u8>> {
    let lengths = prop_oneof![Just(148_usize), Just(92), Just(64), Just(32), Just(48), 0..200_usize, 1400..1500_usize];
    let receivers =
        prop_oneof![Just(receiver), Just(receiver + 1), (receiver & !0xff)..(receiver | 0xff), any::<u32>()];
    (0u32..6, lengths, receivers, any::<u64>(), any::<u8>()).prop_map(|(kind, length, receiver, counter, fill)| {
        let mut octets = vec![fill; length];
        let mut put = |at: usize, value: &[u8]| {
            if let Some(place) = octets.get_mut(at..at + value.len()) {
                place.copy_from_slice(value);
            }
        };
        put(0, &kind.to_le_bytes());
        put(if kind == 2 { 8 } else { 4 }, &receiver.to_le_bytes());
        if kind == 4 {
            put(8, &counter.to_le_bytes());
        }
        octets
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_send_is_counted_and_disturbs_nobody() {
    needs_tun!();
    let lab = Lab::new("192.0.2.0/24").await;
    let nodes = [lab.bind(0).await, lab.bind(1).await];
    let (_near, near) = lab.tunnel(0, &nodes[0]).await;
    let (_far, _far_tunnel) = lab.tunnel(1, &nodes[1]).await;
    let [a, b] = &lab.workloads;
    datagram_and_back(a, "10.9.0.1", b, "10.9.0.2", 100).await;
    // From the peer's very address, but another port: all that is looked at by address is tried.
    let stranger = lab.place(1).udp_socket((lab.socket(1).ip(), 0).into()).await.unwrap();
    let mut runner = TestRunner::deterministic();
    let total = || -> u64 { Reason::ALL.iter().map(|reason| nodes[0].dropped(*reason) + near.dropped(*reason)).sum() };
    let before = total();
    let count = 20_000;
    for sent in 1..=count {
        // The first index is 1; its sessions are 256 and on.
        let octets = message(256).new_tree(&mut runner).unwrap().current();
        stranger.send_to(&octets, lab.socket(0)).await.unwrap();
        if sent % 500 == 0 {
            eventually("all of them are counted", async || total() - before >= sent).await;
        }
    }
    assert_eq!(total() - before, count);
    for reason in [Reason::Malformed, Reason::UnknownReceiver, Reason::UnknownInitiator] {
        assert!(nodes[0].dropped(reason) > 0, "{reason}");
    }
    for reason in [Reason::NotAuthentic, Reason::UnknownReceiver] {
        assert!(near.dropped(reason) > 0, "{reason}");
    }
    datagram_and_back(a, "10.9.0.1", b, "10.9.0.2", 100).await;
    stream(b, a, "10.9.0.1", 1 << 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_message_is_not_delivered_again() {
    needs_tun!();
    let lab = Lab::new("192.0.2.0/24").await;
    let node = lab.bind(0).await;
    let (_near, near) = lab.tunnel(0, &node).await;
    let mut peer = Scripted::new(&lab).await;
    peer.shake_hands().await;
    let packet = peer.seal(&udp("10.9.0.2", "10.9.0.1", b"once"));
    for _ in 0..3 {
        peer.send(&packet).await;
    }
    eventually("two are replays", async || near.dropped(Reason::Replayed) == 2).await;
    assert_eq!(near.stats().received_packets, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_seals_may_be_anything() {
    needs_tun!();
    let lab = Lab::new("192.0.2.0/24").await;
    let node = lab.bind(0).await;
    let (_near, near) = lab.tunnel(0, &node).await;
    let mut peer = Scripted::new(&lab).await;
    peer.shake_hands().await;
    let mut runner = TestRunner::deterministic();
    let pieces = prop::collection::vec(any::<u8>(), 0..120);
    let begin = prop_oneof![Just(0x45_u8), Just(0x60), Just(0x4f), any::<u8>()];
    // What looks like pieces of one TCP stream is tried to be joined, whatever its lengths say.
    let packets = (begin, pieces, any::<u16>(), prop_oneof![Just(6_u8), Just(17), any::<u8>()]);
    let packets = packets.prop_map(|(first, mut octets, length, protocol)| {
        octets.insert(0, first);
        let honest = octets.len() as u16;
        let length = if length % 4 == 0 { length } else { honest };
        let (at, next) = if first >> 4 == 6 { (4, 6) } else { (2, 9) };
        let length = if first >> 4 == 6 { length.wrapping_sub(40) } else { length };
        if octets.len() > 9 {
            octets[at..at + 2].copy_from_slice(&length.to_be_bytes());
            octets[next] = protocol;
        }
        octets
    });
    let mut batch = Vec::new();
    for _ in 0..200 {
        batch.clear();
        for _ in 0..100 {
            let sealed = peer.seal(&packets.new_tree(&mut runner).unwrap().current());
            batch.push(sealed);
        }
        for sealed in &batch {
            peer.send(sealed).await;
        }
        let marker = peer.seal(&udp("10.9.0.2", "10.9.0.1", b"marker"));
        let before = near.stats().received_packets;
        peer.send(&marker).await;
        eventually("it still delivers", async || near.stats().received_packets > before).await;
    }
    assert!(near.dropped(Reason::NotIp) > 0);
}

/// A UDP datagram in an IPv4 packet, without a UDP checksum.
fn udp(from: &str, to: &str, content: &[u8]) -> Vec<u8> {
    let length = (28 + content.len()) as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    for address in [from, to] {
        packet.extend(address.parse::<std::net::Ipv4Addr>().unwrap().octets());
    }
    let sum: u32 = packet.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    packet.extend([0, 9, 0, 9]);
    packet.extend((length - 20).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(content);
    packet
}

/// A peer that knows the keys and sends what it is told to.
struct Scripted {
    socket: tokio::net::UdpSocket,
    to: std::net::SocketAddr,
    noise: boringtun::noise::Tunn,
}

impl Scripted {
    async fn new(lab: &Lab) -> Self {
        use base64::Engine;
        let secret = base64::engine::general_purpose::STANDARD.decode(lab.keys[1].to_base64()).unwrap();
        let peer = base64::engine::general_purpose::STANDARD.decode(lab.keys[0].public_key().to_string()).unwrap();
        let (secret, peer): ([u8; 32], [u8; 32]) = (secret.try_into().unwrap(), peer.try_into().unwrap());
        let noise = boringtun::noise::Tunn::new(secret.into(), peer.into(), None, None, 7, None);
        let socket = lab.place(1).udp_socket(lab.socket(1)).await.unwrap();
        Self { socket, to: lab.socket(0), noise }
    }

    async fn shake_hands(&mut self) {
        use boringtun::noise::TunnResult;
        let mut buffer = vec![0; 2048];
        let TunnResult::WriteToNetwork(initiation) = self.noise.format_handshake_initiation(&mut buffer, true) else {
            panic!("no initiation");
        };
        self.socket.send_to(initiation, self.to).await.unwrap();
        let mut received = vec![0; 2048];
        loop {
            let waited = tokio::time::timeout(PATIENCE, self.socket.recv_from(&mut received)).await;
            let (length, _) = waited.expect("it answers").unwrap();
            if received[0] != 2 {
                continue;
            }
            let TunnResult::WriteToNetwork(keepalive) = self.noise.decapsulate(None, &received[..length], &mut buffer)
            else {
                panic!("no session");
            };
            self.socket.send_to(keepalive, self.to).await.unwrap();
            return;
        }
    }

    fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut buffer = vec![0; packet.len() + 148];
        match self.noise.encapsulate(packet, &mut buffer) {
            boringtun::noise::TunnResult::WriteToNetwork(sealed) => sealed.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    async fn send(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.to).await.unwrap();
    }
}
