use nsm_api::mechanism::{FileUrl, KERNEL};
use nsm_api::{Connection, ConnectionContext, IpContext, Mechanism, Path, PathSegment, payload};

use super::*;
use crate::{Class, Dataplane, Mended, Programmed, Random, Reach, Reconciled, Vnis};

/// Two nodes with a forwarder each.
struct Two {
    fabric: Fabric,
    near: Memory,
    far: Memory,
}

const NEAR: &str = "192.168.0.1";
const FAR: &str = "192.168.0.2";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// With few identifiers, so that they are soon met again.
fn underlay(address: &str) -> Underlay {
    Underlay::new(ip(address)).with_vnis(Vnis::within(1..=4, Random::seeded(1)))
}

fn two() -> Two {
    let fabric = Fabric::new();
    let near = fabric.forwarder("near", Some(underlay(NEAR))).on_node("node-1");
    let far = fabric.forwarder("far", Some(underlay(FAR))).on_node("node-2");
    Two { fabric, near, far }
}

fn kernel(netns: &str, name: &str) -> Mechanism {
    let mut mechanism = Mechanism::kernel();
    let mut kernel = mechanism.as_kernel_mut().unwrap();
    kernel.set_interface_name(name).unwrap().set_netns(&FileUrl::Path(format!("/sim/{netns}").into()));
    mechanism
}

fn context(number: u8) -> ConnectionContext {
    let ip = IpContext {
        src_ip_addrs: vec![format!("10.0.{number}.1/32")],
        dst_ip_addrs: vec![format!("10.0.{number}.0/32")],
        ..Default::default()
    };
    ConnectionContext { ip_context: Some(ip), ..Default::default() }
}

fn wire(id: &str, caller: Mechanism, next: Mechanism) -> Wire {
    Wire { id: id.into(), caller, next, context: context(1), payload: payload::IP.into(), origin: None }
}

fn local(id: &str) -> Wire {
    wire(id, kernel("nsc", id), kernel("nse", id))
}

/// As a client believes it to be.
fn connection(mechanism: &Mechanism, segments: &[(&str, &str)]) -> Connection {
    let segment =
        |(name, id): &(&str, &str)| PathSegment { name: (*name).into(), id: (*id).into(), ..Default::default() };
    let path = Path { index: 0, path_segments: segments.iter().map(segment).collect() };
    Connection { mechanism: Some(mechanism.clone()), context: Some(context(1)), path: Some(path), ..Default::default() }
}

/// A tunnel as both forwarders agree about it; the lease is the far one's.
fn agreed(two: &Two) -> (Mechanism, Option<Arc<Vni>>) {
    let mut tunnel = two.near.offers("near", Class::Remote, "").pop().unwrap();
    let lease = two.far.accept("2", &mut tunnel, None).unwrap();
    (tunnel, lease)
}

async fn remote(two: &Two, tunnel: &Mechanism) -> [Programmed; 2] {
    let far = two.far.connect(&wire("2", tunnel.clone(), kernel("nse", "nse-1"))).await.unwrap();
    [far, two.near.connect(&wire("1", kernel("nsc", "nsm-1"), tunnel.clone())).await.unwrap()]
}

fn asked() -> Connection {
    connection(&kernel("nsc", "nsm-1"), &[("nsc", "0"), ("near", "1"), ("far", "2"), ("nse", "3")])
}

#[tokio::test]
async fn packets_flow_over_two_nodes_until_something_of_it_is_gone() {
    let mut two = two();
    let (tunnel, lease) = agreed(&two);
    assert_eq!(remote(&two, &tunnel).await, [Programmed::Made; 2]);
    let trail = two.fabric.flows(&asked()).unwrap();
    assert_eq!(trail.wires, [("near".into(), "1".into()), ("far".into(), "2".into())]);
    assert_eq!(trail.end, Interface { netns: "file:///sim/nse".into(), name: "nse-1".into() });

    two.fabric.cut(ip(FAR), ip(NEAR));
    assert_eq!(two.fabric.flows(&asked()), Err(Broken::Cut { from: ip(FAR), to: ip(NEAR) }));
    two.fabric.mend(ip(FAR), ip(NEAR));
    let mut other = asked();
    other.context = Some(context(2));
    assert!(matches!(two.fabric.flows(&other), Err(Broken::Addresses { side: "source", .. })));
    let far_end = connection(&kernel("nse", "nse-1"), &[]);
    assert!(matches!(two.fabric.flows(&far_end), Err(Broken::WrongEnd { .. })));

    two.far.disconnect("2").await.unwrap();
    assert!(matches!(two.fabric.flows(&asked()), Err(Broken::NoFarEnd(_))));
    two.fabric.lose_namespace("file:///sim/nsc");
    assert!(matches!(two.fabric.flows(&asked()), Err(Broken::NoInterface(_))));
    assert!(two.fabric.wires().is_empty());
    // The identifier is claimed at the near end, leased at the far one.
    assert_eq!((two.fabric.vnis("near"), two.fabric.vnis("far")), (Some(0), Some(1)));
    drop(lease);
    assert_eq!(two.fabric.vnis("far"), Some(0));

    let error = two.near.connect(&wire("1", kernel("nsc", "nsm-1"), tunnel)).await.unwrap_err();
    assert!(error.to_string().contains("file:///sim/nsc") && error.to_string().contains("gone"), "{error}");
    two.near = two.fabric.forwarder("near", None);
    assert!(two.fabric.faults().is_empty());
}

#[tokio::test]
async fn a_wire_outlives_its_forwarder_and_the_next_life_takes_it_up() {
    let mut two = two();
    let (tunnel, lease) = agreed(&two);
    remote(&two, &tunnel).await;
    let (former, writes) = (two.far.clone(), two.fabric.writes());
    two.fabric.kill("far");
    drop(lease);
    assert!(two.fabric.flows(&asked()).is_ok());
    assert!(former.disconnect("2").await.is_err(), "a dead life changes nothing");
    assert_eq!(two.fabric.orphans().len(), 1);

    two.far = two.fabric.forwarder("far", Some(underlay(FAR))).on_node("node-2");
    assert!(former.connect(&local("9")).await.is_err());
    let census = two.far.census(Reach::Everywhere).await;
    let [stray] = &census.strays[..] else { panic!("{census:?}") };
    assert!(stray.to_string().starts_with("wire 2 of far"), "{stray}");
    // Two of four identifiers are the far side's to issue; one of them is in use.
    let offered = || two.near.offers("near", Class::Remote, "").pop().unwrap();
    let mut other = offered();
    let _lease = two.far.accept("8", &mut other, None).unwrap();
    assert_ne!(other.parameter("vni"), tunnel.parameter("vni"));
    assert!(two.far.accept("9", &mut offered(), None).is_err());
    // By the connection that has it, it is had again.
    let mut again = offered();
    let _again = two.far.accept("2", &mut again, None).unwrap();
    assert_eq!(again.parameter("vni"), tunnel.parameter("vni"));

    assert_eq!(remote(&two, &tunnel).await, [Programmed::Adopted, Programmed::Unchanged]);
    assert_eq!((two.fabric.writes(), two.fabric.orphans().len()), (writes, 0));
    assert!(two.fabric.flows(&asked()).is_ok() && two.fabric.faults().is_empty());
    assert!(!two.far.remove(stray).await.unwrap(), "it was taken up");
    two.fabric.lose_node("node-2");
    assert_eq!(two.fabric.wires().len(), 1);
}

#[tokio::test]
async fn nobody_gets_an_interface_or_a_tunnel_that_somebody_has() {
    let two = two();
    two.near.connect(&local("1")).await.unwrap();
    let other = wire("2", kernel("nsc", "1"), kernel("nse", "2"));
    assert!(two.near.connect(&other).await.is_err());
    assert!(matches!(&two.fabric.faults()[..], [Fault::OwnedTwice { .. }]));
    // What is left of an earlier life gives way.
    let restarted = two.fabric.forwarder("near", Some(underlay(NEAR)));
    assert_eq!(restarted.connect(&other).await.unwrap(), Programmed::Made);
    assert_eq!(two.fabric.wires().len(), 1);
    // Another forwarder's does not.
    assert!(two.far.connect(&local("2")).await.is_err());
    // Where no namespace is named nobody can tell.
    let mut anywhere = Mechanism::kernel();
    anywhere.set_parameter("name", "nsm-1");
    for id in ["3", "4"] {
        two.near.fabric.forwarder("third", None).connect(&wire(id, anywhere.clone(), anywhere.clone())).await.unwrap();
    }
}

#[tokio::test]
async fn a_tunnel_that_could_not_be_removed_keeps_its_identifier_until_it_is() {
    let two = two();
    let (tunnel, lease) = agreed(&two);
    two.far.connect(&wire("2", tunnel.clone(), kernel("nse", "nse-1"))).await.unwrap();
    two.fabric.fail_next_of("far", 1);
    assert!(two.far.disconnect("2").await.is_err());
    drop(lease);
    // Two of four identifiers are the far side's to issue.
    let offered = || two.near.offers("near", Class::Remote, "").pop().unwrap();
    let (mut other, mut again) = (offered(), offered());
    let _other = two.far.accept("8", &mut other, None).unwrap();
    assert_ne!(other.parameter("vni"), tunnel.parameter("vni"));
    assert!(two.far.accept("9", &mut again, None).is_err());
    let strays = two.far.census(Reach::Wires).await.strays;
    assert!(two.far.remove(&strays[0]).await.unwrap());
    assert!(two.far.census(Reach::Wires).await.strays.is_empty());
    let _again = two.far.accept("9", &mut again, None).unwrap();
    assert_eq!(again.parameter("vni"), tunnel.parameter("vni"));
    assert!(two.fabric.faults().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_log_says_who_did_what_when() {
    let two = two();
    two.fabric.keep_log();
    two.fabric.takes(Duration::from_millis(2));
    let begun = Instant::now();
    two.near.connect(&local("1")).await.unwrap();
    let mut changed = local("1");
    changed.context = context(2);
    assert_eq!(two.near.connect(&changed).await.unwrap(), Programmed::Changed { writes: 1 });
    changed.caller = kernel("nsc", "other");
    assert_eq!(two.near.connect(&changed).await.unwrap(), Programmed::Moved);
    two.fabric.fail_next_of("near", 1);
    assert!(two.near.disconnect("1").await.is_err());
    two.near.disconnect("1").await.unwrap();
    let log = two.fabric.take_log();
    let what: Vec<_> = log.iter().map(|write| (write.what, (write.at - begun).as_millis())).collect();
    let (made, changed, moved, removed) = (Written::Made, Written::Changed, Written::Moved, Written::Removed);
    assert_eq!(what, [(made, 2), (changed, 4), (moved, 6), (removed, 10)]);
    assert!(two.fabric.take_log().is_empty());
}

#[tokio::test]
async fn where_an_endpoint_passes_traffic_on_the_walk_goes_on() {
    let two = two();
    assert_eq!(two.near.accepts(""), [KERNEL, "VXLAN"]);
    two.near.connect(&wire("1", kernel("nsc", "nsm-1"), kernel("firewall", "in"))).await.unwrap();
    two.near.connect(&wire("2", kernel("firewall", "out"), kernel("nse", "nse-1"))).await.unwrap();
    let path = [("nsc", "0"), ("near", "1"), ("firewall", "a"), ("near", "2"), ("nse", "b")];
    let connection = connection(&kernel("nsc", "nsm-1"), &path);
    let trail = two.fabric.flows(&connection).unwrap();
    assert_eq!((trail.wires.len(), &*trail.end.name), (2, "nse-1"));
    two.near.disconnect("2").await.unwrap();
    two.near.connect(&wire("2", kernel("other", "out"), kernel("nse", "nse-1"))).await.unwrap();
    assert!(matches!(two.fabric.flows(&connection), Err(Broken::Gap { .. })));
}

#[tokio::test]
async fn a_forwarder_hears_of_a_namespace_that_is_gone_and_sweeps_what_nobody_owns() {
    let two = two();
    for id in ["1", "2"] {
        two.near.connect(&local(id)).await.unwrap();
    }
    assert_eq!(two.near.mend("1").await.unwrap(), Mended::Whole);
    two.fabric.lose_namespace("file:///sim/nse");
    assert_eq!(two.near.disturbed().await, ["1".into(), "2".into()]);
    assert_eq!(two.near.census(Reach::Wires).await.drifted.len(), 2);
    assert_eq!(two.near.mend("1").await.unwrap(), Mended::Gone);
    two.near.disconnect("1").await.unwrap();
    assert_eq!(two.near.mend("1").await.unwrap(), Mended::Unknown);

    two.far.connect(&wire("3", kernel("a", "a"), kernel("b", "b"))).await.unwrap();
    let restarted = two.fabric.forwarder("far", None);
    let census = restarted.census(Reach::Everywhere).await;
    assert_eq!((census.strays.len(), two.fabric.orphans().len()), (1, 1));
    two.fabric.fail_next(1);
    assert!(restarted.remove(&census.strays[0]).await.is_err());
    assert!(restarted.remove(&census.strays[0]).await.unwrap());
    assert!(two.fabric.wires().is_empty());
}
