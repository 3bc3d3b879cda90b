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

#[tokio::test]
async fn a_vni_in_use_on_the_node_is_told_and_can_be_used_again_later() {
    needs_net_admin!();
    let underlay = Underlay::create(2, "192.168.7.0/24".parse().unwrap()).await.unwrap();
    let node = &underlay.nodes()[0].netns;
    let (a, b) = two_namespaces().await;
    let (near, _) = ends("nsm:test");
    let first = tunnel(7, &underlay, 0).create(node, (&a, &near)).await.unwrap();
    let before = Before::of(&[&b, node]).await;
    // In another workload, towards another node: still one node, one port.
    let elsewhere = VxlanTunnel { remote: ip("192.168.7.99"), ..tunnel(7, &underlay, 0) };
    let error = elsewhere.create(node, (&b, &near)).await.unwrap_err();
    assert!(matches!(error, Error::VniInUse { vni: 7, port: 4789, netns } if netns == node.id()), "{error}");
    let error = tunnel(8, &underlay, 0).create(node, (&a, &near)).await.unwrap_err();
    assert!(matches!(error, Error::NameTaken { .. }), "{error}");
    before.assert_nothing_changed().await;
    let other_port = VxlanTunnel { port: 4790, remote_port: 4790, ..elsewhere };
    let second = other_port.create(node, (&b, &near)).await.unwrap();
    assert!(second.delete().await.unwrap());
    assert!(first.delete().await.unwrap());
    assert!(elsewhere.create(node, (&b, &near)).await.unwrap().delete().await.unwrap());
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
