//! Hosts in VLANs of a network outside.

use std::{
    io::{Read, Write},
    time::Duration,
};

use nsm_kernel::{Error, InterfaceSpec, Netns, PeerNeighbours, Pinger, Snapshot, VethWire, VlanPort};

use crate::{
    common::{Before, PATIENCE, datagram_and_back, ip, skipped, spec},
    needs_net_admin,
};

/// Programs may not be loaded in a user namespace.
macro_rules! needs_bpf {
    () => {
        needs_net_admin!();
        if VlanPort::allowed().is_err() {
            skipped(&"BPF programs are for root of the system");
            return;
        }
    };
}

/// A node whose uplink leads to the other node's, with addresses of its own there.
async fn nodes() -> [Netns; 2] {
    let [a, b] = [Netns::create().await.unwrap(), Netns::create().await.unwrap()];
    let end = |address: &str| spec("up", "test").with_address(address.parse().unwrap());
    let ends = (end("192.0.2.1/24"), end("192.0.2.2/24"));
    VethWire::create((&a, &ends.0), (&b, &ends.1), PeerNeighbours::Learned).await.unwrap();
    [a, b]
}

struct Host {
    netns: Netns,
    wire: VethWire,
    ends: (InterfaceSpec, InterfaceSpec),
}

impl Host {
    /// The host of this number on a node, 10.0.0.<number>.
    async fn new(node: &Netns, vlan: u16, number: u8) -> Self {
        Self::made(node, vlan, number).await.unwrap()
    }

    async fn made(node: &Netns, vlan: u16, number: u8) -> Result<Self, Error> {
        let netns = Netns::create().await?;
        let mac = [2, 0, 0, 0, 0, number];
        let inside = spec("nsm-1", "nsm:host")
            .with_mac(mac)
            .with_mtu(1500)
            .with_address(format!("10.0.0.{number}/24").parse().unwrap())
            .with_address(format!("fd00::{number}/64").parse().unwrap());
        let port = VlanPort { uplink: "up".parse().unwrap(), id: vlan, mac: Some(mac) };
        let port = spec(&format!("port-{number}"), "nsm:port").with_mtu(1500).into_vlan(port);
        let wire = VethWire::create((&netns, &inside), (node, &port), PeerNeighbours::Learned).await?;
        Ok(Self { netns, wire, ends: (inside, port) })
    }

    async fn gone(&self, node: &Netns) {
        self.wire.delete().await.unwrap();
        let vlan = self.ends.1.vlan.as_ref().unwrap();
        VlanPort::release(&vlan.uplink, node, &self.ends.1.name).await.unwrap();
    }
}

/// What `tc` says of the uplink's filters.
async fn filters(node: &Netns, device: &'static str) -> String {
    let listed =
        node.run(move || std::process::Command::new("tc").args(["filter", "show", "dev", device, "ingress"]).output());
    String::from_utf8(listed.await.unwrap().stdout).unwrap()
}

async fn reaches(from: &Host, to: &str) -> bool {
    within(from, to, PATIENCE).await
}

async fn does_not_reach(from: &Host, to: &str) -> bool {
    !within(from, to, Duration::from_millis(300)).await
}

async fn within(from: &Host, to: &str, patience: Duration) -> bool {
    let pinger = Pinger::new(&from.netns).await.unwrap();
    let own = if ip(to).is_ipv4() { "0.0.0.0" } else { "::" };
    pinger.ping(ip(own), ip(to), patience).await.is_ok()
}

#[tokio::test]
async fn hosts_of_one_vlan_reach_each_other_through_the_network_outside_and_nobody_else() {
    needs_bpf!();
    let [a, b] = nodes().await;
    let before = Before::of(&[&a, &b]).await;
    for vlan in [100, 0, 4094] {
        let (near, far, other) =
            (Host::new(&a, vlan, 1).await, Host::new(&b, vlan, 2).await, Host::new(&b, 7, 3).await);
        for (from, to) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            for size in [1, 1400] {
                datagram_and_back(&near.netns, from, &far.netns, to, size).await;
                datagram_and_back(&far.netns, to, &near.netns, from, size).await;
            }
        }
        assert!(
            does_not_reach(&near, "10.0.0.3").await && does_not_reach(&other, "fd00::1").await,
            "VLAN 7 is another than {vlan}"
        );
        // The node's own packets pass as before.
        datagram_and_back(&a, "192.0.2.1", &b, "192.0.2.2", 1472).await;
        assert!(does_not_reach(&near, "192.0.2.2").await, "a host is not in the node's network");
        for (host, node) in [(&near, &a), (&far, &b), (&other, &b)] {
            host.gone(node).await;
        }
        before.assert_nothing_changed().await;
        assert_eq!(filters(&a, "up").await, "");
    }
}

#[tokio::test]
async fn a_stream_at_full_speed_passes_whole() {
    needs_bpf!();
    let [a, b] = nodes().await;
    let (near, far) = (Host::new(&a, 100, 1).await, Host::new(&b, 100, 2).await);
    let listener = far.netns.run(|| std::net::TcpListener::bind("10.0.0.2:0")).await.unwrap();
    let to = listener.local_addr().unwrap();
    let stream = near.netns.run(move || std::net::TcpStream::connect(to)).await.unwrap();
    const LENGTH: usize = 16 << 20;
    let octet = |at: usize| (at * 7 + at / 251) as u8;
    let sender = tokio::task::spawn_blocking(move || {
        let all: Vec<u8> = (0..LENGTH).map(octet).collect();
        (&stream).write_all(&all).unwrap();
    });
    let receiver = tokio::task::spawn_blocking(move || {
        let mut all = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut all).unwrap();
        all.len() == LENGTH && all.iter().enumerate().all(|(at, found)| *found == octet(at))
    });
    let received = async {
        sender.await.unwrap();
        receiver.await.unwrap()
    };
    assert!(tokio::time::timeout(PATIENCE * 4, received).await.expect("a stream that flows"));
}

#[tokio::test]
async fn what_is_damaged_is_seen_and_put_right() {
    needs_bpf!();
    let [a, b] = nodes().await;
    let (near, _far) = (Host::new(&a, 100, 1).await, Host::new(&b, 100, 2).await);
    let port = &near.ends.1;
    let shows = async || {
        Snapshot::take(&a).await.unwrap().shows(port) && Snapshot::of(&a, &port.name).await.unwrap().shows(port)
    };
    for damage in [
        "tc filter del dev up ingress",
        "tc filter del dev port-1 ingress",
        "tc filter del dev port-1 egress",
        "tc qdisc del dev up clsact",
    ] {
        assert!(shows().await && reaches(&near, "10.0.0.2").await, "before {damage}");
        assert_eq!(nsm_kernel::reconcile(&a, port).await.unwrap().writes, 0, "nothing to do before {damage}");
        let done = a.run(move || std::process::Command::new("sh").args(["-c", damage]).status()).await.unwrap();
        assert!(done.success() && !shows().await, "{damage}");
        assert!(nsm_kernel::reconcile(&a, port).await.unwrap().writes > 0, "{damage}");
    }
    assert!(shows().await && reaches(&near, "10.0.0.2").await);
}

#[tokio::test]
async fn a_host_may_get_another_hardware_address() {
    needs_bpf!();
    let [a, b] = nodes().await;
    let (mut near, _far) = (Host::new(&a, 100, 1).await, Host::new(&b, 100, 2).await);
    let (mut inside, mut port) = near.ends.clone();
    let mac = [2, 0, 0, 0, 0, 9];
    inside.mac = Some(mac);
    port.vlan.as_mut().unwrap().mac = Some(mac);
    assert!(near.wire.update(&inside, &port).await.unwrap().writes > 0);
    let announced = near.wire.a().announce().await;
    assert!(announced.is_ok() && reaches(&near, "10.0.0.2").await);
}

#[tokio::test]
async fn what_leads_to_ports_that_are_gone_is_swept_and_other_filters_stay() {
    needs_bpf!();
    let [a, b] = nodes().await;
    let (left, stays, _far) = (Host::new(&a, 100, 1).await, Host::new(&a, 100, 4).await, Host::new(&b, 100, 2).await);
    // As if a forwarder and its workload had ended together.
    left.wire.delete().await.unwrap();
    assert!(filters(&a, "up").await.contains("port-1"));
    let up = "up".parse().unwrap();
    assert_eq!(VlanPort::sweep(&a, &up).await.unwrap(), 1);
    assert!(!filters(&a, "up").await.contains("port-1"));
    assert!(reaches(&stays, "10.0.0.2").await);
    assert_eq!(VlanPort::sweep(&a, &up).await.unwrap(), 0);
}

#[tokio::test]
async fn an_uplink_that_cannot_be_used_is_an_error_that_says_why_and_nothing_is_left() {
    needs_bpf!();
    let [a, _b] = nodes().await;
    let node = Netns::create().await.unwrap();
    let before = Before::of(&[&a, &node]).await;
    let error = Host::made(&node, 100, 1).await.err().unwrap();
    assert!(matches!(error, Error::Uplink { .. }) && error.to_string().contains("it is not there"), "{error}");
    let error = Host::made(&a, 4095, 1).await.err().unwrap();
    assert!(error.to_string().contains("the last one is 4094"), "{error}");
    before.assert_nothing_changed().await;
    let narrow =
        a.run(|| std::process::Command::new("ip").args(["link", "set", "dev", "up", "mtu", "1400"]).status()).await;
    assert!(narrow.unwrap().success());
    let error = Host::made(&a, 100, 1).await.err().unwrap();
    assert!(error.to_string().contains("takes packets of 1400 octets, and 1500"), "{error}");
    let down = a.run(|| std::process::Command::new("ip").args(["link", "set", "dev", "up", "down"]).status()).await;
    assert!(down.unwrap().success());
    let error = Host::made(&a, 100, 1).await.err().unwrap();
    assert!(error.to_string().contains("it is down"), "{error}");
    assert_eq!(filters(&a, "up").await, "");
}
