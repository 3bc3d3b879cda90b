use std::fs::File;

use nsm_kernel::{Census, Interface, InterfaceSpec, Item, Netns, PeerNeighbours, Policy, Route, VethWire};
use tokio::net::UdpSocket;

use crate::{common::*, needs_net_admin};

const UDP: u8 = 17;

fn udp_to_port(port: u16) -> Policy {
    Policy {
        from: None,
        proto: Some(UDP),
        dst_ports: Some(port..=port),
        src_ports: None,
        routes: vec![Route { prefix: "192.0.2.1/32".parse().unwrap(), via: Some(ip("10.0.2.2")) }],
    }
}

/// A client with two wires, to a left and a right service that have the same address 192.0.2.1.
struct Fork {
    client: Netns,
    left: Netns,
    right: Netns,
    right_wire: VethWire,
    near: InterfaceSpec,
    far: InterfaceSpec,
}

impl Fork {
    async fn new(policies: Vec<Policy>) -> Self {
        let (client, left) = two_namespaces().await;
        let right = Netns::create().await.unwrap();
        let service = |n: u8| {
            spec("nsm", "nsm:fork")
                .with_address(format!("10.0.{n}.2/32").parse().unwrap())
                .with_address("192.0.2.1/32".parse().unwrap())
                .with_route("10.0.0.0/16".parse().unwrap(), None)
        };
        let near = spec("left", "nsm:fork")
            .with_address("10.0.1.1/32".parse().unwrap())
            .with_route("192.0.2.1/32".parse().unwrap(), Some(ip("10.0.1.2")));
        VethWire::create((&client, &near), (&left, &service(1)), PeerNeighbours::Learned).await.unwrap();
        let near = spec("right", "nsm:fork")
            .with_address("10.0.2.1/32".parse().unwrap())
            .with_route("10.0.2.2/32".parse().unwrap(), None);
        let far = service(2);
        let near = InterfaceSpec { policies, ..near };
        let right_wire = VethWire::create((&client, &near), (&right, &far), PeerNeighbours::Learned).await.unwrap();
        Self { client, left, right, right_wire, near, far }
    }

    /// Which service gets what is sent to a UDP port.
    async fn way_of(&self, port: u16) -> &'static str {
        let sender = self.client.udp_socket((ip("10.0.1.1"), 0).into()).await.unwrap();
        let listen =
            async |netns: &Netns| -> UdpSocket { netns.udp_socket((ip("192.0.2.1"), port).into()).await.unwrap() };
        let (left, right) = (listen(&self.left).await, listen(&self.right).await);
        sender.send_to(b"which way", (ip("192.0.2.1"), port)).await.unwrap();
        let (mut l, mut r) = ([0; 16], [0; 16]);
        let arrival = async {
            tokio::select! {
                _ = left.recv_from(&mut l) => "left",
                _ = right.recv_from(&mut r) => "right",
            }
        };
        tokio::time::timeout(PATIENCE, arrival).await.expect("the datagram arrives somewhere")
    }

    async fn rules(&self) -> usize {
        let census = Census::take(&self.client).await.unwrap();
        let rules =
            census.items.iter().filter(|item| matches!(item, Item::Rule { text } if text.contains("to table 78")));
        rules.count()
    }
}

#[tokio::test]
async fn a_policy_diverts_what_it_selects_and_nothing_else() {
    needs_net_admin!();
    let mut fork = Fork::new(vec![udp_to_port(6000)]).await;
    assert_eq!((fork.way_of(6000).await, fork.way_of(7000).await), ("right", "left"));
    let (near, far) = (fork.near.clone(), fork.far.clone());
    assert_eq!(fork.right_wire.update(&near, &far).await.unwrap().writes, 0);

    let moved = InterfaceSpec { policies: vec![udp_to_port(7000)], ..near };
    fork.right_wire.update(&moved, &far).await.unwrap();
    assert_eq!((fork.way_of(6000).await, fork.way_of(7000).await), ("left", "right"));
    assert_eq!(fork.rules().await, 1);
    let without = InterfaceSpec { policies: vec![], ..moved };
    fork.right_wire.update(&without, &far).await.unwrap();
    assert_eq!(fork.way_of(7000).await, "left");
    assert_eq!(fork.rules().await, 0);
}

#[tokio::test]
async fn policies_by_source_and_without_routes_send_everything_over_the_interface() {
    needs_net_admin!();
    let policy = |from: &str| Policy {
        from: Some(from.parse().unwrap()),
        proto: None,
        dst_ports: None,
        src_ports: None,
        routes: vec![],
    };
    // Without a next hop the service itself must be on the link: its address is.
    let fork = Fork::new(vec![policy("10.0.1.1/32")]).await;
    assert_eq!(fork.way_of(6000).await, "right");
    let fork = Fork::new(vec![policy("10.0.9.9/32"), policy("fd00::1/128")]).await;
    assert_eq!(fork.way_of(6000).await, "left");
    assert_eq!(fork.rules().await, 2);
}

#[tokio::test]
async fn of_two_policies_that_match_the_last_decides() {
    needs_net_admin!();
    let nowhere = Policy {
        dst_ports: None,
        routes: vec![Route { prefix: "192.0.2.1/32".parse().unwrap(), via: Some(ip("10.0.2.77")) }],
        ..udp_to_port(1)
    };
    let fork = Fork::new(vec![nowhere, udp_to_port(6000)]).await;
    assert_eq!(fork.way_of(6000).await, "right");
}

#[tokio::test]
async fn rules_go_with_their_interface_however_it_went() {
    needs_net_admin!();
    let fork = Fork::new(vec![udp_to_port(6000), udp_to_port(6001)]).await;
    assert_eq!(fork.rules().await, 2);
    // The endpoint's namespace loses its end first: the link is gone, the rules are not.
    fork.right_wire.b().delete().await.unwrap();
    assert_eq!(fork.rules().await, 2);
    assert!(!fork.right_wire.delete().await.unwrap());
    assert_eq!(fork.rules().await, 0);
    datagram_and_back(&fork.client, "10.0.1.1", &fork.left, "192.0.2.1", 100).await;
}

#[tokio::test]
async fn after_a_restart_rules_are_found_again_and_removed_with_the_interface() {
    needs_net_admin!();
    let mut fork = Fork::new(vec![udp_to_port(6000)]).await;
    let wanted = fork.right_wire.a().spec().clone();
    // What a process remembers of a namespace goes with its last handle; a bare descriptor keeps the namespace.
    let kept = File::open(fork.client.path()).unwrap();
    let elsewhere = Netns::create().await.unwrap();
    fork.right_wire = wire(&elsewhere, &Netns::create().await.unwrap()).await;
    fork.client = elsewhere;
    let client = Netns::from_fd(kept.into()).unwrap();

    let before = Census::take(&client).await.unwrap();
    let adopted = Interface::adopt(&client, &wanted).await.unwrap().expect("it is ours");
    let diff = before.diff(&Census::take(&client).await.unwrap());
    assert!(diff.is_empty(), "adopting what is right changes nothing: {diff}");
    fork.client = client;
    assert_eq!(fork.way_of(6000).await, "right");
    assert!(adopted.delete().await.unwrap());
    assert_eq!(fork.rules().await, 0);
}

#[tokio::test]
async fn rules_an_earlier_life_left_without_interface_are_removed() {
    needs_net_admin!();
    let fork = Fork::new(vec![udp_to_port(6000)]).await;
    let Fork { client, right_wire, .. } = fork;
    right_wire.b().delete().await.unwrap();
    let kept = File::open(client.path()).unwrap();
    drop((client, right_wire));
    let client = Netns::from_fd(kept.into()).unwrap();
    nsm_kernel::delete_link(&client, "left", "nsm:fork").await.unwrap();
    let census = Census::take(&client).await.unwrap();
    let left: Vec<_> = census.items.iter().map(ToString::to_string).collect();
    assert!(!left.iter().any(|item| item.contains("table 78")), "{left:#?}");
}
