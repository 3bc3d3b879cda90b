//! What the tests share.

use std::{net::IpAddr, time::Duration};

use nsm_kernel::{Census, InterfaceSpec, Netns, PeerNeighbours, VethWire};

pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Leaves the test, saying why, where namespaces cannot be made.
#[macro_export]
macro_rules! needs_net_admin {
    () => {
        if let Some(obstacle) = nsm_kernel::privileges().obstacle {
            $crate::common::skipped(&obstacle);
            return;
        }
    };
}

/// Says so past the test harness, which hides what a passing test prints: a skipped test must not look like one
/// that passed.
pub(crate) fn skipped(why: &dyn std::fmt::Display) {
    use std::io::Write;
    let test = std::thread::current();
    let text = format!("SKIPPED {}: {why}\n", test.name().unwrap_or_default());
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}

/// Not in the system's first user namespace, in which every user is mapped to itself.
pub(crate) fn in_a_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn spec(name: &str, mark: &str) -> InterfaceSpec {
    InterfaceSpec::new(name, mark).unwrap()
}

/// Two ends with host addresses of both families and routes to each other, as NSM's point-to-point IPAM
/// hands them out.
pub(crate) fn ends(mark: &str) -> (InterfaceSpec, InterfaceSpec) {
    let end = |name, own: u8, peer: u8| {
        spec(name, mark)
            .with_mtu(1400)
            .with_address(format!("10.0.0.{own}/32").parse().unwrap())
            .with_address(format!("fd00::{own}/128").parse().unwrap())
            .with_route(format!("10.0.0.{peer}/32").parse().unwrap(), None)
            .with_route(format!("fd00::{peer}/128").parse().unwrap(), None)
    };
    (end("nsm-1", 1, 2), end("nsm-2", 2, 1))
}

pub(crate) async fn two_namespaces() -> (Netns, Netns) {
    (Netns::create().await.unwrap(), Netns::create().await.unwrap())
}

pub(crate) async fn wire(a: &Netns, b: &Netns) -> VethWire {
    let (near, far) = ends("nsm:test");
    VethWire::create((a, &near), (b, &far), PeerNeighbours::Permanent).await.unwrap()
}

/// Sends a datagram from `from` (in `a`) to a socket on `to` (in `b`), which answers; checks both.
pub(crate) async fn datagram_and_back(a: &Netns, from: &str, b: &Netns, to: &str, size: usize) {
    let server = b.udp_socket((ip(to), 0).into()).await.unwrap();
    let client = a.udp_socket((ip(from), 0).into()).await.unwrap();
    let mut buffer = vec![0; 65_536];
    let exchange = async {
        client.send_to(&vec![7; size], server.local_addr().unwrap()).await.unwrap();
        let (length, peer) = server.recv_from(&mut buffer).await.unwrap();
        assert_eq!((length, peer), (size, client.local_addr().unwrap()));
        server.send_to(&buffer[..length], peer).await.unwrap();
        let (length, peer) = client.recv_from(&mut buffer).await.unwrap();
        assert_eq!((length, peer), (size, server.local_addr().unwrap()));
    };
    tokio::time::timeout(PATIENCE, exchange).await.expect("packets flow");
}

pub(crate) async fn mtu(netns: &Netns, interface: &str) -> u32 {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/mtu");
    netns.run(move || std::fs::read_to_string(path)).await.unwrap().trim().parse().unwrap()
}

/// Censuses of several namespaces, to compare with later.
pub(crate) struct Before(Vec<(Netns, Census)>);

impl Before {
    pub(crate) async fn of(namespaces: &[&Netns]) -> Self {
        let mut all = Vec::new();
        for netns in namespaces {
            all.push(((*netns).clone(), Census::take(netns).await.unwrap()));
        }
        Self(all)
    }

    pub(crate) async fn assert_nothing_changed(&self) {
        for (netns, before) in &self.0 {
            let diff = before.diff(&Census::take(netns).await.unwrap());
            assert!(diff.is_empty(), "{diff}");
        }
    }

    pub(crate) async fn is_unchanged(&self) -> bool {
        for (netns, before) in &self.0 {
            if !before.diff(&Census::take(netns).await.unwrap()).is_empty() {
                return false;
            }
        }
        true
    }
}
