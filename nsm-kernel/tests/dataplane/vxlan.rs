use nsm_kernel::{Error, Interface, Netns, Pinger, Underlay, VxlanTunnel};

use crate::{common::*, needs_net_admin};

fn tunnel(vni: u32, underlay: &Underlay, from: usize) -> VxlanTunnel {
    let nodes = underlay.nodes();
    let (local, remote) = (nodes[from].ip(), nodes[1 - from].ip());
    VxlanTunnel { vni, local, remote, port: 4789, remote_port: 4789, ttl: Some(64) }
}

async fn remote_wire(vni: u32, underlay: &Underlay, a: &Netns, b: &Netns) -> (Interface, Interface) {
    let (near, far) = ends("nsm:test");
    let nodes = underlay.nodes();
    let near = tunnel(vni, underlay, 0).create(&nodes[0].netns, (a, &near)).await.unwrap();
    let far = tunnel(vni, underlay, 1).create(&nodes[1].netns, (b, &far)).await.unwrap();
    (near, far)
}

#[tokio::test]
async fn a_tunnel_between_two_nodes_carries_packets_and_leaves_nothing() {
    needs_net_admin!();
    for prefix in ["192.168.7.0/24", "fd07::/64"] {
        let underlay = Underlay::create(2, prefix.parse().unwrap()).await.unwrap();
        let nodes = underlay.nodes();
        let (a, b) = two_namespaces().await;
        let before = Before::of(&[&a, &b, &nodes[0].netns, &nodes[1].netns, underlay.hub()]).await;
        let (near, far) = remote_wire(4242, &underlay, &a, &b).await;
        for (from, to) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            datagram_and_back(&a, from, &b, to, 1000).await;
            datagram_and_back(&b, to, &a, from, 4000).await;
        }
        assert_eq!(mtu(&a, "nsm-1").await, 1400);
        // Deterministic hardware addresses on both sides make permanent neighbours possible.
        let mut near = near;
        let spec = near.spec().clone().with_neighbour(ip("10.0.0.2"), far.mac());
        assert_eq!(near.update(&spec).await.unwrap().writes, 1);
        datagram_and_back(&a, "10.0.0.1", &b, "10.0.0.2", 100).await;
        assert!(near.delete().await.unwrap());
        assert!(far.delete().await.unwrap());
        before.assert_nothing_changed().await;
    }
}

/// Wires from one node to two others, both of the same number.
async fn insisting(underlay: &Underlay, number: u32) -> [((Netns, Interface), (Netns, Interface)); 2] {
    let nodes = underlay.nodes();
    let wire = async |to: usize| {
        let (a, b) = two_namespaces().await;
        let (near, far) = ends("nsm:test");
        let there = VxlanTunnel { local: nodes[0].ip(), remote: nodes[to].ip(), ..tunnel(number, underlay, 0) };
        let back = VxlanTunnel { local: there.remote, remote: there.local, ..there };
        let near = there.create(&nodes[0].netns, (&a, &near)).await.unwrap();
        let far = back.create(&nodes[to].netns, (&b, &far)).await.unwrap();
        ((a, near), (b, far))
    };
    [wire(1).await, wire(2).await]
}

#[tokio::test]
async fn two_nodes_that_insist_on_one_number_are_served_and_kept_apart() {
    needs_net_admin!();
    for prefix in ["192.168.7.0/24", "fd07::/64"] {
        let underlay = Underlay::create(3, prefix.parse().unwrap()).await.unwrap();
        let node = &underlay.nodes()[0].netns;
        let before = Before::of(&[node]).await;
        let wires = insisting(&underlay, 7).await;
        // The same addresses on both: what went astray would be answered by the other one.
        for ((a, _), (b, _)) in &wires {
            datagram_and_back(a, "10.0.0.1", b, "10.0.0.2", 1000).await;
            datagram_and_back(b, "fd00::2", a, "fd00::1", 4000).await;
        }
        let [((a1, near1), (b1, _)), ((a2, near2), (b2, far2))] = &wires;
        far2.delete().await.unwrap();
        if prefix.contains('.') {
            // Over IPv4 the other node may leave out checksums, as VPP does.
            let node = underlay.nodes()[2].netns.path();
            let script = format!(
                "nsenter --net={} ip link add plain netns $$ type vxlan id 7 local {} remote {} dstport 4789 noudpcsum &&
                 ip address add 10.0.0.2/24 dev plain && ip link set plain up",
                node.display(),
                underlay.nodes()[2].ip(),
                underlay.nodes()[0].ip()
            );
            let made = b2.run(move || std::process::Command::new("sh").args(["-c", &script]).status()).await.unwrap();
            assert!(made.success());
            datagram_and_back(b2, "10.0.0.2", a2, "10.0.0.1", 1000).await;
            let gone =
                b2.run(|| std::process::Command::new("ip").args(["link", "del", "plain"]).status()).await.unwrap();
            assert!(gone.success());
        }
        let silence = std::time::Duration::from_millis(200);
        Pinger::new(a2).await.unwrap().ping(ip("10.0.0.1"), ip("10.0.0.2"), silence).await.unwrap_err();
        datagram_and_back(a1, "10.0.0.1", b1, "10.0.0.2", 100).await;
        for (near, to) in [(near1, 1), (near2, 2)] {
            near.delete().await.unwrap();
            let remote = underlay.nodes()[to].ip();
            VxlanTunnel { remote, ..tunnel(7, &underlay, 0) }.release(node).await.unwrap();
        }
        before.assert_nothing_changed().await;
    }
}

#[tokio::test]
async fn a_detour_that_somebody_cuts_is_found_and_mended_and_a_former_one_is_in_nobodys_way() {
    needs_net_admin!();
    let underlay = Underlay::create(3, "192.168.7.0/24".parse().unwrap()).await.unwrap();
    let node = &underlay.nodes()[0].netns;
    let [((_, near1), _), ((a2, near2), (b2, _))] = insisting(&underlay, 7).await;
    let second = VxlanTunnel { remote: underlay.nodes()[2].ip(), ..tunnel(7, &underlay, 0) };
    let at = (&a2, near2.spec());
    assert_eq!(VxlanTunnel::lost(node).await.unwrap(), []);
    assert!(!second.mend(node, at).await.unwrap());
    // As if the rules of a packet filter were loaded anew.
    second.release(node).await.unwrap();
    let silence = std::time::Duration::from_millis(200);
    Pinger::new(&a2).await.unwrap().ping(ip("10.0.0.1"), ip("10.0.0.2"), silence).await.unwrap_err();
    assert!(second.mend(node, at).await.unwrap());
    datagram_and_back(&a2, "10.0.0.1", &b2, "10.0.0.2", 100).await;

    // The device goes and its detour stays; then there is room on the common port.
    near1.delete().await.unwrap();
    near2.delete().await.unwrap();
    let again = second.create(node, at).await.unwrap();
    datagram_and_back(&a2, "10.0.0.1", &b2, "10.0.0.2", 100).await;
    again.delete().await.unwrap();
}

#[tokio::test]
async fn a_port_that_another_program_has_is_no_obstacle() {
    needs_net_admin!();
    let underlay = Underlay::create(2, "192.168.7.0/24".parse().unwrap()).await.unwrap();
    let nodes = underlay.nodes();
    let _theirs =
        nodes[0].netns.udp_socket(("0.0.0.0".parse::<std::net::IpAddr>().unwrap(), 4789).into()).await.unwrap();
    let (a, b) = two_namespaces().await;
    let (near, far) = remote_wire(9, &underlay, &a, &b).await;
    datagram_and_back(&a, "10.0.0.1", &b, "10.0.0.2", 1000).await;
    near.delete().await.unwrap();
    far.delete().await.unwrap();
}

#[tokio::test]
async fn a_number_that_all_have_is_told_and_can_be_used_again_later() {
    needs_net_admin!();
    let underlay = Underlay::create(2, "192.168.7.0/24".parse().unwrap()).await.unwrap();
    let node = &underlay.nodes()[0].netns;
    let (a, b) = two_namespaces().await;
    let (near, _) = ends("nsm:test");
    let before = Before::of(&[&a, &b, node]).await;
    let mut made = Vec::new();
    let error = loop {
        let remote = format!("192.168.7.{}", 100 + made.len());
        let tunnel = VxlanTunnel { remote: ip(&remote), ..tunnel(7, &underlay, 0) };
        let spec = spec(&format!("nsm-{}", made.len()), "nsm:test");
        match tunnel.create(node, (&a, &spec)).await {
            Ok(interface) => made.push((tunnel, interface)),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::VniInUse { vni: 7, netns, .. } if netns == node.id()), "{error}");
    assert_eq!(made.len(), 17);
    let error = tunnel(8, &underlay, 0).create(node, (&a, made[0].1.spec())).await.unwrap_err();
    assert!(matches!(error, Error::NameTaken { .. }), "{error}");
    for (tunnel, interface) in made {
        interface.delete().await.unwrap();
        tunnel.release(node).await.unwrap();
    }
    before.assert_nothing_changed().await;
    let again = tunnel(7, &underlay, 0).create(node, (&b, &near)).await.unwrap();
    assert!(again.delete().await.unwrap());
}

async fn ip_in(netns: &Netns, arguments: &str) {
    let words: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
    let done = netns.run(move || std::process::Command::new("ip").args(words).output()).await.unwrap();
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test]
async fn an_underlay_that_cannot_carry_the_tunnel_is_told_with_what_it_lacks() {
    needs_net_admin!();
    for (prefix, overhead) in [("192.168.7.0/24", 50), ("fd07::/64", 70)] {
        let underlay = Underlay::create(2, prefix.parse().unwrap()).await.unwrap();
        let node = &underlay.nodes()[0];
        let (a, _) = two_namespaces().await;
        let before = Before::of(&[&a, &node.netns]).await;
        let wanted = spec("nsm-1", "nsm:test").with_mtu(1500 - overhead);
        let tunnel = tunnel(7, &underlay, 0);
        tunnel.create(&node.netns, (&a, &wanted)).await.unwrap().delete().await.unwrap();
        let error = tunnel.create(&node.netns, (&a, &wanted.clone().with_mtu(1501 - overhead))).await.unwrap_err();
        assert!(matches!(error, Error::UnderlayTooNarrow { outer: 1501, underlay: 1500, .. }), "{error}");
        before.assert_nothing_changed().await;

        ip_in(&node.netns, "link set uplink down").await;
        let error = tunnel.create(&node.netns, (&a, &wanted)).await.unwrap_err();
        assert!(matches!(error, Error::NoUnderlay { .. }), "{error}");
        ip_in(&node.netns, "link set uplink up").await;
        ip_in(&node.netns, "address flush dev uplink").await;
        let error = tunnel.create(&node.netns, (&a, &wanted)).await.unwrap_err();
        assert!(error.to_string().contains(&tunnel.local.to_string()), "{error}");
    }
}

#[tokio::test]
async fn an_underlay_that_was_down_carries_the_tunnel_again() {
    needs_net_admin!();
    for prefix in ["192.168.7.0/24", "fd07::/64"] {
        let underlay = Underlay::create(2, prefix.parse().unwrap()).await.unwrap();
        let node = &underlay.nodes()[0];
        let (a, b) = two_namespaces().await;
        let _wire = remote_wire(7, &underlay, &a, &b).await;
        datagram_and_back(&a, "10.0.0.1", &b, "10.0.0.2", 100).await;
        let pinger = Pinger::new(&a).await.unwrap();
        let answers = async |within| pinger.ping(ip("10.0.0.1"), ip("10.0.0.2"), within).await.is_ok();
        ip_in(&node.netns, "link set uplink down").await;
        assert!(!answers(std::time::Duration::from_millis(200)).await);
        ip_in(&node.netns, "link set uplink up").await;
        // IPv6 addresses go with the link.
        ip_in(&node.netns, &format!("address replace {} dev uplink nodad", node.address)).await;
        let until = tokio::time::Instant::now() + PATIENCE;
        while !answers(std::time::Duration::from_millis(50)).await {
            assert!(tokio::time::Instant::now() < until, "over {prefix}");
        }
    }
}

#[tokio::test]
async fn who_may_not_make_a_tunnel_is_told_which_capability_is_missing() {
    needs_net_admin!();
    const CHILD: &str = "NSM_TEST_WITHOUT_NET_ADMIN";
    if std::env::var_os(CHILD).is_some() {
        let here = Netns::current().unwrap();
        let (local, remote) = (ip("127.0.0.1"), ip("127.0.0.2"));
        let tunnel = VxlanTunnel { vni: 7, local, remote, port: 4789, remote_port: 4789, ttl: None };
        let error = tunnel.create(&here, (&here, &spec("nsm-1", "nsm:test"))).await.unwrap_err();
        assert!(matches!(error, Error::NoPrivileges { .. }), "{error}");
        assert!(error.to_string().contains("this process lacks CAP_NET_ADMIN:"), "{error}");
        return;
    }
    // In a namespace of its own, of which only loopback is up.
    let netns = Netns::create().await.unwrap();
    let name = "vxlan::who_may_not_make_a_tunnel_is_told_which_capability_is_missing";
    let mut child = std::process::Command::new("setpriv");
    child.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin", "--ambient-caps=-all"]);
    child.arg(std::env::current_exe().unwrap()).args([name, "--exact"]).env(CHILD, "1");
    let done = match netns.run(move || child.output()).await {
        Ok(done) => done,
        Err(error) => return skipped(&error),
    };
    assert!(
        done.status.success(),
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(String::from_utf8_lossy(&done.stdout).contains("1 passed"));
}

#[tokio::test]
async fn tunnels_of_different_vnis_do_not_mix() {
    needs_net_admin!();
    let underlay = Underlay::create(2, "192.168.7.0/24".parse().unwrap()).await.unwrap();
    let (a1, b1) = two_namespaces().await;
    let (a2, b2) = two_namespaces().await;
    let first = remote_wire(1, &underlay, &a1, &b1).await;
    let _second = remote_wire(2, &underlay, &a2, &b2).await;
    datagram_and_back(&a1, "10.0.0.1", &b1, "10.0.0.2", 100).await;
    datagram_and_back(&a2, "10.0.0.1", &b2, "10.0.0.2", 100).await;
    first.1.delete().await.unwrap();
    let pinger = Pinger::new(&a1).await.unwrap();
    let silence = std::time::Duration::from_millis(200);
    pinger.ping(ip("10.0.0.1"), ip("10.0.0.2"), silence).await.unwrap_err();
    datagram_and_back(&a2, "10.0.0.1", &b2, "10.0.0.2", 100).await;
}

#[tokio::test]
async fn a_tunnel_that_cannot_be_is_refused_before_anything_is_made() {
    needs_net_admin!();
    let (node, workload) = two_namespaces().await;
    let (local, remote) = (ip("10.1.1.1"), ip("10.1.1.2"));
    let good = VxlanTunnel { vni: 1, local, remote, port: 4789, remote_port: 4789, ttl: None };
    for bad in [
        VxlanTunnel { vni: 1 << 24, ..good },
        VxlanTunnel { remote: ip("fd00::1"), ..good },
        VxlanTunnel { remote: ip("0.0.0.0"), ..good },
        VxlanTunnel { remote: ip("224.0.0.1"), ..good },
        VxlanTunnel { port: 0, ..good },
        VxlanTunnel { remote_port: 0, ..good },
    ] {
        let error = bad.create(&node, (&workload, &spec("nsm-1", "x"))).await.unwrap_err();
        assert!(matches!(error, Error::InvalidSpec { .. }), "{bad:?}: {error}");
    }
}
