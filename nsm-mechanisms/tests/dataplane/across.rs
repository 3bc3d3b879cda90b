//! Shared memory at one side of a wire, or at both, and a tunnel between: the forwarders copy.

use std::net::IpAddr;

use nsm_api::Connection;
use nsm_chain::{Begin, Call, Chain, elements};
use nsm_mechanisms::{Census, Linux, MechanismPriority, MemifOffer, PacketProcessor, Reach, Reconciled, WithMemif};
use nsm_memif::Memif;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::memif::{
    MAC, PATIENCE, answer_frame, answer_packet, assert_answers, kernel_client, kernel_endpoint, memif_client,
    memif_endpoint, needs_tun, of,
};
use super::mesh::{To, forwarder};
use super::*;

enum Client<'a> {
    Kernel(&'a Netns),
    /// With shared memory.
    Answers,
    Asks,
}

/// Over a tunnel of this kind, from a node to another one.
async fn across(tunnel: &str, payload: &str, client: Client<'_>, endpoint: Chain) -> Option<Across> {
    let (network, [near, far]) = wireguard::nodes("192.0.2.0/24").await?;
    let places: Vec<_> = network.nodes().iter().map(|node| node.netns.clone()).collect();
    let before = census(&places).await;
    let (near, far) = (WithMemif::over(near), WithMemif::over(far));
    let prefers = elements![MechanismPriority::new([tunnel])];
    let next = forwarder(&near, "tcp://far:5001", prefers, forwarder(&far, "unix:///nse.sock", elements![], endpoint));
    let (seen, answered) = unbounded_channel();
    let chain = match client {
        Client::Kernel(netns) => kernel_client(netns, next),
        Client::Answers => memif_client(next),
        Client::Asks => {
            Chain::new("nsc", elements![Begin::initiator(), MemifOffer::new(asks_all(seen)), To(next)]).unwrap()
        }
    };
    let call = chain.request(of(payload)).await.unwrap();
    Some(Across { _network: network, places, before, planes: [near, far], chain, call, answered })
}

struct Across {
    _network: nsm_kernel::Underlay,
    places: Vec<Netns>,
    before: Vec<nsm_kernel::Census>,
    planes: [WithMemif<Linux>; 2],
    chain: Chain,
    call: Call,
    /// What came to a client with shared memory, until it got as many answers as it wants.
    answered: UnboundedReceiver<Vec<u8>>,
}

impl Across {
    async fn over(self) {
        let refreshed = self.chain.request(Call::new(self.call.share())).await.unwrap();
        for plane in &self.planes {
            assert_eq!(plane.census(Reach::Wires).await, Census { strays: Vec::new(), drifted: Vec::new() });
            assert_eq!((plane.wires(), plane.other().wires()), (0, 1));
        }
        self.chain.close(Call::new(refreshed.share())).await.unwrap();
        assert_nothing_left(&self.before, &self.places).await;
        assert!(self.planes.iter().all(|plane| plane.other().wires() == 0));
    }
}

/// A workload in user space that sends datagrams to the other end until they are answered.
fn asks_all(seen: UnboundedSender<Vec<u8>>) -> impl PacketProcessor {
    move |mut memif: Memif, connection: Arc<Connection>| {
        let seen = seen.clone();
        async move {
            let framed = connection.payload == payload::ETHERNET;
            let asked = addresses(1, 1).into_iter().zip(addresses(1, 0)).map(|(from, to)| datagram(from, to));
            for packet in asked.map(|packet| if framed { frame(packet) } else { packet }) {
                loop {
                    memif.send_burst([&packet]).unwrap();
                    let Ok(ready) = tokio::time::timeout(Duration::from_millis(300), memif.ready()).await else {
                        continue;
                    };
                    ready.unwrap();
                    let mut answer = Vec::new();
                    memif.recv_burst(1, |packet| answer = packet.to_vec()).unwrap();
                    let mut expected = packet.clone();
                    let it_is = if framed { answer_frame(&mut expected) } else { answer_packet(&mut expected) };
                    if it_is && answer == expected {
                        seen.send(answer).unwrap();
                        break;
                    }
                }
            }
            memif.closed().await;
        }
    }
}

/// An IP packet that holds a datagram of 32 octets, without a checksum.
fn datagram(from: IpAddr, to: IpAddr) -> Vec<u8> {
    let (head, ips) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            (vec![0x45, 0, 0, 52, 0, 0, 0, 0, 64, 17, 0, 0], [from.octets(), to.octets()].concat())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            (vec![0x60, 0, 0, 0, 0, 32, 17, 64], [from.octets(), to.octets()].concat())
        }
        _ => panic!("one family"),
    };
    [head, ips, vec![0, 9, 0, 9, 0, 32, 0, 0], (0..24).collect()].concat()
}

fn frame(packet: Vec<u8>) -> Vec<u8> {
    let protocol = if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    [&MAC[..], &MAC, &protocol, &packet].concat()
}

#[tokio::test]
async fn a_kernel_client_reaches_a_memif_endpoint_on_another_node() {
    needs_tun!();
    for (tunnel, payload, mtu) in
        [("wireguard", payload::IP, 1440), ("vxlan", payload::IP, 1446), ("vxlan", payload::ETHERNET, 1446)]
    {
        let Some(ns) = netns().await else { return };
        let before = census(std::slice::from_ref(&ns)).await;
        let Some(across) = across(tunnel, payload, Client::Kernel(&ns), memif_endpoint()).await else { return };
        assert_answers(&ns, [1, 0], &[1, 100, mtu - 48]).await;
        across.over().await;
        assert_nothing_left(&before, &[ns]).await;
    }
}

#[tokio::test]
async fn a_memif_client_reaches_a_kernel_endpoint_on_another_node() {
    needs_tun!();
    for (tunnel, payload, mtu) in
        [("wireguard", payload::IP, 1440), ("vxlan", payload::IP, 1446), ("vxlan", payload::ETHERNET, 1446)]
    {
        let Some(ns) = netns().await else { return };
        let before = census(std::slice::from_ref(&ns)).await;
        let endpoint = kernel_endpoint(&ns);
        let Some(across) = across(tunnel, payload, Client::Answers, endpoint).await else { return };
        assert_answers(&ns, [0, 1], &[1, 100, mtu - 48]).await;
        across.over().await;
        assert_nothing_left(&before, &[ns]).await;
    }
}

#[tokio::test]
async fn two_memifs_on_two_nodes_exchange_packets() {
    needs_tun!();
    for (tunnel, payload) in [("wireguard", payload::IP), ("vxlan", payload::IP), ("vxlan", payload::ETHERNET)] {
        let Some(mut across) = across(tunnel, payload, Client::Asks, memif_endpoint()).await else { return };
        for _ in 0..2 {
            tokio::time::timeout(PATIENCE, across.answered.recv()).await.unwrap().unwrap();
        }
        across.over().await;
    }
}
