use std::process::Command;

use nsm_chain::Code;
use nsm_kernel::{InterfaceSpec, Node, PeerNeighbours, Underlay as Network, VethWire};
use nsm_mechanisms::{Class, Dataplane, Linux, Programmed, Random, Reach, Reconciled, Underlay, Vnis};

use super::mend::ip;
use super::*;

/// Two nodes on a network of their own, or none where that is not possible.
async fn nodes(prefix: &str) -> Option<(Network, [Linux; 2])> {
    let network = match Network::create(2, prefix.parse().unwrap()).await {
        Ok(network) => network,
        Err(error) => {
            eprintln!("skipped: {error}");
            return None;
        }
    };
    let linux =
        |node: &Node, name: &str| Linux::with_underlay(name, Underlay::new(node.ip()), node.netns.clone()).unwrap();
    let [a, b] = network.nodes() else { unreachable!("two were asked for") };
    let both = [linux(a, "fwd-a"), linux(b, "fwd-b")];
    Some((network, both))
}

/// As the two forwarders negotiate it: the near one offers, the far one completes.
fn negotiated([near, far]: &[Linux; 2]) -> (Mechanism, Option<Arc<nsm_mechanisms::Vni>>) {
    let mut mechanism = near.offers("near", Class::Remote, payload::IP).remove(0);
    let lease = far.accept("far", &mut mechanism, None).unwrap();
    (mechanism, lease)
}

async fn over(prefix: &str) {
    let Some((network, linux)) = nodes(prefix).await else {
        return;
    };
    let Some(ns) = workloads().await else { return };
    let node_ns: Vec<_> = network.nodes().iter().map(|node| node.netns.clone()).collect();
    let before = (census(&ns).await, census(&node_ns).await);
    let (tunnel, lease) = negotiated(&linux);
    let mtu = tunnel.as_vxlan().unwrap().mtu().unwrap().unwrap();

    let mut near = wire("near", kernel(&ns[0], "nsm-1"), tunnel.clone(), 1);
    let mut far = wire("far", tunnel.clone(), kernel(&ns[1], "nse-1"), 1);
    near.context.mtu = mtu;
    far.context.mtu = mtu;
    linux[0].connect(&near).await.unwrap();
    linux[1].connect(&far).await.unwrap();
    assert_packets_both_ways(&ns, 1).await;
    // Nothing is seen in the nodes' own namespaces.
    assert_nothing_left(&before.1, &node_ns).await;
    assert_eq!(linux[0].connect(&near).await.unwrap(), Programmed::Unchanged);
    for linux in &linux {
        let nothing = nsm_mechanisms::Census { strays: Vec::new(), drifted: Vec::new() };
        assert_eq!(linux.census(Reach::Wires).await, nothing);
    }

    // The near side has claimed what the far side issued.
    let (taken, _lease) = {
        let mut again = tunnel.clone();
        again.as_vxlan_mut().unwrap().set_src_port(4789);
        (wire("other", kernel(&ns[0], "nsm-2"), again, 2), lease)
    };
    assert_eq!(linux[0].connect(&taken).await.unwrap_err().code(), Code::AlreadyExists);

    // The client comes back in another namespace, over the same tunnel.
    let Some(moved) = netns().await else { return };
    near.caller = kernel(&moved, "nsm-1");
    assert_eq!(linux[0].connect(&near).await.unwrap(), Programmed::Moved);
    assert_packets_both_ways(&[moved, ns[1].clone()], 1).await;

    linux[0].disconnect("near").await.unwrap();
    linux[1].disconnect("far").await.unwrap();
    assert_nothing_left(&before.0, &ns).await;
    assert_nothing_left(&before.1, &node_ns).await;
    // Given back, so it may be used again.
    linux[0].connect(&taken).await.unwrap();
    linux[0].disconnect("other").await.unwrap();
}

#[tokio::test]
async fn a_wire_between_nodes_carries_packets_over_ipv4() {
    over("192.0.2.0/24").await;
}

#[tokio::test]
async fn a_wire_between_nodes_carries_packets_over_ipv6() {
    over("2001:db8::/64").await;
}

#[tokio::test]
async fn next_hops_that_insist_on_one_identifier_are_both_served_and_taken_up_again() {
    let network = match Network::create(3, "192.0.2.0/24".parse().unwrap()).await {
        Ok(network) => network,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let Some(ends) = workloads().await.zip(workloads().await) else { return };
    let ends = <[[Netns; 2]; 2]>::from(ends);
    let [a, b, c] = network.nodes() else { unreachable!("three were asked for") };
    let near = || Linux::with_underlay("fwd-a", Underlay::new(a.ip()), a.netns.clone()).unwrap();
    // Each of them has one identifier to give away, and it is the same.
    let far = [b, c].map(|node| {
        let underlay = Underlay::new(node.ip()).with_vnis(Vnis::within(2..=2, Random::seeded(1)));
        Linux::with_underlay("fwd-far", underlay, node.netns.clone()).unwrap()
    });
    let node = [a.netns.clone()];
    let before = census(&node).await;
    let first = near();
    let mut wires = Vec::new();
    let mut leases = Vec::new();
    for (at, (far, ns)) in far.iter().zip(&ends).enumerate() {
        let mut tunnel = first.offers("near", Class::Remote, payload::IP).remove(0);
        leases.push(far.accept("far", &mut tunnel, None).unwrap());
        assert_eq!(tunnel.as_vxlan().unwrap().vni(), Ok(Some(2)));
        let mut another = first.offers("near", Class::Remote, payload::IP).remove(0);
        assert_eq!(far.accept("another", &mut another, None).unwrap_err().code(), Code::ResourceExhausted);
        far.connect(&wire("far", tunnel.clone(), kernel(&ns[1], "nse-1"), 1)).await.unwrap();
        wires.push(wire(&format!("near-{at}"), kernel(&ns[0], "nsm-1"), tunnel, 1));
        first.connect(&wires[at]).await.unwrap();
    }
    for ns in &ends {
        assert_packets_both_ways(ns, 1).await;
    }
    assert_eq!(first.census(Reach::Wires).await.drifted, []);
    drop(first);
    let again = near();
    for wire in &wires {
        assert_eq!(again.connect(wire).await.unwrap(), Programmed::Adopted);
    }
    for ns in &ends {
        assert_packets_both_ways(ns, 1).await;
    }
    // Beside the devices there is one table, for the second.
    let detours = before[0].diff(&Census::take(&a.netns).await.unwrap()).appeared;
    assert_eq!(detours.len(), 1, "{detours:?}");
    for wire in &wires {
        again.disconnect(&wire.id).await.unwrap();
    }
    assert_nothing_left(&before, &node).await;
}

#[tokio::test]
async fn an_identifier_that_a_device_of_somebody_else_has_is_issued_to_nobody() {
    let Some((network, linux)) = nodes("192.0.2.0/24").await else { return };
    let [a, b] = network.nodes() else { unreachable!("two were asked for") };
    ip(&b.netns, "link add theirs type vxlan id 2 dstport 4789").await;
    let underlay = Underlay::new(b.ip()).with_vnis(Vnis::within(2..=4, Random::seeded(1)));
    let far = Linux::with_underlay("fwd-b", underlay, b.netns.clone()).unwrap();
    far.census(Reach::Everywhere).await;
    let mut tunnel = linux[0].offers("near", Class::Remote, payload::IP).remove(0);
    let _lease = far.accept("far", &mut tunnel, None).unwrap();
    assert_eq!(tunnel.as_vxlan().unwrap().vni(), Ok(Some(4)));
    let mut another = Underlay::new(a.ip()).offer();
    assert_eq!(far.accept("another", &mut another, None).unwrap_err().code(), Code::ResourceExhausted);
    ip(&b.netns, "link del theirs").await;
    far.census(Reach::Everywhere).await;
    let _lease = far.accept("another", &mut another, None).unwrap();
    assert_eq!(another.as_vxlan().unwrap().vni(), Ok(Some(2)));
}

#[tokio::test]
async fn a_network_too_narrow_for_what_is_asked_for_is_told_with_its_sizes() {
    let Some((network, linux)) = nodes("192.0.2.0/24").await else { return };
    let Some(ns) = workloads().await else { return };
    let before = census(&ns).await;
    let [a, _] = network.nodes() else { unreachable!("two were asked for") };
    let narrow = Underlay::new(a.ip()).with_mtu(1300);
    let narrow = Linux::with_underlay("fwd-a", narrow, a.netns.clone()).unwrap();
    let (tunnel, _lease) = negotiated(&[narrow.clone(), linux[1].clone()]);
    for (linux, wire) in [
        (&narrow, wire("near", kernel(&ns[0], "nsm-1"), tunnel.clone(), 1)),
        (&linux[1], wire("far", tunnel.clone(), kernel(&ns[1], "nse-1"), 1)),
    ] {
        let error = linux.connect(&wire).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert!(error.to_string().contains("1246") && error.to_string().contains("1280"), "{error}");
    }
    assert_nothing_left(&before, &ns).await;
    // Without IPv6 it is wide enough; then the interface that leads there becomes narrower still.
    let mut four = wire("near", kernel(&ns[0], "nsm-1"), tunnel, 1);
    let addresses = four.context.ip_context.as_mut().unwrap();
    addresses.src_ip_addrs.pop();
    addresses.dst_ip_addrs.pop();
    four.context.mtu = 1246;
    narrow.connect(&four).await.unwrap();
    narrow.disconnect("near").await.unwrap();
    ip(&a.netns, "link set uplink mtu 1280").await;
    let error = narrow.connect(&four).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.to_string().contains("1296") && error.to_string().contains("1280"), "{error}");
    assert_nothing_left(&before, &ns).await;
}

async fn on_unequal_ports(prefix: &str) {
    let Some((network, _)) = nodes(prefix).await else { return };
    let Some(ns) = workloads().await else { return };
    let [a, b] = network.nodes() else { unreachable!("two were asked for") };
    let linux = |node: &Node, name: &str, port| {
        Linux::with_underlay(name, Underlay::new(node.ip()).on_port(port), node.netns.clone()).unwrap()
    };
    let linux = [linux(a, "fwd-a", 4789), linux(b, "fwd-b", 8472)];
    let (tunnel, _lease) = negotiated(&linux);
    linux[0].connect(&wire("near", kernel(&ns[0], "nsm-1"), tunnel.clone(), 1)).await.unwrap();
    linux[1].connect(&wire("far", tunnel.clone(), kernel(&ns[1], "nse-1"), 1)).await.unwrap();
    assert_packets_both_ways(&ns, 1).await;
    // Taken up again it still knows the other port.
    let again = Linux::with_underlay("fwd-a", Underlay::new(a.ip()), a.netns.clone()).unwrap();
    let near = wire("near", kernel(&ns[0], "nsm-1"), tunnel, 1);
    assert_eq!(again.connect(&near).await.unwrap(), Programmed::Adopted);
    assert_packets_both_ways(&ns, 1).await;
}

#[tokio::test]
async fn nodes_that_listen_on_different_ports_reach_each_other_over_ipv4() {
    on_unequal_ports("192.0.2.0/24").await;
}

#[tokio::test]
async fn nodes_that_listen_on_different_ports_reach_each_other_over_ipv6() {
    on_unequal_ports("2001:db8::/64").await;
}

#[tokio::test]
async fn what_cannot_be_a_tunnel_is_refused_with_a_reason() {
    let Some((_network, linux)) = nodes("192.0.2.0/24").await else {
        return;
    };
    let Some(ns) = workloads().await else { return };
    let (tunnel, _lease) = negotiated(&linux);
    let half = wire("1", kernel(&ns[0], "nsm-1"), linux[0].offers("near", Class::Remote, payload::IP).remove(0), 1);
    assert_eq!(linux[0].connect(&half).await.unwrap_err().code(), Code::InvalidArgument);
    let nowhere = Wire { caller: tunnel.clone(), next: Mechanism::new("REMOTE", "SRV6"), ..half };
    assert_eq!(linux[0].connect(&nowhere).await.unwrap_err().code(), Code::Unimplemented);
    assert_eq!(linux[0].wires(), 0);
}

#[tokio::test]
async fn a_restarted_forwarder_takes_up_its_tunnel_but_no_other() {
    let Some((network, linux)) = nodes("192.0.2.0/24").await else {
        return;
    };
    let Some(ns) = workloads().await else { return };
    let (tunnel, _lease) = negotiated(&linux);
    let near = wire("1", kernel(&ns[0], "nsm-1"), tunnel.clone(), 1);
    linux[0].connect(&near).await.unwrap();
    linux[1].connect(&wire("1", tunnel, kernel(&ns[1], "nse-1"), 1)).await.unwrap();
    let made = index(&ns[0], "nsm-1").await;
    let restarted = |number: usize, name: &str| {
        let node = &network.nodes()[number];
        Linux::with_underlay(name, Underlay::new(node.ip()), node.netns.clone()).unwrap()
    };
    let again = restarted(0, "fwd-a");
    assert_eq!(again.connect(&near).await.unwrap(), Programmed::Adopted);
    assert_eq!(index(&ns[0], "nsm-1").await, made);
    assert_packets_both_ways(&ns, 1).await;

    // The other side has issued another identifier: the device of the former one would carry nothing.
    let both = [restarted(0, "fwd-a"), restarted(1, "fwd-b")];
    let (tunnel, _lease) = negotiated(&both);
    assert_eq!(
        both[0].connect(&wire("1", kernel(&ns[0], "nsm-1"), tunnel.clone(), 1)).await.unwrap(),
        Programmed::Made
    );
    both[1].connect(&wire("1", tunnel, kernel(&ns[1], "nse-1"), 1)).await.unwrap();
    assert_packets_both_ways(&ns, 1).await;
}

#[tokio::test]
async fn two_restarted_forwarders_take_up_their_tunnel_by_its_mark() {
    let Some((network, linux)) = nodes("192.0.2.0/24").await else {
        return;
    };
    let Some(ns) = workloads().await else { return };
    // By its process the workload is found.
    let mut child = ns[1].run(|| Command::new("sleep").arg("1000").spawn()).await.unwrap();
    let (tunnel, lease) = negotiated(&linux);
    linux[0].connect(&wire("near", kernel(&ns[0], "nsm-1"), tunnel.clone(), 1)).await.unwrap();
    linux[1].connect(&wire("far", tunnel.clone(), kernel(&ns[1], "nse-1"), 1)).await.unwrap();
    let made = (index(&ns[0], "nsm-1").await, index(&ns[1], "nse-1").await);
    drop((lease, linux));

    let [a, b] = network.nodes() else { unreachable!("two were asked for") };
    let again = [(a, "fwd-a"), (b, "fwd-b")]
        .map(|(node, name)| Linux::with_underlay(name, Underlay::new(node.ip()), node.netns.clone()).unwrap());
    let found = again[1].census(Reach::Everywhere).await.strays.len();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(found, 1);
    // Another connection gets another one, and so does this one from another node.
    let offered = || again[0].offers("near", Class::Remote, payload::IP).remove(0);
    let mut elsewhere = Underlay::new("192.0.2.77".parse().unwrap()).offer();
    for (id, mechanism) in [("other", &mut offered()), ("far", &mut elsewhere)] {
        let _lease = again[1].accept(id, mechanism, None).unwrap();
        assert_ne!(mechanism.as_vxlan().unwrap().vni(), tunnel.as_vxlan().unwrap().vni(), "{id}");
    }
    let (tunnel, _lease) = negotiated(&again);
    for (linux, wire) in [
        (&again[0], wire("near", kernel(&ns[0], "nsm-1"), tunnel.clone(), 1)),
        (&again[1], wire("far", tunnel, kernel(&ns[1], "nse-1"), 1)),
    ] {
        assert_eq!(linux.connect(&wire).await.unwrap(), Programmed::Adopted);
    }
    assert_eq!((index(&ns[0], "nsm-1").await, index(&ns[1], "nse-1").await), made);
    assert_packets_both_ways(&ns, 1).await;
}

#[tokio::test]
async fn who_knew_the_former_interface_learns_of_the_new_one_at_once() {
    let Some((_network, linux)) = nodes("192.0.2.0/24").await else {
        return;
    };
    let Some(ns) = workloads().await else { return };
    let Some(third) = netns().await else { return };
    let (tunnel, _lease) = negotiated(&linux);
    let ethernet = |id: &str, caller: Mechanism, next: Mechanism| {
        let mut wire = wire(id, caller, next, 1);
        wire.payload = payload::ETHERNET.into();
        let ip = wire.context.ip_context.as_mut().unwrap();
        ip.src_ip_addrs = vec!["10.1.0.1/24".into(), "fd01::1/64".into()];
        ip.dst_ip_addrs = Vec::new();
        wire
    };
    // The endpoint is a bridge, with a third party behind it.
    linux[1].connect(&ethernet("far", tunnel.clone(), kernel(&ns[1], "nse-1"))).await.unwrap();
    let port = InterfaceSpec::new("port", "theirs").unwrap();
    let theirs = ["10.1.0.3/24", "fd01::3/64"];
    let theirs = theirs
        .iter()
        .fold(InterfaceSpec::new("eth0", "theirs").unwrap(), |spec, net| spec.with_address(net.parse().unwrap()));
    VethWire::create((&ns[1], &port), (&third, &theirs), PeerNeighbours::Learned).await.unwrap();
    for arguments in
        ["link add br0 type bridge", "link set br0 up", "link set port master br0", "link set nse-1 master br0"]
    {
        ip(&ns[1], arguments).await;
    }
    let asks = async |within| {
        let pinger = Pinger::new(&third).await.unwrap();
        let mut answered = Vec::new();
        for (own, client) in [("10.1.0.3", "10.1.0.1"), ("fd01::3", "fd01::1")] {
            answered.push(pinger.ping(own.parse().unwrap(), client.parse().unwrap(), within).await.is_ok());
        }
        answered
    };
    linux[0].connect(&ethernet("near", kernel(&ns[0], "nsm-1"), tunnel.clone())).await.unwrap();
    assert_eq!(asks(Duration::from_secs(5)).await, [true, true]);

    // Another connection takes its place, with another hardware address. What the third party knows is fresh, so the
    // kernel would go on for half a minute before it doubts it.
    linux[0].disconnect("near").await.unwrap();
    linux[0].connect(&ethernet("again", kernel(&ns[0], "nsm-1"), tunnel)).await.unwrap();
    let begun = tokio::time::Instant::now();
    while asks(Duration::from_millis(20)).await != [true, true] {
        assert!(begun.elapsed() < Duration::from_millis(900), "still asks the interface of before");
    }
    println!("reached after {:?}", begun.elapsed());
    linux[0].disconnect("again").await.unwrap();
    linux[1].disconnect("far").await.unwrap();
}
