use std::time::Duration;

use nsm_kernel::{Census, Interface};
use nsm_wireguard::{Error, Node, PrivateKey, Reason};

use crate::{common::*, needs_tun};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A process of its own, so that descriptors and tasks of other tests do not count.
fn alone(test: &str) -> bool {
    if std::env::var("NSM_ALONE").as_deref() == Ok(test) {
        return true;
    }
    let ended = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("lifecycle::{test}"), "--nocapture"])
        .env("NSM_ALONE", test)
        .status()
        .unwrap();
    assert!(ended.success());
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn close_leaves_no_interface_no_task_and_no_descriptor() {
    needs_tun!();
    if !alone("close_leaves_no_interface_no_task_and_no_descriptor") {
        return;
    }
    let lab = Lab::new("192.0.2.0/24").await;
    let runtime = tokio::runtime::Handle::current();
    let mut before = Vec::new();
    for netns in [&lab.workloads[0], &lab.workloads[1], lab.place(0), lab.place(1)] {
        before.push((netns, Census::take(netns).await.unwrap()));
    }
    let mut counted = None;
    // What the first turn leaves, such as threads for kernel work, is there for good; the second must leave no more.
    for _ in 0..3 {
        let nodes = [lab.bind(0).await, lab.bind(1).await];
        let (near, near_tunnel) = lab.tunnel(0, &nodes[0]).await;
        let (far, far_tunnel) = lab.tunnel(1, &nodes[1]).await;
        datagram_and_back(&lab.workloads[0], "10.9.0.1", &lab.workloads[1], "10.9.0.2", 100).await;
        near_tunnel.close().await;
        far_tunnel.close().await;
        assert!(near.delete().await.unwrap() && far.delete().await.unwrap());
        assert_eq!((nodes[0].tunnels(), nodes[1].tunnels()), (0, 0));
        drop(nodes);
        eventually("no task is left", async || runtime.metrics().num_alive_tasks() == 0).await;
        let now = descriptors();
        assert_eq!(*counted.get_or_insert(now), now, "descriptors");
    }
    for (netns, before) in before {
        let diff = before.diff(&Census::take(netns).await.unwrap());
        assert!(diff.is_empty(), "{diff}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_outlives_its_tunnel_and_is_taken_up_with_new_keys() {
    needs_tun!();
    let mut lab = Lab::new("192.0.2.0/24").await;
    let nodes = [lab.bind(0).await, lab.bind(1).await];
    let (_far, far_tunnel) = lab.tunnel(1, &nodes[1]).await;
    let (near, near_tunnel) = lab.tunnel(0, &nodes[0]).await;
    let [a, b] = lab.workloads.clone();
    datagram_and_back(&a, "10.9.0.1", &b, "10.9.0.2", 100).await;
    // The process of the first node is gone, and with it socket, keys and sessions.
    near_tunnel.close().await;
    let [first, second] = nodes;
    drop(first);
    let address = lab.socket(0);
    let mut again = None;
    eventually("the port is free", async || {
        again = Node::bind(lab.place(0), address).await.ok();
        again.is_some()
    })
    .await;
    let found = Interface::adopt(&a, near.spec()).await.unwrap().expect("the interface is still there");
    lab.keys[0] = PrivateKey::generate().unwrap();
    let _taken_up = again.as_ref().unwrap().attach(&lab.peering(0), &found).await.unwrap();
    far_tunnel.close().await;
    let _far_again = second.attach(&lab.peering(1), &_far).await.unwrap();
    datagram_and_back(&a, "10.9.0.1", &b, "10.9.0.2", 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_deleted_by_hand_ends_its_task_only() {
    needs_tun!();
    let lab = Lab::new("192.0.2.0/24").await;
    let nodes = [lab.bind(0).await, lab.bind(1).await];
    let (near, tunnel) = lab.tunnel(0, &nodes[0]).await;
    let (_far, _far_tunnel) = lab.tunnel(1, &nodes[1]).await;
    let [a, b] = &lab.workloads;
    datagram_and_back(a, "10.9.0.1", b, "10.9.0.2", 100).await;
    assert!(near.delete().await.unwrap());
    // What still arrives for it is dropped, and counted.
    let socket = b.udp_socket((ip("10.9.0.2"), 0).into()).await.unwrap();
    eventually("a packet without an interface is counted", async || {
        socket.send_to(b"hello", (ip("10.9.0.1"), 9)).await.unwrap();
        tunnel.dropped(Reason::Interface) > 0
    })
    .await;
    tunnel.close().await;
    let (_near, _tunnel) = lab.tunnel(0, &nodes[0]).await;
    datagram_and_back(a, "10.9.0.1", b, "10.9.0.2", 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_tunnel_is_refused_and_nothing_is_made() {
    needs_tun!();
    let lab = Lab::new("192.0.2.0/24").await;
    let node = lab.bind(0).await;
    let before = Census::take(&lab.workloads[0]).await.unwrap();
    let good = lab.peering(0);
    let zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse().unwrap();
    let refused = async |peering| node.create(&peering, (&lab.workloads[0], &spec(1))).await.unwrap_err();
    for endpoint in ["[fd00::1]:51820", "0.0.0.0:51820", "224.0.0.1:51820", "192.0.2.2:0"] {
        let mut bad = good.clone();
        bad.endpoint = endpoint.parse().unwrap();
        assert!(matches!(refused(bad).await, Error::Unreachable { .. }), "{endpoint}");
    }
    let mut bad = good.clone();
    bad.peer = zero;
    assert!(matches!(refused(bad).await, Error::WeakKey));
    let mut bad = good.clone();
    bad.peer = good.private_key.public_key();
    assert!(matches!(refused(bad).await, Error::OwnKey));
    let diff = before.diff(&Census::take(&lab.workloads[0]).await.unwrap());
    assert!(diff.is_empty(), "{diff}");

    let (taken, _tunnel) = lab.tunnel(0, &node).await;
    let error = refused(good.clone()).await;
    assert!(matches!(&error, Error::Kernel(nsm_kernel::Error::NameTaken { .. })), "{error}");
    let error = node.attach(&good, &taken).await.unwrap_err();
    assert!(matches!(error, Error::Device { .. }), "{error}");
    let error = Node::bind(lab.place(0), lab.socket(0)).await.unwrap_err();
    assert!(matches!(error, Error::Kernel(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_whose_peer_comes_later_comes_up_by_itself() {
    needs_tun!();
    let lab = Lab::new("192.0.2.0/24").await;
    let first = lab.bind(0).await;
    let (_near, near) = lab.tunnel(0, &first).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(near.stats().handshake_age, None);
    let second = lab.bind(1).await;
    let (_far, _far_tunnel) = lab.tunnel(1, &second).await;
    // Nobody sends anything: the one that came later begins the handshake.
    eventually("a session", async || near.stats().handshake_age.is_some()).await;
}
