use nsm_kernel::Pinger;

use crate::{common::*, needs_tun};

#[tokio::test(flavor = "multi_thread")]
async fn packets_of_both_families_flow_over_underlays_of_both_families() {
    needs_tun!();
    for prefix in ["192.0.2.0/24", "fd07::/64"] {
        let lab = Lab::new(prefix).await;
        let nodes = [lab.bind(0).await, lab.bind(1).await];
        let (_near, near) = lab.tunnel(0, &nodes[0]).await;
        let (_far, far) = lab.tunnel(1, &nodes[1]).await;
        let [a, b] = &lab.workloads;
        for (from, to) in [("10.9.0.1", "10.9.0.2"), ("fd09::1", "fd09::2")] {
            for size in [1, 15, 16, 17, 1000, 4000, 20_000] {
                datagram_and_back(a, from, b, to, size).await;
                datagram_and_back(b, to, a, from, size).await;
            }
            // Large pieces are cut and joined.
            stream(a, b, to, 8 << 20).await;
            stream(b, a, from, 8 << 20).await;
        }
        let (near, far) = (near.stats(), far.stats());
        assert!(near.handshake_age.is_some() && far.handshake_age.is_some(), "{near:?} {far:?}");
        assert!(near.sent_octets > 16 << 20 && near.received_octets > 16 << 20, "{near:?}");
        assert!(far.received_packets > 0 && far.received_packets <= near.sent_packets, "{near:?} {far:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_of_one_node_share_its_socket_and_do_not_mix() {
    needs_tun!();
    let first = Lab::new("192.0.2.0/24").await;
    let second = Lab { underlay: first.underlay, ..Lab::new("192.0.2.0/24").await };
    let first =
        Lab { underlay: nsm_kernel::Underlay::create(1, "198.51.100.0/24".parse().unwrap()).await.unwrap(), ..first };
    let nodes = [second.bind(0).await, second.bind(1).await];
    let mut tunnels = Vec::new();
    for at in [0, 1] {
        tunnels.push(second.tunnel(at, &nodes[at]).await);
        let peering = peering(&first.keys[at], &first.keys[1 - at], second.socket(1 - at));
        tunnels.push(nodes[at].create(&peering, (&first.workloads[at], &spec(at + 1))).await.unwrap());
    }
    assert_eq!((nodes[0].tunnels(), nodes[1].tunnels()), (2, 2));
    for lab in [&first, &second] {
        datagram_and_back(&lab.workloads[0], "10.9.0.1", &lab.workloads[1], "10.9.0.2", 100).await;
    }
    // One of the two ends goes; the other tunnel of its node does not notice.
    let (_interface, closed) = tunnels.pop().unwrap();
    closed.close().await;
    let pinger = Pinger::new(&first.workloads[0]).await.unwrap();
    let silence = std::time::Duration::from_millis(200);
    pinger.ping(ip("10.9.0.1"), ip("10.9.0.2"), silence).await.unwrap_err();
    datagram_and_back(&second.workloads[0], "10.9.0.1", &second.workloads[1], "10.9.0.2", 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_packet_passes_whole_and_on_the_underlay_nothing_is_in_clear() {
    needs_tun!();
    let lab = Lab::new("192.0.2.0/24").await;
    let nodes = [lab.bind(0).await, lab.bind(1).await];
    let capture = Capture::of(lab.place(0)).await;
    let _near = lab.tunnel(0, &nodes[0]).await;
    let _far = lab.tunnel(1, &nodes[1]).await;
    let [a, b] = &lab.workloads;
    // UDP and IP headers make it as large as the interface takes.
    datagram_and_back(a, "10.9.0.1", b, "10.9.0.2", MTU as usize - 28).await;
    let frames = capture.frames();
    assert!(frames.iter().any(|frame| frame.len() == MTU as usize + 14 + 28 + 32), "the largest one was sent whole");
    let readable: Vec<u8> = (0..=255).cycle().take(64).collect();
    for frame in &frames {
        assert!(!frame.windows(readable.len()).any(|window| window == readable), "content in clear");
        // UDP over IPv4, from and to the node's port, and one of WireGuard's four types.
        let udp = frame.get(34..).filter(|_| frame[12..14] == [8, 0] && frame[23] == 17);
        if let Some(udp) = udp {
            assert_eq!((&udp[..2], &udp[2..4]), (&PORT.to_be_bytes()[..], &PORT.to_be_bytes()[..]));
            assert!(matches!(udp[8..12], [1..=4, 0, 0, 0]), "{:?}", &udp[8..12]);
        }
    }
    let wireguard = frames.iter().filter(|frame| frame[12..14] == [8, 0] && frame[23] == 17).count();
    assert!(wireguard >= 4, "a handshake and packets both ways: {wireguard}");
}

/// All frames that a node sends and receives, as the kernel keeps them until they are asked for.
struct Capture(std::os::fd::OwnedFd);

impl Capture {
    async fn of(place: &nsm_kernel::Netns) -> Self {
        use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};
        // All protocols (ETH_P_ALL), which the kernel takes in network byte order.
        let all = Protocol::from_raw(std::num::NonZeroU32::new(u32::from(3_u16.to_be())).unwrap());
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let open = move || -> std::io::Result<_> {
            Ok(socket_with(AddressFamily::PACKET, SocketType::RAW, flags, Some(all))?)
        };
        Self(place.run(open).await.unwrap())
    }

    fn frames(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = vec![0; 65_536];
        while let Ok(length) = rustix::io::read(&self.0, &mut buffer) {
            frames.push(buffer[..length].to_vec());
        }
        frames
    }
}
