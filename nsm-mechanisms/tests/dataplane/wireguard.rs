//! Wires between nodes that this process encrypts.

use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;

use nsm_chain::{Code, elements};
use nsm_kernel::{Node, Underlay as Network};
use nsm_mechanisms::{
    Census, Class, Dataplane, KernelLiveness, Linux, MechanismPriority, Mended, Programmed, Reach, Reconciled,
    Underlay, Wireguard,
};
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};

use super::mesh::{asked, client, endpoint};
use super::*;

const PORT: u16 = Wireguard::DEFAULT_PORT;

/// Two nodes on a network of their own with their data planes, or none where that is not possible.
pub(super) async fn nodes(prefix: &str) -> Option<(Network, [Linux; 2])> {
    let here = nsm_kernel::privileges();
    if let Some(obstacle) = here.obstacle {
        eprintln!("skipped: {obstacle}");
        return None;
    }
    if let Err(error) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        // An ordinary user's namespaces have the machine's devices, and their owners.
        let required = std::env::var_os("NSM_INTEROP_REQUIRED").is_some() && !here.in_user_namespace;
        assert!(!required, "/dev/net/tun cannot be opened: {error}");
        eprintln!("SKIPPED: /dev/net/tun cannot be opened: {error}");
        return None;
    }
    let network = Network::create(2, prefix.parse().unwrap()).await.unwrap();
    let [a, b] = network.nodes() else { unreachable!("two were asked for") };
    let both = [linux(a, "fwd-a").await, linux(b, "fwd-b").await];
    Some((network, both))
}

async fn linux(node: &Node, name: &str) -> Linux {
    let begun = tokio::time::Instant::now();
    let wireguard = loop {
        // The socket of a former life is closed a moment after it.
        match Wireguard::bind(&node.netns, SocketAddr::new(node.ip(), PORT), 1500).await {
            Ok(wireguard) => break wireguard,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(5), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    Linux::with_underlay(name, Underlay::new(node.ip()), node.netns.clone()).unwrap().with_wireguard(wireguard)
}

/// As the two forwarders negotiate it when the client's prefers WireGuard.
fn negotiated([near, far]: &[Linux; 2]) -> Mechanism {
    let mut mechanism = near.offers("near", Class::Remote, payload::IP).pop().unwrap();
    assert!(far.accept("far", &mut mechanism, None).unwrap().is_none());
    mechanism
}

/// Both halves of a wire, with the tunnel's MTU.
fn halves(ns: &[Netns; 2], tunnel: &Mechanism) -> [Wire; 2] {
    let mut halves = [
        wire("near", kernel(&ns[0], "nsm-1"), tunnel.clone(), 1),
        wire("far", tunnel.clone(), kernel(&ns[1], "nse-1"), 1),
    ];
    for half in &mut halves {
        half.context.mtu = tunnel.as_wireguard().unwrap().mtu().unwrap().unwrap();
    }
    halves
}

#[tokio::test]
async fn it_is_offered_for_ip_behind_vxlan_and_not_for_ethernet() {
    let Some((_network, [near, _])) = nodes("192.0.2.0/24").await else { return };
    let types = |payload| {
        let offers = near.offers("1", Class::Remote, payload);
        (offers.iter().map(|offer| offer.r#type.clone()).collect::<Vec<_>>(), near.accepts(payload))
    };
    assert_eq!(types(payload::IP), (vec!["VXLAN".into(), "WIREGUARD".into()], vec!["KERNEL", "VXLAN", "WIREGUARD"]));
    assert_eq!(types(payload::ETHERNET), (vec!["VXLAN".into()], vec!["KERNEL", "VXLAN"]));
    assert_eq!(near.offers("1", Class::Local, payload::IP).len(), 1);
    assert_eq!(near.offers("1", Class::Remote, payload::IP), near.offers("1", Class::Remote, payload::IP));
    let keys = ["1", "2"].map(|id| near.offers(id, Class::Remote, payload::IP)[1].parameters["src_public_key"].clone());
    assert_ne!(keys[0], keys[1]);
}

async fn over(prefix: &str, mtu: u32) {
    let Some((network, linux)) = nodes(prefix).await else { return };
    let Some(ns) = workloads().await else { return };
    let node_ns: Vec<_> = network.nodes().iter().map(|node| node.netns.clone()).collect();
    let before = (census(&ns).await, census(&node_ns).await);
    let capture = capture(&node_ns[0]).await;
    let tunnel = negotiated(&linux);
    let [mut near, far] = halves(&ns, &tunnel);
    assert_eq!(near.context.mtu, mtu);
    // The endpoint's half is made first, as it is on the way back of a Request.
    assert_eq!(linux[1].connect(&far).await.unwrap(), Programmed::Made);
    assert_eq!(linux[0].connect(&near).await.unwrap(), Programmed::Made);
    assert_packets_both_ways(&ns, 1).await;
    the_largest_packet_passes_and_no_larger_one(&ns, mtu).await;
    only_wireguard_was_sent(&capture, network.nodes()[0].ip().is_ipv4(), mtu);
    // Nothing is seen in the nodes' own namespaces.
    assert_nothing_left(&before.1, &node_ns).await;
    assert_eq!(linux[0].connect(&near).await.unwrap(), Programmed::Unchanged);
    for linux in &linux {
        assert_eq!(linux.census(Reach::Wires).await, Census { strays: Vec::new(), drifted: Vec::new() });
    }

    // The client comes back in another namespace, over the same tunnel.
    let Some(moved) = netns().await else { return };
    near.caller = kernel(&moved, "nsm-1");
    assert_eq!(linux[0].connect(&near).await.unwrap(), Programmed::Moved);
    assert_packets_both_ways(&[moved, ns[1].clone()], 1).await;

    linux[0].disconnect("near").await.unwrap();
    linux[1].disconnect("far").await.unwrap();
    assert_nothing_left(&before.0, &ns).await;
    assert_nothing_left(&before.1, &node_ns).await;
    drop(linux);
    // The sockets go with the data planes.
    for node in network.nodes() {
        self::linux(node, "again").await;
    }
}

#[tokio::test]
async fn an_encrypted_wire_carries_packets_over_ipv4() {
    over("192.0.2.0/24", 1440).await;
}

#[tokio::test]
async fn an_encrypted_wire_carries_packets_over_ipv6() {
    over("2001:db8::/64", 1420).await;
}

/// Content that can be recognized.
fn content(length: usize) -> Vec<u8> {
    b"not to be read on the way, ".iter().copied().cycle().take(length).collect()
}

async fn the_largest_packet_passes_and_no_larger_one(ns: &[Netns; 2], mtu: u32) {
    let [near, far] = [addresses(1, 1)[0], addresses(1, 0)[0]];
    let open = |address| move || UdpSocket::bind(SocketAddr::new(address, 7));
    let sockets = [ns[0].run(open(near)).await.unwrap(), ns[1].run(open(far)).await.unwrap()];
    for socket in &sockets {
        // Neither cut nor forgiven (IP_PMTUDISC_DO).
        rustix::net::sockopt::set_ip_mtu_discover(socket, rustix::net::sockopt::Ipv4PathMtuDiscovery::DO).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    let largest = content(mtu as usize - 28);
    let received = tokio::task::spawn_blocking(move || {
        let mut buffer = [0; 2000];
        for (from, to, address) in [(0, 1, far), (1, 0, near)] {
            sockets[from].send_to(&largest, (address, 7)).unwrap();
            let (length, _) = sockets[to].recv_from(&mut buffer).unwrap();
            assert!(buffer[..length] == largest[..]);
            let error = sockets[from].send_to(&content(largest.len() + 1), (address, 7)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::MSGSIZE.raw_os_error()));
        }
    });
    received.await.unwrap();
}

/// Keeps what a node sends and receives.
async fn capture(node: &Netns) -> OwnedFd {
    // All protocols (ETH_P_ALL), which the kernel takes in network byte order.
    let all = Protocol::from_raw(NonZeroU32::new(u32::from(3_u16.to_be())).unwrap());
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let open =
        move || -> std::io::Result<_> { Ok(socket_with(AddressFamily::PACKET, SocketType::RAW, flags, Some(all))?) };
    node.run(open).await.unwrap()
}

/// Every UDP packet on the underlay is one of WireGuard's messages between the two ports, none larger than the underlay
/// takes, and none shows what the workloads sent.
fn only_wireguard_was_sent(capture: &OwnedFd, v4: bool, mtu: u32) {
    let (mut buffer, mut kinds, mut largest) = (vec![0; 65_536], [0; 5], 0);
    while let Ok(length) = rustix::io::read(capture, &mut buffer) {
        let frame = &buffer[..length];
        let secret = content(24);
        assert!(!frame.windows(secret.len()).any(|window| window == secret), "content in clear");
        let (kind, protocol, header) = if v4 { ([8, 0], frame[23], 34) } else { ([0x86, 0xdd], frame[20], 54) };
        if frame[12..14] != kind || protocol != 17 {
            continue;
        }
        let udp = &frame[header..];
        assert_eq!((&udp[..2], &udp[2..4]), (&PORT.to_be_bytes()[..], &PORT.to_be_bytes()[..]));
        assert!(matches!(udp[8..12], [1..=4, 0, 0, 0]), "{:?}", &udp[8..12]);
        kinds[usize::from(udp[8])] += 1;
        largest = largest.max(length - 14);
    }
    assert!(kinds[1] > 0 && kinds[2] > 0 && kinds[4] > 0, "{kinds:?}");
    assert_eq!(largest, 1500);
    assert_eq!(largest - mtu as usize, if v4 { 60 } else { 80 });
}

#[tokio::test]
async fn a_restarted_forwarder_takes_up_its_interface_and_tells_new_keys() {
    let Some((network, [near, far])) = nodes("192.0.2.0/24").await else { return };
    let Some(ns) = workloads().await else { return };
    let before = census(&ns).await;
    let both = [near, far];
    let tunnel = negotiated(&both);
    let [first, second] = halves(&ns, &tunnel);
    both[1].connect(&second).await.unwrap();
    both[0].connect(&first).await.unwrap();
    assert_packets_both_ways(&ns, 1).await;
    let made = (index(&ns[0], "nsm-1").await, index(&ns[1], "nse-1").await);

    // The client's forwarder first, then the endpoint's: each finds its interface, and the other one learns its new key.
    let [near, far] = both;
    drop(near);
    let both = [linux(&network.nodes()[0], "fwd-a").await, far];
    let tunnel = negotiated(&both);
    let [first, second] = halves(&ns, &tunnel);
    assert_eq!(both[1].connect(&second).await.unwrap(), Programmed::Changed { writes: 1 });
    assert_eq!(both[0].connect(&first).await.unwrap(), Programmed::Adopted);
    assert_packets_both_ways(&ns, 1).await;
    let [near, far] = both;
    drop(far);
    let both = [near, linux(&network.nodes()[1], "fwd-b").await];
    let tunnel = negotiated(&both);
    let [first, second] = halves(&ns, &tunnel);
    assert_eq!(both[1].connect(&second).await.unwrap(), Programmed::Adopted);
    assert_eq!(both[0].connect(&first).await.unwrap(), Programmed::Changed { writes: 1 });
    assert_packets_both_ways(&ns, 1).await;
    assert_eq!((index(&ns[0], "nsm-1").await, index(&ns[1], "nse-1").await), made);
    for (linux, id) in both.iter().zip(["near", "far"]) {
        linux.disconnect(id).await.unwrap();
    }
    assert_nothing_left(&before, &ns).await;
}

#[tokio::test]
async fn an_interface_deleted_by_hand_is_made_again_with_its_tunnel() {
    let Some((_network, linux)) = nodes("192.0.2.0/24").await else { return };
    let Some(ns) = workloads().await else { return };
    let [near, far] = halves(&ns, &negotiated(&linux));
    linux[1].connect(&far).await.unwrap();
    linux[0].connect(&near).await.unwrap();
    assert_packets_both_ways(&ns, 1).await;
    for (at, name, id) in [(0, "nsm-1", "near"), (1, "nse-1", "far")] {
        assert_eq!(linux[at].mend(id).await.unwrap(), Mended::Whole);
        let marked = links_with_mark(&ns[at], "nsm:").await.unwrap();
        assert!(nsm_kernel::delete_link(&ns[at], name, &marked[0].alias).await.unwrap());
        assert_eq!(linux[at].mend(id).await.unwrap(), Mended::Remade);
        // What the other end sends until it hears of the new session is lost.
        let begun = tokio::time::Instant::now();
        while !answers(&ns[0], addresses(1, 1)[0], addresses(1, 0)[0]).await {
            assert!(begun.elapsed() < Duration::from_secs(10), "no packets after {name} was made again");
        }
        assert_packets_both_ways(&ns, 1).await;
    }
}

#[tokio::test]
async fn what_cannot_be_a_tunnel_is_refused_with_a_reason() {
    let Some((_network, linux)) = nodes("192.0.2.0/24").await else { return };
    let Some(ns) = workloads().await else { return };
    let before = census(&ns).await;
    let tunnel = negotiated(&linux);
    let vxlan = linux[0].offers("1", Class::Remote, payload::IP).remove(0);
    let refused = async |wire: &Wire| linux[0].connect(wire).await.unwrap_err().code();
    for (caller, next) in [(&tunnel, &tunnel), (&vxlan, &tunnel), (&tunnel, &vxlan)] {
        assert_eq!(refused(&wire("1", caller.clone(), next.clone(), 1)).await, Code::Unimplemented);
    }
    let mut ethernet = wire("1", kernel(&ns[0], "nsm-1"), tunnel.clone(), 1);
    ethernet.payload = payload::ETHERNET.into();
    assert_eq!(refused(&ethernet).await, Code::Unimplemented);
    let half = linux[0].offers("1", Class::Remote, payload::IP).pop().unwrap();
    assert_eq!(refused(&wire("1", kernel(&ns[0], "nsm-1"), half.clone(), 1)).await, Code::InvalidArgument);
    // Whoever has no WireGuard says so.
    let without = Linux::new("without").unwrap();
    assert_eq!(without.accept("1", &mut half.clone(), None).unwrap_err().code(), Code::Unimplemented);
    let error = without.connect(&wire("1", kernel(&ns[0], "nsm-1"), tunnel, 1)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    assert_eq!(linux[0].wires(), 0);
    assert_nothing_left(&before, &ns).await;
}

#[tokio::test]
async fn a_client_reaches_an_endpoint_on_another_node_encrypted_if_that_is_preferred() {
    let Some((network, [near, far])) = nodes("192.0.2.0/24").await else { return };
    let Some(ns) = workloads().await else { return };
    let before = census(&ns).await;
    let far_chain = mesh::forwarder(&far, "unix:///nse.sock", elements![], endpoint(&ns[1]));
    let prefers = elements![MechanismPriority::new(["wireguard"])];
    let next = format!("tcp://{}:5001", network.nodes()[1].ip());
    let chain = client(&ns[0], mesh::forwarder(&near, &next, prefers, far_chain));
    let call = chain.request(asked()).await.unwrap();
    assert_eq!(call.connection().context.as_ref().unwrap().mtu, 1440);
    assert_packets_both_ways(&ns, 1).await;
    assert!(KernelLiveness.is_alive(call.connection(), Duration::from_secs(1)).await);
    let refreshed = chain.request(nsm_chain::Call::new(call.share())).await.unwrap();
    assert_packets_both_ways(&ns, 1).await;
    chain.close(nsm_chain::Call::new(refreshed.share())).await.unwrap();
    assert_nothing_left(&before, &ns).await;
    assert_eq!((near.wires(), far.wires()), (0, 0));
}
