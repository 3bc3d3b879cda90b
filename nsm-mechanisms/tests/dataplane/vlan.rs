//! Clients in VLANs of a network outside, which here is a TAP device that the test has: it sees frames as they would leave the
//! node, tag and all.

use std::net::Ipv4Addr;

use nsm_api::mechanism::VLAN;
use nsm_chain::{Begin, Call, Chain, Code, Error, Next, Node, OwnedNext, elements, from_fn};
use nsm_mechanisms::{Census, Dataplane, Linux, Mechanisms, Mended, Programmed, Reach, Reconciled, VlanAccept, Vlans};
use tun_rs::{AsyncDevice, DeviceBuilder, Layer};

use super::mesh::{asked, client, forwarder};
use super::*;

/// Programs may not be loaded in a user namespace.
macro_rules! needs_bpf {
    () => {
        $crate::memif::needs_tun!();
        if let Err(error) = nsm_kernel::VlanPort::allowed() {
            return eprintln!("skipped: {error}");
        }
    };
}
pub(super) use needs_bpf;

const UPLINK: &str = "eth1";
const MTU: u16 = 1400;
const PATIENCE: Duration = Duration::from_secs(5);
/// Of the host outside.
const OUTSIDE: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
const BROADCAST: [u8; 6] = [0xff; 6];

/// What is outside of a node: a host that has the endpoint's addresses, in whatever VLAN it is asked.
struct Outside {
    node: Netns,
    device: AsyncDevice,
}

/// A frame as it is on the link.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    to: [u8; 6],
    from: [u8; 6],
    /// Of its tag.
    vlan: Option<u16>,
    kind: u16,
    payload: Vec<u8>,
}

impl Frame {
    fn parse(octets: &[u8]) -> Self {
        let word = |at: usize| u16::from_be_bytes([octets[at], octets[at + 1]]);
        let (vlan, at) = if word(12) == 0x8100 { (Some(word(14) & 0xfff), 16) } else { (None, 12) };
        let mac = |at: usize| octets[at..at + 6].try_into().unwrap();
        Self { to: mac(0), from: mac(6), vlan, kind: word(at), payload: octets[at + 2..].to_vec() }
    }

    fn octets(&self) -> Vec<u8> {
        let mut octets = [self.to, self.from].concat();
        octets.extend(self.vlan.map(|vlan| [[0x81, 0x00], vlan.to_be_bytes()].concat()).unwrap_or_default());
        octets.extend(self.kind.to_be_bytes());
        octets.extend(&self.payload);
        octets
    }

    /// The answer of a host that has the address that is asked for (RFC 826).
    fn answer(&self) -> Option<Self> {
        let asks = self.kind == 0x0806 && self.payload.get(6..8)? == [0, 1];
        let [asker, asked] = [self.payload.get(8..18)?, self.payload.get(24..28)?];
        // Whoever tells its own address asks for nothing.
        if !asks || asked == &asker[6..] {
            return None;
        }
        let mut payload = self.payload[..6].to_vec();
        payload.extend([0, 2]);
        payload.extend(OUTSIDE);
        payload.extend(asked);
        payload.extend(asker);
        Some(Self { to: self.from, from: OUTSIDE, payload, ..*self })
    }

    /// The content of a UDP datagram in IPv4.
    fn datagram(&self) -> Option<&[u8]> {
        (self.kind == 0x0800 && self.payload.get(9) == Some(&17)).then(|| self.payload.get(28..)).flatten()
    }

    /// A datagram back to where this one came from: addresses and ports change places, so checksums stay.
    fn returned(&self) -> Self {
        let mut payload = self.payload.clone();
        let (addresses, ports) = (payload[12..20].to_vec(), payload[20..24].to_vec());
        payload[12..16].copy_from_slice(&addresses[4..]);
        payload[16..20].copy_from_slice(&addresses[..4]);
        payload[20..22].copy_from_slice(&ports[2..]);
        payload[22..24].copy_from_slice(&ports[..2]);
        Self { to: self.from, from: OUTSIDE, payload, ..*self }
    }
}

impl Outside {
    async fn new() -> Option<Self> {
        let node = netns().await?;
        let open = || DeviceBuilder::new().name(UPLINK).layer(Layer::L2).mtu(MTU).build_sync();
        let device = node.run(open).await.unwrap();
        device.set_nonblocking(true).unwrap();
        Some(Self { node, device: AsyncDevice::new(device).unwrap() })
    }

    async fn vlans(&self) -> Vlans {
        Vlans::new(self.node.clone(), [("gw1", UPLINK)]).await.unwrap()
    }

    async fn linux(&self) -> Linux {
        Linux::new("fwd").unwrap().with_vlans(self.vlans().await)
    }

    /// The next frame that is neither IPv6 (nodes speak it by themselves) nor a question, which is answered.
    async fn next(&self) -> Frame {
        let mut octets = vec![0; 2048];
        let next = async {
            loop {
                let length = self.device.recv(&mut octets).await.unwrap();
                let frame = Frame::parse(&octets[..length]);
                match frame.answer() {
                    Some(answer) => self.send(&answer).await,
                    None if !matches!(frame.kind, 0x86dd | 0x0806) => return frame,
                    None => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("a frame")
    }

    async fn send(&self, frame: &Frame) {
        self.device.send(&frame.octets()).await.unwrap();
    }

    /// A datagram of this size goes out with the tag, and comes back.
    async fn exchange(&self, client: &Netns, number: u8, vlan: Option<u16>, size: usize) -> Frame {
        let socket = client.udp_socket((Ipv4Addr::new(10, number, 0, 1), 0).into()).await.unwrap();
        let sent = vec![0x5a; size];
        socket.send_to(&sent, (Ipv4Addr::new(10, number, 0, 0), 9)).await.unwrap();
        let frame = self.next().await;
        assert_eq!((frame.vlan, frame.datagram()), (vlan, Some(&sent[..])));
        self.send(&frame.returned()).await;
        let mut received = vec![0; 2048];
        let answer = tokio::time::timeout(PATIENCE, socket.recv_from(&mut received)).await.expect("an answer").unwrap();
        assert_eq!((answer.0, answer.1.ip()), (size, Ipv4Addr::new(10, number, 0, 0).into()));
        frame
    }

    /// What `tc` says of the uplink's filters.
    async fn filters(&self) -> String {
        let list = || std::process::Command::new("tc").args(["filter", "show", "dev", UPLINK, "ingress"]).output();
        String::from_utf8(self.node.run(list).await.unwrap().stdout).unwrap()
    }
}

/// An endpoint of a VLAN has no interface of its own.
fn endpoint(vlan: u16, via: &str) -> Chain {
    let accept = VlanAccept::new().serving("icmp-responder", vlan, via).unwrap();
    let addresses = from_fn(|mut call: Call, next: OwnedNext| {
        let mtu = call.connection().context.as_ref().map_or(0, |context| context.mtu);
        call.connection_mut().context = Some(ConnectionContext { mtu, ..context(1) });
        async move { next.request(call).await }
    });
    let mechanisms = Mechanisms::new().with(VLAN, accept).unwrap();
    Chain::new("nse", elements![Begin::default(), mechanisms, addresses]).unwrap()
}

fn chain(linux: &Linux, netns: &Netns, endpoint: Chain) -> Chain {
    client(netns, forwarder(linux, "tcp://192.0.2.9:5001", elements![], endpoint))
}

/// As a forwarder has it when the endpoint has answered.
fn wire_to(vlan: u16, id: &str, netns: &Netns, number: u8) -> Wire {
    let mut next = Mechanism::vlan();
    next.as_vlan_mut().unwrap().set_id(vlan).unwrap();
    next.set_parameter("name", UPLINK);
    wire(id, kernel(netns, "nsm-1"), next, number)
}

#[tokio::test]
async fn a_client_is_put_into_the_vlan_that_the_endpoint_names() {
    needs_bpf!();
    let (Some(outside), Some(netns)) = (Outside::new().await, netns().await) else { return };
    let places = [netns.clone(), outside.node.clone()];
    let before = census(&places).await;
    for vlan in [100, 0] {
        let linux = outside.linux().await;
        let chain = chain(&linux, &netns, endpoint(vlan, "gw1"));
        let call = chain.request(asked()).await.unwrap();
        let tag = (vlan != 0).then_some(vlan);
        let headers = 28;
        for size in [1, usize::from(MTU) - headers] {
            outside.exchange(&netns, 1, tag, size).await;
        }
        let connection = call.connection();
        assert_eq!(connection.context.as_ref().unwrap().mtu, u32::from(MTU), "what fits is what fits outside");
        // Nobody answers these.
        let socket = netns.udp_socket((Ipv4Addr::new(10, 1, 0, 1), 0).into()).await.unwrap();
        for _ in 0..100 {
            socket.send_to(b"unanswered", (Ipv4Addr::new(10, 1, 0, 0), 9)).await.unwrap();
            outside.next().await;
        }
        let refreshed = chain.request(Call::new(call.share())).await.unwrap();
        assert_eq!(refreshed.connection().mechanism, connection.mechanism);
        let metrics = &refreshed.connection().current_segment().unwrap().metrics;
        let count = |key: &str| metrics[key].parse::<u64>().unwrap();
        for (more, less) in [("server_rx_packets", "server_tx_packets"), ("client_tx_packets", "client_rx_packets")] {
            assert!(count(less) >= 2 && count(more) >= 100 + 2 && count(less) < 50, "{more}, {less}: {metrics:?}");
        }
        chain.close(Call::new(refreshed.share())).await.unwrap();
        assert_nothing_left(&before, &places).await;
        assert_eq!(outside.filters().await, "");
    }
}

#[tokio::test]
async fn only_frames_of_its_vlan_and_for_it_reach_a_client() {
    needs_bpf!();
    let (Some(outside), Some(ns)) = (Outside::new().await, workloads().await) else { return };
    let linux = outside.linux().await;
    for (at, vlan) in [(0, 100), (1, 200)] {
        linux.connect(&wire_to(vlan, &at.to_string(), &ns[at], at as u8 + 1)).await.unwrap();
    }
    let [first, second] =
        [outside.exchange(&ns[0], 1, Some(100), 10).await, outside.exchange(&ns[1], 2, Some(200), 10).await];
    let sockets = [listener(&ns[0], 1).await, listener(&ns[1], 2).await];
    let heard = async |at: usize, frame: Frame| {
        outside.send(&frame).await;
        // What comes after it shows whether it came.
        let mark = Frame { payload: packet(at as u8 + 1, b"mark"), ..reply([&first, &second][at]) };
        outside.send(&mark).await;
        let mut content = [0; 64];
        let length = tokio::time::timeout(PATIENCE, sockets[at].recv(&mut content)).await.expect("the mark").unwrap();
        let came = &content[..length] != b"mark";
        if came {
            assert_eq!(&content[..length], b"came");
            sockets[at].recv(&mut content).await.unwrap();
        }
        came
    };
    let came = |frame: &Frame, at: usize| Frame { payload: packet(at as u8 + 1, b"came"), ..reply(frame) };
    assert!(heard(0, came(&first, 0)).await);
    assert!(heard(1, came(&second, 1)).await);
    assert!(heard(0, Frame { to: BROADCAST, ..came(&first, 0) }).await, "a group's frame reaches all of the VLAN");
    for wrong in [Some(200), Some(101), None] {
        assert!(!heard(0, Frame { vlan: wrong, ..came(&first, 0) }).await, "{wrong:?} is not VLAN 100");
        assert!(!heard(0, Frame { vlan: wrong, to: BROADCAST, ..came(&first, 0) }).await, "{wrong:?} is not VLAN 100");
    }
    assert!(!heard(0, Frame { to: second.from, ..came(&first, 0) }).await, "it is for another one");
}

/// From outside to where this frame came from.
fn reply(frame: &Frame) -> Frame {
    Frame { to: frame.from, from: OUTSIDE, payload: Vec::new(), ..*frame }
}

async fn listener(client: &Netns, number: u8) -> tokio::net::UdpSocket {
    client.udp_socket((Ipv4Addr::new(10, number, 0, 1), 7777).into()).await.unwrap()
}

/// A datagram for a client's listener, without checksums of UDP.
fn packet(number: u8, content: &[u8]) -> Vec<u8> {
    let length = |of: usize| (of as u16).to_be_bytes();
    let mut packet = vec![0x45, 0];
    packet.extend(length(28 + content.len()));
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, number, 0, 0, 10, number, 0, 1]);
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    packet.extend([0, 9]);
    packet.extend(length(7777));
    packet.extend(length(8 + content.len()));
    packet.extend([0, 0]);
    packet.extend(content);
    packet
}

#[tokio::test]
async fn a_restarted_forwarder_takes_it_up_and_what_is_damaged_is_mended() {
    needs_bpf!();
    let (Some(outside), Some(netns)) = (Outside::new().await, netns().await) else { return };
    let places = [netns.clone(), outside.node.clone()];
    let before = census(&places).await;
    let wire = wire_to(100, "1", &netns, 1);
    assert_eq!(outside.linux().await.connect(&wire).await.unwrap(), Programmed::Made);
    let number = index(&netns, "nsm-1").await;
    outside.exchange(&netns, 1, Some(100), 10).await;

    let linux = outside.linux().await;
    assert_eq!(linux.connect(&wire).await.unwrap(), Programmed::Adopted);
    assert_eq!(index(&netns, "nsm-1").await, number);
    outside.exchange(&netns, 1, Some(100), 10).await;

    let damage = || std::process::Command::new("tc").args(["qdisc", "del", "dev", UPLINK, "clsact"]).status();
    assert!(outside.node.run(damage).await.unwrap().success());
    let Census { drifted, .. } = linux.census(Reach::Wires).await;
    assert_eq!(drifted.len(), 1);
    assert!(matches!(linux.mend("1").await.unwrap(), Mended::Changed { writes } if writes > 0));
    outside.exchange(&netns, 1, Some(100), 10).await;
    assert_eq!(linux.census(Reach::Wires).await.drifted.len(), 0);

    linux.disconnect("1").await.unwrap();
    assert_nothing_left(&before, &places).await;
    assert_eq!(outside.filters().await, "");
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_what_to_do_and_nothing_is_left() {
    needs_bpf!();
    let (Some(outside), Some(netns)) = (Outside::new().await, netns().await) else { return };
    let places = [netns.clone(), outside.node.clone()];
    let before = census(&places).await;
    let refused =
        async |linux: &Linux, endpoint: Chain| chain(linux, &netns, endpoint).request(asked()).await.unwrap_err();
    let says = |error: &Error, code: Code, what: &str| {
        let text = error.to_string();
        assert!(error.code() == code && text.contains(what), "{code:?} {what}: {text}");
    };
    let linux = outside.linux().await;
    says(&refused(&linux, endpoint(100, "gw2")).await, Code::FailedPrecondition, "leads to \"gw2\", only to gw1");
    struct Silent(Chain);
    impl nsm_chain::Element for Silent {
        async fn request(&self, call: Call, _next: Next<'_>) -> nsm_chain::Result<Call> {
            let mut call = self.0.request(call).await?;
            call.connection_mut().labels.remove("via");
            Ok(call)
        }
    }
    let silent = Chain::new("nse", vec![Node::new(Silent(endpoint(100, "gw1")))]).unwrap();
    says(&refused(&linux, silent).await, Code::InvalidArgument, "did not say where that is");
    // No uplink, no offer.
    let without = Linux::new("fwd").unwrap();
    says(&refused(&without, endpoint(100, "gw1")).await, Code::Unimplemented, "no mechanism of class REMOTE");
    let none = Vlans::new(outside.node.clone(), [("gw1", "eth9")]).await.unwrap_err();
    assert!(none.to_string().contains("eth9") && none.to_string().contains("it is not there"), "{none}");
    assert_nothing_left(&before, &places).await;
    assert_eq!(outside.filters().await, "");
}
