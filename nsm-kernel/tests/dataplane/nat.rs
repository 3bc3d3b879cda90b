use nsm_kernel::{Interface, NatRules, Netns, PeerNeighbours, Snapshot, VethWire, delete_link, reconcile};

use crate::{common::*, needs_net_admin};

/// The endpoint, `b`, has these rules at its interface.
async fn translated(a: &Netns, b: &Netns, rules: &[&str]) -> VethWire {
    let (near, far) = ends("nsm:test");
    let near = near.with_route("192.0.2.0/24".parse().unwrap(), Some(ip("10.0.0.2")));
    let far = far.with_nat(NatRules::parse(rules).unwrap());
    VethWire::create((a, &near), (b, &far), PeerNeighbours::Permanent).await.unwrap()
}

/// Sends a datagram to `to` and waits for it at `at`; then the answer must seem to come from `to`.
async fn arrives(a: &Netns, to: &str, b: &Netns, at: &str) {
    let server = b.udp_socket(at.parse().unwrap()).await.unwrap();
    let client = a.udp_socket((ip("10.0.0.1"), 0).into()).await.unwrap();
    client.connect(to).await.unwrap();
    let exchange = async {
        client.send(b"ping").await.unwrap();
        let mut buffer = [0; 16];
        let (_, from) = server.recv_from(&mut buffer).await.unwrap();
        server.send_to(b"pong", from).await.unwrap();
        assert_eq!(client.recv(&mut buffer).await.unwrap(), 4);
        from
    };
    tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| panic!("{to} is not answered by {at}"));
}

async fn is_there(netns: &Netns, wire: &Interface) -> bool {
    Snapshot::take(netns).await.unwrap().shows(wire.spec())
}

#[tokio::test]
async fn what_is_sent_to_one_port_arrives_at_another() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let rules = [
        "-N NSM_PREROUTE",
        "-A NSM_PREROUTE -p udp --dport 1000:1999 -j REDIRECT --to-port 8080",
        "-A NSM_PREROUTE -p udp -m multiport --dports 53,2000:2001 -j DNAT --to-destination 10.0.0.2:9090",
        "-A NSM_PREROUTE -d 192.0.2.0/24 ! -s 10.0.0.9 -j DNAT --to-destination 10.0.0.2",
        "-I PREROUTING 1 -i nsm-2 -j NSM_PREROUTE",
        "-I PREROUTING -p udp --dport 1500 -m comment --comment \"not this one\" -j ACCEPT",
    ];
    let wire = translated(&a, &b, &rules).await;
    arrives(&a, "10.0.0.2:1234", &b, "10.0.0.2:8080").await;
    arrives(&a, "10.0.0.2:53", &b, "10.0.0.2:9090").await;
    arrives(&a, "10.0.0.2:2001", &b, "10.0.0.2:9090").await;
    arrives(&a, "192.0.2.7:4444", &b, "10.0.0.2:4444").await;
    arrives(&a, "10.0.0.2:1500", &b, "10.0.0.2:1500").await;
    wire.delete().await.unwrap();
}

#[tokio::test]
async fn the_source_is_changed_on_the_way_out() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let (near, far) = ends("nsm:test");
    // Another port each time: the kernel remembers what it did with a flow.
    let seen = async |port: u16, rules: &[&str]| {
        let far = far.clone().with_address("10.0.0.9/32".parse().unwrap()).with_nat(NatRules::parse(rules).unwrap());
        let near = near.clone().with_route("10.0.0.0/8".parse().unwrap(), None);
        let wire = VethWire::create((&a, &near), (&b, &far), PeerNeighbours::Learned).await.unwrap();
        let server = a.udp_socket((ip("10.0.0.1"), 7000).into()).await.unwrap();
        let client = b.udp_socket((ip("10.0.0.2"), port).into()).await.unwrap();
        client.send_to(b"x", server.local_addr().unwrap()).await.unwrap();
        let received = tokio::time::timeout(PATIENCE, server.recv_from(&mut [0; 8])).await;
        let from = received.expect("packets flow").unwrap().1;
        wire.delete().await.unwrap();
        from.to_string()
    };
    assert_eq!(seen(6001, &[]).await, "10.0.0.2:6001");
    assert_eq!(seen(6002, &["-A POSTROUTING -o nsm-2 -j SNAT --to-source 10.0.0.9"]).await, "10.0.0.9:6002");
    let ports = "-A POSTROUTING -p udp -o nsm+ -j SNAT --to-source 10.0.0.9:777-777";
    assert_eq!(seen(6003, &[ports]).await, "10.0.0.9:777");
    let masquerade = "-A POSTROUTING ! -o lo -p 17 --sport 6000:6004 -j MASQUERADE --to-ports 888";
    assert_eq!(seen(6004, &[masquerade]).await, "10.0.0.2:888");
    let own = ["-N OURS", "-A OUTPUT -p udp -m owner --uid-owner 0 -g OURS", "-A OURS -p udp -d 10.0.0.1 -j RETURN"];
    assert_eq!(seen(6005, &own).await, "10.0.0.2:6005");
}

#[tokio::test]
async fn rules_are_changed_at_once_put_right_and_gone_with_the_interface() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let before = Before::of(&[&a, &b]).await;
    let mut wire = translated(&a, &b, &["-A PREROUTING -p udp --dport 1000 -j REDIRECT --to-ports 8080"]).await;
    arrives(&a, "10.0.0.2:1000", &b, "10.0.0.2:8080").await;
    let (near, far) = (wire.a().spec().clone(), wire.b().spec().clone());
    assert_eq!(wire.update(&near, &far).await.unwrap().writes, 0);
    assert_eq!(reconcile(&b, &far).await.unwrap().writes, 0);

    let changed = far.clone().with_nat(NatRules::parse(["-A PREROUTING -p udp -j REDIRECT --to-ports 9090"]).unwrap());
    assert_eq!(wire.update(&near, &changed).await.unwrap().writes, 1);
    arrives(&a, "10.0.0.2:1000", &b, "10.0.0.2:9090").await;
    assert!(is_there(&b, wire.b()).await);

    // Somebody takes them away. (The same interface without any, then with them again: as another program would leave it.)
    let without = nsm_kernel::InterfaceSpec { nat: None, ..changed.clone() };
    nsm_kernel::apply(&b, &without, Some(&changed)).await.unwrap();
    arrives(&a, "10.0.0.2:1001", &b, "10.0.0.2:1001").await;
    assert!(!is_there(&b, wire.b()).await);
    assert_eq!(reconcile(&b, &changed).await.unwrap().writes, 1);
    arrives(&a, "10.0.0.2:1002", &b, "10.0.0.2:9090").await;

    // What the kernel refuses leaves what was there: a chain that leads to itself.
    let round = ["-N A", "-N B", "-A A -j B", "-A B -j A", "-A PREROUTING -j A"];
    let refused = changed.clone().with_nat(NatRules::parse(round).unwrap()).with_mtu(1300);
    let error = wire.update(&near, &refused).await.unwrap_err();
    assert!(error.to_string().contains("NAT rules of interface nsm-2"), "{error}");
    assert!(is_there(&b, wire.b()).await);
    arrives(&a, "10.0.0.2:1003", &b, "10.0.0.2:9090").await;

    // The other end takes the interface along; its rules go all the same.
    delete_link(&a, "nsm-1", "nsm:test").await.unwrap();
    wire.delete().await.unwrap();
    before.assert_nothing_changed().await;
    // Nor does a making that fails leave any: at this end, or at the other after these were written.
    VethWire::create((&a, &near), (&b, &refused), PeerNeighbours::Permanent).await.unwrap_err();
    before.assert_nothing_changed().await;
    let failing = near.clone().with_nat(refused.nat.clone().unwrap());
    VethWire::create((&a, &failing), (&b, &changed), PeerNeighbours::Permanent).await.unwrap_err();
    before.assert_nothing_changed().await;
}
