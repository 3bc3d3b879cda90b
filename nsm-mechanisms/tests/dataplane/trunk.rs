//! An endpoint with one interface for several clients. What works on its frames is here a host for each VLAN, behind the interface.

use std::process::Command;

use nsm_api::mechanism::KERNEL;
use nsm_chain::{Begin, Call, Chain, Code, OwnedNext, elements, from_fn};
use nsm_kernel::{InterfaceSpec, PeerNeighbours, Underlay as Network, VethWire, VlanPort, reconcile};
use nsm_mechanisms::{
    Class, Dataplane, KernelAccept, Linux, Mechanisms, Mended, Programmed, Reach, Reconciled, Underlay, Workload,
};

use super::mesh::{asked, client, forwarder};
use super::vlan::needs_bpf;
use super::*;

const TRUNK: &str = "trunk0";

fn linux(name: &str, node: &Netns) -> Linux {
    Linux::new(name).unwrap().with_trunks(node.clone()).unwrap()
}

fn shared(endpoint: &Netns, vlan: u16) -> Mechanism {
    let mut mechanism = kernel(endpoint, TRUNK);
    mechanism.as_kernel_mut().unwrap().set_vlan(vlan).unwrap();
    mechanism
}

/// A host behind the endpoint's interface, which has the endpoint's addresses for the client of this number.
struct Host {
    netns: Netns,
    wire: VethWire,
    port: InterfaceSpec,
}

impl Host {
    async fn new(endpoint: &Netns, vlan: u16, number: u8) -> Self {
        let netns = Netns::create().await.unwrap();
        let mac = [2, 0, 0, 0, 1, number];
        let mut inside = InterfaceSpec::new("eth0", "host").unwrap().with_mac(mac).with_mtu(1500);
        for (own, other) in addresses(number, 0).into_iter().zip(addresses(number, 1)) {
            inside = inside.with_address(own.into()).with_route(other.into(), None);
        }
        let port = VlanPort { uplink: TRUNK.parse().unwrap(), id: vlan, mac: Some(mac) };
        let port = InterfaceSpec::new(&format!("host-{number}"), "host").unwrap().with_mtu(1500).into_vlan(port);
        let wire = VethWire::create((&netns, &inside), (endpoint, &port), PeerNeighbours::Learned).await.unwrap();
        Self { netns, wire, port }
    }
}

#[tokio::test]
async fn clients_of_one_interface_are_told_apart_and_it_goes_with_the_last_of_them() {
    needs_bpf!();
    let (Some(clients), Some([endpoint, node])) = (workloads().await, workloads().await) else { return };
    let places = [clients[0].clone(), clients[1].clone(), endpoint.clone(), node.clone()];
    let before = census(&places).await;
    let wires = [0, 1].map(|at: usize| {
        let (id, vlan) = (at.to_string(), at as u16 + 1);
        wire(&id, kernel(&clients[at], "nsm-1"), shared(&endpoint, vlan), vlan as u8)
    });
    let first = linux("fwd", &node);
    for wire in &wires {
        assert_eq!(first.connect(wire).await.unwrap(), Programmed::Made);
        assert_eq!(first.connect(wire).await.unwrap(), Programmed::Unchanged);
    }
    let hosts = [Host::new(&endpoint, 1, 1).await, Host::new(&endpoint, 2, 2).await];
    let flow = async || {
        for at in [0, 1] {
            assert_packets_both_ways(&[clients[at].clone(), hosts[at].netns.clone()], at as u8 + 1).await;
        }
    };
    flow().await;
    // Who takes the other's addresses for its own sees nothing of it.
    let other = || Command::new("ip").args(["route", "add", "10.2.0.0/32", "dev", "nsm-1"]).status();
    assert!(clients[0].run(other).await.unwrap().success());
    assert!(!answers(&clients[0], "10.1.0.1".parse().unwrap(), "10.2.0.0".parse().unwrap()).await);

    let linux = linux("fwd", &node);
    for wire in &wires {
        assert_eq!(linux.connect(wire).await.unwrap(), Programmed::Adopted);
    }
    flow().await;
    let whole = linux.census(Reach::Wires).await;
    assert!(whole.strays.is_empty() && whole.drifted.is_empty(), "{whole:?}");

    let cut = || Command::new("ip").args(["link", "delete", TRUNK]).status();
    assert!(endpoint.run(cut).await.unwrap().success());
    let damaged = linux.census(Reach::Wires).await;
    assert_eq!((damaged.strays.len(), damaged.drifted.len()), (0, 2));
    for id in damaged.drifted {
        assert!(matches!(linux.mend(&id).await.unwrap(), Mended::Changed { .. }));
    }
    for host in &hosts {
        reconcile(&endpoint, &host.port).await.unwrap();
    }
    flow().await;

    linux.disconnect("0").await.unwrap();
    assert_packets_both_ways(&[clients[1].clone(), hosts[1].netns.clone()], 2).await;
    linux.disconnect("1").await.unwrap();
    for host in hosts {
        host.wire.delete().await.unwrap();
    }
    assert_nothing_left(&before, &places).await;
}

#[tokio::test]
async fn an_interface_that_nobody_uses_after_a_restart_is_found_and_one_in_use_is_not() {
    needs_bpf!();
    let (Some(clients), Some([endpoint, node])) = (workloads().await, workloads().await) else { return };
    let earlier = linux("fwd", &node);
    let wires = [0, 1]
        .map(|at: usize| wire(&at.to_string(), kernel(&clients[at], "nsm-1"), shared(&endpoint, at as u16 + 1), 1));
    for wire in &wires {
        earlier.connect(wire).await.unwrap();
    }
    let restarted = linux("fwd", &node);
    restarted.connect(&wires[0]).await.unwrap();
    // Of the other connection only its own are nobody's.
    let strays = restarted.census(Reach::Wires).await.strays;
    assert!(strays.iter().all(|stray| !stray.mark.contains(TRUNK)) && !strays.is_empty(), "{strays:?}");
    for stray in &strays {
        restarted.remove(stray).await.unwrap();
    }
    assert!(restarted.census(Reach::Wires).await.strays.is_empty());
    restarted.disconnect("0").await.unwrap();
    assert_eq!(index(&endpoint, TRUNK).await, None, "a filter of a connection that is gone keeps it");
}

#[tokio::test]
async fn a_client_on_another_node_gets_there_over_a_tunnel() {
    needs_bpf!();
    let network = match Network::create(2, "192.0.2.0/24".parse().unwrap()).await {
        Ok(network) => network,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let Some([client, endpoint]) = workloads().await else { return };
    let [a, b] = network.nodes() else { unreachable!("two were asked for") };
    let places = [client.clone(), endpoint.clone(), a.netns.clone(), b.netns.clone()];
    let before = census(&places).await;
    let near = Linux::with_underlay("fwd-a", Underlay::new(a.ip()), a.netns.clone()).unwrap();
    let far = Linux::with_underlay("fwd-b", Underlay::new(b.ip()), b.netns.clone()).unwrap();
    let far = far.with_trunks(b.netns.clone()).unwrap();
    let mut tunnel = near.offers("near", Class::Remote, payload::IP).remove(0);
    let _lease = far.accept("far", &mut tunnel, None).unwrap();
    let mtu = tunnel.as_vxlan().unwrap().mtu().unwrap().unwrap();
    let mut wires =
        [wire("near", kernel(&client, "nsm-1"), tunnel.clone(), 1), wire("far", tunnel, shared(&endpoint, 7), 1)];
    wires.iter_mut().for_each(|wire| wire.context.mtu = mtu);
    near.connect(&wires[0]).await.unwrap();
    far.connect(&wires[1]).await.unwrap();
    let host = Host::new(&endpoint, 7, 1).await;
    assert_packets_both_ways(&[client.clone(), host.netns.clone()], 1).await;
    assert!(far.census(Reach::Wires).await.drifted.is_empty());
    near.disconnect("near").await.unwrap();
    far.disconnect("far").await.unwrap();
    host.wire.delete().await.unwrap();
    assert_nothing_left(&before, &places).await;
}

#[tokio::test]
async fn the_endpoint_gives_each_client_a_vlan_and_takes_it_back() {
    needs_bpf!();
    let (Some(clients), Some([endpoint, node])) = (workloads().await, workloads().await) else { return };
    let accept = KernelAccept::new().in_netns(Workload::of(&endpoint)).trunk(TRUNK).unwrap();
    let mechanisms = Mechanisms::new().with(KERNEL, accept).unwrap();
    let addresses = from_fn(|mut call: Call, next: OwnedNext| {
        call.connection_mut().context = Some(context(1));
        async move { next.request(call).await }
    });
    let serves = Chain::new("nse", elements![Begin::default(), mechanisms, addresses]).unwrap();
    let linux = linux("fwd", &node);
    let ask = async |at: usize, id: &str, plane: &Linux| {
        let mut call = asked();
        call.connection_mut().id = id.into();
        call.connection_mut().path.as_mut().unwrap().path_segments[0].id = id.into();
        let chain = client(&clients[at], forwarder(plane, "unix:///nse.sock", elements![], serves.clone()));
        chain.request(call).await.map(|call| (chain, call))
    };
    let (first, second) = (ask(0, "1", &linux).await.unwrap(), ask(1, "2", &linux).await.unwrap());
    assert!(index(&endpoint, TRUNK).await.is_some());
    for (vlan, at) in [(1, 0), (2, 1)] {
        let host = Host::new(&endpoint, vlan, 1).await;
        assert_packets_both_ways(&[clients[at].clone(), host.netns.clone()], 1).await;
        host.wire.delete().await.unwrap();
        VlanPort::release(&TRUNK.parse().unwrap(), &endpoint, &host.port.name).await.unwrap();
    }
    first.0.close(Call::new(first.1.share())).await.unwrap();
    let third = ask(0, "3", &linux).await.unwrap();
    let host = Host::new(&endpoint, 1, 1).await;
    assert_packets_both_ways(&[clients[0].clone(), host.netns.clone()], 1).await;
    for (chain, call) in [second, third] {
        chain.close(Call::new(call.share())).await.unwrap();
    }
    assert_eq!(index(&endpoint, TRUNK).await, None);
    // A forwarder that has no such thing is told so, and nothing is made.
    let refused = ask(0, "4", &Linux::new("other").unwrap()).await.map(drop).unwrap_err();
    assert!(
        refused.code() == Code::Unimplemented && refused.to_string().contains("one interface for all clients"),
        "{refused}"
    );
}
