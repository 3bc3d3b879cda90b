use nsm_kernel::{
    Census, Error, Interface, InterfaceSpec, Neighbour, PeerNeighbours, Pinger, Policy, Route, VethWire, apply,
    reconcile,
};
use proptest::{prelude::*, sample::subsequence, strategy::ValueTree, test_runner::TestRunner};

use crate::{common::*, needs_net_admin};

#[tokio::test]
async fn an_unchanged_wire_is_not_touched() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let (near, far) = ends("nsm:test");
    let mut wire = VethWire::create((&a, &near), (&b, &far), PeerNeighbours::Permanent).await.unwrap();
    assert_eq!(wire.update(&near, &far).await.unwrap().writes, 0);
    // Nor is it when the state is read instead of remembered.
    assert_eq!(reconcile(&a, wire.a().spec()).await.unwrap().writes, 0);
    assert_eq!(reconcile(&b, wire.b().spec()).await.unwrap().writes, 0);
}

#[tokio::test]
async fn only_the_difference_is_written() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let (near, far) = ends("nsm:test");
    let mut wire = VethWire::create((&a, &near), (&b, &far), PeerNeighbours::Permanent).await.unwrap();
    let near = near.with_mtu(1300);
    assert_eq!(wire.update(&near, &far).await.unwrap().writes, 1);
    assert_eq!(mtu(&a, "nsm-1").await, 1300);
    // One address more: itself at one end, a permanent neighbour at the other.
    let near = near.with_address("10.0.0.9/32".parse().unwrap());
    assert_eq!(wire.update(&near, &far).await.unwrap().writes, 2);
    let far = far.with_route("10.0.0.9/32".parse().unwrap(), None);
    assert_eq!(wire.update(&near, &far).await.unwrap().writes, 1);
    datagram_and_back(&a, "10.0.0.9", &b, "10.0.0.2", 100).await;
}

#[tokio::test]
async fn replacing_the_only_address_keeps_the_routes() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let address = |text: &str| text.parse().unwrap();
    let near = spec("nsm-1", "nsm:test")
        .with_address(address("10.0.0.1/32"))
        .with_route(address("10.0.0.2/32"), None)
        .with_route(address("10.7.0.0/16"), Some(ip("10.0.0.2")));
    let far = spec("nsm-2", "nsm:test")
        .with_address(address("10.0.0.2/32"))
        .with_address(address("10.7.0.1/32"))
        .with_route(address("10.0.0.0/24"), None);
    let mut wire = VethWire::create((&a, &near), (&b, &far), PeerNeighbours::Learned).await.unwrap();
    datagram_and_back(&a, "10.0.0.1", &b, "10.7.0.1", 100).await;
    let near = InterfaceSpec { addresses: vec![address("10.0.0.5/32")], ..near };
    wire.update(&near, &far).await.unwrap();
    datagram_and_back(&a, "10.0.0.5", &b, "10.7.0.1", 100).await;
    assert_eq!(reconcile(&a, wire.a().spec()).await.unwrap().writes, 0);
}

#[tokio::test]
async fn a_change_the_kernel_refuses_leaves_the_former_state() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let (near, far) = ends("nsm:test");
    let mut wire = VethWire::create((&a, &near), (&b, &far), PeerNeighbours::Permanent).await.unwrap();
    let before = Before::of(&[&a, &b]).await;
    let other = near.clone().with_address("10.0.0.7/32".parse().unwrap());
    // Below the smallest MTU; the first end's new address is taken back as well.
    let error = wire.update(&other, &far.clone().with_mtu(10)).await.unwrap_err();
    assert!(error.to_string().contains("nsm-2") || error.errno() == Some(22), "{error}");
    before.assert_nothing_changed().await;
    assert_eq!(wire.update(&near, &far).await.unwrap().writes, 0);
    datagram_and_back(&a, "10.0.0.1", &b, "10.0.0.2", 100).await;
}

#[tokio::test]
async fn a_route_of_ours_takes_precedence_and_gives_the_other_back() {
    needs_net_admin!();
    let (pod, cluster) = two_namespaces().await;
    let service = nsm_kernel::Netns::create().await.unwrap();
    let default = |v6: bool| if v6 { "::/0" } else { "0.0.0.0/0" }.parse().unwrap();
    let address = |text: &str| text.parse().unwrap();
    let pod_end = spec("eth0", "the cluster's")
        .with_address(address("10.1.0.2/24"))
        .with_address(address("fd01::2/64"))
        .with_route(default(false), Some(ip("10.1.0.1")))
        .with_route(default(true), Some(ip("fd01::1")));
    let shared = |name, own: &str, own6: &str| {
        spec(name, "x")
            .with_address(address(own))
            .with_address(address(own6))
            .with_address(address("192.0.2.1/32"))
            .with_route(address("10.0.0.0/8"), None)
    };
    let _eth0 = VethWire::create(
        (&pod, &pod_end),
        (&cluster, &shared("pod", "10.1.0.1/24", "fd01::1/64")),
        PeerNeighbours::Learned,
    )
    .await
    .unwrap();
    let before = Before::of(&[&pod]).await;
    let (near, _) = ends("nsm:test");
    let near = near.with_route(default(false), None).with_route(default(true), None);
    let wire = VethWire::create(
        (&pod, &near),
        (&service, &shared("nsm", "10.0.0.2/32", "fd00::2/128")),
        PeerNeighbours::Learned,
    )
    .await
    .unwrap();
    // Both know 192.0.2.1; only the service knows a way back to 10.0.0.1.
    datagram_and_back(&pod, "10.0.0.1", &service, "192.0.2.1", 100).await;
    wire.delete().await.unwrap();
    before.assert_nothing_changed().await;
    datagram_and_back(&pod, "10.1.0.2", &cluster, "192.0.2.1", 100).await;
}

#[tokio::test]
async fn an_interface_is_adopted_with_its_mark_only_and_put_right() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let wire = wire(&a, &b).await;
    let wanted = wire.a().spec().clone();
    let tampered = InterfaceSpec {
        addresses: vec!["172.16.0.1/12".parse().unwrap()],
        routes: vec![],
        neighbours: vec![],
        mtu: Some(1280),
        ..wanted.clone()
    };
    apply(&a, &tampered, Some(&wanted)).await.unwrap();
    let pinger = Pinger::new(&a).await.unwrap();
    pinger.ping(ip("10.0.0.1"), ip("10.0.0.2"), PATIENCE).await.unwrap_err();

    let stranger = InterfaceSpec { alias: "nsm:other".to_owned(), ..wanted.clone() };
    assert!(Interface::adopt(&a, &stranger).await.unwrap().is_none());
    let error = reconcile(&a, &stranger).await.unwrap_err();
    assert!(matches!(error, Error::NameTaken { .. }), "{error}");
    let mut adopted = Interface::adopt(&a, &wanted).await.unwrap().expect("it is ours");
    pinger.ping(ip("10.0.0.1"), ip("10.0.0.2"), PATIENCE).await.unwrap();
    assert_eq!(mtu(&a, "nsm-1").await, 1400);
    assert_eq!(adopted.update(&wanted).await.unwrap().writes, 0);
    assert_eq!(reconcile(&a, &wanted).await.unwrap().writes, 0);
    assert!(adopted.delete().await.unwrap());
    assert!(Interface::adopt(&a, &wanted).await.unwrap().is_none());
}

#[tokio::test]
async fn an_interface_that_is_gone_is_told_when_it_should_change() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let mut wire = wire(&a, &b).await;
    let (near, far) = ends("nsm:test");
    wire.delete().await.unwrap();
    let error = wire.update(&near.with_mtu(1300), &far).await.unwrap_err();
    assert!(matches!(error, Error::LinkNotFound { .. }), "{error}");
}

/// The difference is right if, after it was applied, reading the kernel finds nothing left to do.
#[tokio::test]
async fn whatever_the_change_the_kernel_ends_in_the_state_asked_for() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let base = spec("nsm-1", "nsm:test");
    let _wire = VethWire::create((&a, &base), (&b, &spec("nsm-2", "x")), PeerNeighbours::Learned).await.unwrap();
    let mut runner = TestRunner::deterministic();
    let mut previous = base.clone();
    for round in 0..200 {
        let next = random_spec(&base).new_tree(&mut runner).unwrap().current();
        apply(&a, &next, Some(&previous)).await.unwrap();
        let applied = Census::take(&a).await.unwrap();
        let left_to_do = reconcile(&a, &next).await.unwrap().writes;
        let diff = applied.diff(&Census::take(&a).await.unwrap());
        assert_eq!(left_to_do, 0, "round {round}: {diff}\nfrom {previous:#?}\nto {next:#?}");
        previous = next;
    }
}

/// Drawn from few values, so that states overlap: addresses that share a subnet, routes with and without
/// next hop, neighbours, policies, in both families.
fn random_spec(base: &InterfaceSpec) -> impl Strategy<Value = InterfaceSpec> {
    let net = |text: &str| text.parse::<ipnet::IpNet>().unwrap();
    let addresses = ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/32", "10.1.0.1/16", "fd00::1/64", "fd00::2/128"];
    let route = |prefix: &str, via: Option<&str>| Route { prefix: net(prefix), via: via.map(ip) };
    let routes = [
        route("10.2.0.0/16", None),
        route("10.2.0.0/16", Some("10.2.0.1")),
        route("10.3.0.0/16", Some("10.2.0.1")),
        route("0.0.0.0/0", Some("10.2.0.9")),
        route("fd02::/64", None),
        route("::/0", Some("fd02::1")),
    ];
    let neighbour = |ip_text: &str, last| Neighbour { ip: ip(ip_text), mac: [2, 0, 0, 0, 0, last], permanent: true };
    let neighbours = [neighbour("10.2.0.1", 1), neighbour("10.2.0.9", 1), neighbour("fd02::1", 1)];
    let policy = |from: Option<&str>, port: Option<u16>, routes: &[Route]| Policy {
        from: from.map(net),
        proto: port.map(|_| 17),
        dst_ports: port.map(|port| port..=port),
        src_ports: None,
        routes: routes.to_vec(),
    };
    let policies = [
        policy(Some("10.0.0.3/32"), None, &[]),
        policy(None, Some(53), &routes[..2]),
        policy(None, Some(80), &routes),
        policy(Some("fd00::/64"), Some(53), &routes[5..]),
    ];
    let base = base.clone();
    (
        subsequence(addresses.map(net).to_vec(), 0..=6),
        subsequence(routes.to_vec(), 0..=6),
        subsequence(neighbours.to_vec(), 0..=3),
        subsequence(policies.to_vec(), 0..=4),
        prop_oneof![Just(1500u32), Just(1400), Just(1280)],
        prop_oneof![Just([2, 0, 0, 0, 0, 7]), Just([2, 0, 0, 0, 0, 8])],
    )
        .prop_map(move |(addresses, routes, neighbours, policies, mtu, mac)| InterfaceSpec {
            addresses,
            routes,
            neighbours,
            policies,
            mtu: Some(mtu),
            mac: Some(mac),
            ..base.clone()
        })
}
