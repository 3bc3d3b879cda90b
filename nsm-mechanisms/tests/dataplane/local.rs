use futures::FutureExt;
use nsm_api::connectioncontext::{PolicyRoute, Route};
use nsm_chain::Code;
use nsm_kernel::{InterfaceSpec, Item, Netns, PeerNeighbours, VethWire};
use nsm_mechanisms::{Dataplane, Linux, Mended, Origin, Programmed, Reconciled};

use super::*;

fn linux() -> Linux {
    Linux::new("fwd").unwrap()
}

#[tokio::test]
async fn packets_flow_both_ways_and_a_close_leaves_nothing() {
    let Some(ns) = workloads().await else { return };
    let before = census(&ns).await;
    let linux = linux();
    let mut wire = wire("1", kernel(&ns[0], "nsm-1"), kernel(&ns[1], "nse-1"), 1);
    wire.context.mtu = 1400;
    let route = |prefix: &str| Route { prefix: prefix.into(), next_hop: String::new() };
    let ip = wire.context.ip_context.as_mut().unwrap();
    ip.src_routes = vec![route("172.16.0.0/16"), route("fd77::/64")];
    ip.dst_routes = vec![route("192.168.77.0/24")];
    ip.policies = vec![PolicyRoute { proto: "17".into(), dst_port: "6666".into(), ..Default::default() }];

    let programmed = linux.connect(&wire).await.unwrap();
    assert_eq!(programmed, Programmed::Made);
    assert_packets_both_ways(&ns, 1).await;
    let client = Census::take(&ns[0]).await.unwrap();
    let has = |item: &dyn Fn(&Item) -> bool| client.items.iter().any(item);
    assert!(has(
        &|item| matches!(item, Item::Link { name, alias } if name == "nsm-1" && alias.as_deref() == Some("nsm:fwd:1"))
    ));
    assert!(has(
        &|item| matches!(item, Item::Route { prefix, via, .. } if prefix.to_string() == "172.16.0.0/16" && *via == Some(addresses(1, 0)[0]))
    ));
    assert!(has(&|item| matches!(item, Item::Neighbour { ip, .. } if *ip == addresses(1, 0)[0])));
    assert!(has(&|item| matches!(item, Item::Rule { text } if text.contains("6666"))));

    assert_eq!(linux.connect(&wire).await.unwrap(), Programmed::Unchanged);
    linux.disconnect("1").await.unwrap();
    assert_nothing_left(&before, &ns).await;
    assert_eq!(linux.wires(), 0);
    linux.disconnect("1").await.unwrap();
}

#[tokio::test]
async fn a_failure_at_the_second_namespace_leaves_nothing_in_the_first() {
    let Some(ns) = workloads().await else { return };
    // Somebody else's interface has the name at the endpoint.
    let foreign = InterfaceSpec::new("nse-1", "somebody else").unwrap();
    let other = InterfaceSpec::new("other", "somebody else").unwrap();
    VethWire::create((&ns[1], &foreign), (&ns[1], &other), PeerNeighbours::Learned).await.unwrap();
    let before = census(&ns).await;
    let linux = linux();
    let wire = wire("1", kernel(&ns[0], "nsm-1"), kernel(&ns[1], "nse-1"), 1);
    let error = linux.connect(&wire).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    assert!(error.to_string().contains("nse-1") && error.to_string().contains("somebody else"), "{error}");
    assert_nothing_left(&before, &ns).await;
    assert_eq!(linux.wires(), 0);
}

#[tokio::test]
async fn a_name_that_another_connection_has_stays_with_it() {
    let Some(ns) = workloads().await else { return };
    let linux = linux();
    let first = wire("1", kernel(&ns[0], "nsm-1"), kernel(&ns[1], "nse-1"), 1);
    linux.connect(&first).await.unwrap();
    let second = wire("2", kernel(&ns[0], "nsm-1"), kernel(&ns[1], "nse-2"), 2);
    let error = linux.connect(&second).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    assert_packets_both_ways(&ns, 1).await;
}

#[tokio::test]
async fn a_client_that_starts_over_gets_the_name_that_an_earlier_life_of_it_has() {
    let Some(ns) = workloads().await else { return };
    let before = census(&ns).await;
    let linux = linux();
    let asked = |id: &str, number: u8, client: &str, starts_over: bool| {
        let endpoint = kernel(&ns[1], &format!("nse-{id}"));
        let origin = Some(Origin { client: client.into(), starts_over });
        Wire { origin, ..wire(id, kernel(&ns[0], "nsm-1"), endpoint, number) }
    };
    linux.connect(&asked("1", 1, "nsc", true)).await.unwrap();
    // Not somebody else, and not one that lives: it knows what it has.
    for (client, starts_over) in [("other", true), ("nsc", false)] {
        let error = linux.connect(&asked("2", 2, client, starts_over)).await.unwrap_err();
        assert_eq!(error.code(), Code::AlreadyExists);
    }
    assert_packets_both_ways(&ns, 1).await;

    assert_eq!(linux.connect(&asked("2", 2, "nsc", true)).await.unwrap(), Programmed::Made);
    assert_packets_both_ways(&ns, 2).await;
    // The former connection is to be closed, and takes nothing along.
    assert_eq!((linux.wires(), linux.disturbed().await), (1, vec![Arc::from("1")]));
    assert_eq!(linux.mend("1").await.unwrap(), Mended::Gone);
    linux.disconnect("1").await.unwrap();
    assert_eq!(linux.connect(&asked("2", 2, "nsc", false)).await.unwrap(), Programmed::Unchanged);
    assert_packets_both_ways(&ns, 2).await;
    linux.disconnect("2").await.unwrap();
    assert_nothing_left(&before, &ns).await;
}

#[tokio::test]
async fn a_namespace_that_is_gone_or_none_is_an_error_that_says_so() {
    let Some(ns) = workloads().await else { return };
    let before = census(&ns[..1]).await;
    let linux = linux();
    let mut gone = kernel(&ns[1], "nse-1");
    // No path of a closed descriptor of ours: another test would open a file under its number.
    gone.as_kernel_mut().unwrap().set_netns(&FileUrl::Path("/run/netns/nsm-never-there".into()));
    let error = linux.connect(&wire("1", kernel(&ns[0], "nsm-1"), gone, 1)).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    let mut file = kernel(&ns[1], "nse-1");
    file.as_kernel_mut().unwrap().set_netns(&FileUrl::Path("/etc/hostname".into()));
    let error = linux.connect(&wire("1", kernel(&ns[0], "nsm-1"), file, 1)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    let mut away = kernel(&ns[1], "nse-1");
    away.as_kernel_mut().unwrap().set_netns(&FileUrl::Inode { device: 4, inode: 7 });
    let error = linux.connect(&wire("1", kernel(&ns[0], "nsm-1"), away, 1)).await.unwrap_err();
    assert!(error.to_string().contains("RecvFd"), "{error}");
    assert_nothing_left(&before, &ns[..1]).await;
    assert_eq!(linux.wires(), 0);
}

#[tokio::test]
async fn a_change_of_addresses_is_a_difference_and_not_a_new_wire() {
    let Some(ns) = workloads().await else { return };
    let before = census(&ns).await;
    let linux = linux();
    let first = wire("1", kernel(&ns[0], "nsm-1"), kernel(&ns[1], "nse-1"), 1);
    linux.connect(&first).await.unwrap();
    let made = index(&ns[0], "nsm-1").await.unwrap();
    let second = wire("1", kernel(&ns[0], "nsm-1"), kernel(&ns[1], "nse-1"), 2);
    assert!(matches!(linux.connect(&second).await.unwrap(), Programmed::Changed { writes: 1.. }));
    assert_eq!(index(&ns[0], "nsm-1").await, Some(made));
    assert_packets_both_ways(&ns, 2).await;
    assert!(!answers(&ns[0], addresses(1, 1)[0], addresses(1, 0)[0]).await);
    linux.disconnect("1").await.unwrap();
    assert_nothing_left(&before, &ns).await;
}

#[tokio::test]
async fn a_wire_that_moves_to_another_endpoint_leaves_the_former_one() {
    let Some(ns) = workloads().await else { return };
    let Some(other) = netns().await else { return };
    let before = census(&ns).await;
    let linux = linux();
    linux.connect(&wire("1", kernel(&ns[0], "nsm-1"), kernel(&ns[1], "nse-1"), 1)).await.unwrap();
    linux.connect(&wire("1", kernel(&ns[0], "nsm-1"), kernel(&other, "nse-1"), 1)).await.unwrap();
    assert_packets_both_ways(&[ns[0].clone(), other.clone()], 1).await;
    assert_nothing_left(&before[1..], &ns[1..]).await;
    // Where it cannot move to, it stays.
    let gone = kernel(&Netns::create().await.unwrap(), "nse-1");
    linux.connect(&wire("1", kernel(&ns[0], "nsm-1"), gone, 1)).await.unwrap_err();
    let long = kernel(&ns[1], "lo");
    linux.connect(&wire("1", kernel(&ns[0], "nsm-1"), long, 1)).await.unwrap_err();
    assert_packets_both_ways(&[ns[0].clone(), other], 1).await;
    linux.disconnect("1").await.unwrap();
    assert_nothing_left(&before, &ns).await;
}

#[tokio::test]
async fn hardware_address_and_loopback_routing_are_as_asked() {
    let Some(ns) = workloads().await else { return };
    let linux = linux();
    let mut wire = wire("1", kernel(&ns[0], "nsm-1"), kernel(&ns[1], "nse-1"), 1);
    wire.next.as_kernel_mut().unwrap().set_route_local_net(true);
    wire.payload = payload::ETHERNET.into();
    let ethernet =
        nsm_api::connectioncontext::EthernetContext { src_mac: "02:aa:00:00:00:01".into(), ..Default::default() };
    wire.context.ethernet_context = Some(ethernet);
    linux.connect(&wire).await.unwrap();
    assert_packets_both_ways(&ns, 1).await;
    let read = |path: &'static str| {
        let endpoint = ns[1].clone();
        async move { endpoint.run(move || std::fs::read_to_string(path)).await.unwrap() }
    };
    // An Ethernet wire asks who has an address; the endpoint has learned the client's.
    assert!(read("/proc/thread-self/net/arp").await.contains("02:aa:00:00:00:01"));
    let path = "/proc/sys/net/ipv4/conf/nse-1/route_localnet";
    assert_eq!(read(path).await.trim(), "1");
    wire.next.as_kernel_mut().unwrap().set_route_local_net(false);
    assert_eq!(linux.connect(&wire).await.unwrap(), Programmed::Changed { writes: 1 });
    assert_eq!(read(path).await.trim(), "0");
}

#[tokio::test]
async fn a_caller_who_gives_up_in_the_middle_leaves_nothing() {
    let Some(ns) = workloads().await else { return };
    let before = census(&ns).await;
    let linux = linux();
    let wire = wire("1", kernel(&ns[0], "nsm-1"), kernel(&ns[1], "nse-1"), 1);
    assert!(linux.connect(&wire).now_or_never().is_none());
    // The work goes on alone, and what comes next waits for it.
    linux.disconnect("1").await.unwrap();
    assert_nothing_left(&before, &ns).await;
    assert!(linux.connect(&wire).now_or_never().is_none());
    assert_eq!(linux.connect(&wire).await.unwrap(), Programmed::Made);

    // A change that nobody waits for is made all the same, and known.
    let mut changed = wire.clone();
    changed.context = context(2);
    assert!(linux.connect(&changed).now_or_never().is_none());
    assert_eq!(linux.connect(&changed).await.unwrap(), Programmed::Unchanged);
    assert_packets_both_ways(&ns, 2).await;
    assert!(linux.disconnect("1").now_or_never().is_none());
    linux.disconnect("1").await.unwrap();
    assert_nothing_left(&before, &ns).await;
}
