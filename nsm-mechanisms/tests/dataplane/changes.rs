//! A live wire is changed, and packets follow.

use nsm_api::connectioncontext::{EthernetContext, PolicyRoute, Route};
use nsm_kernel::Netns;
use nsm_mechanisms::{Dataplane, Linux, Programmed};

use super::*;

/// Has `change` made on the wire, in place; says how many writes that took.
async fn changed(linux: &Linux, wire: &mut Wire, change: impl FnOnce(&mut Wire)) -> usize {
    change(wire);
    match linux.connect(wire).await.unwrap() {
        Programmed::Changed { writes } => writes,
        other => panic!("{other:?}"),
    }
}

/// Whether a datagram of this many octets, sent from the client, arrives at this address of the endpoint.
async fn arrives([client, endpoint]: &[Netns; 2], to: &str, size: usize) -> bool {
    let to: std::net::SocketAddr = to.parse().unwrap();
    let Ok(server) = endpoint.udp_socket(to).await else { panic!("{to} is no address of the endpoint") };
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let sender = client.udp_socket(any.parse().unwrap()).await.unwrap();
    // No route, or too large, is told at once; or else the packet is on its way.
    if sender.send_to(&vec![7; size], to).await.is_err() {
        return false;
    }
    let mut buffer = vec![0; 65_536];
    let received = tokio::time::timeout(Duration::from_secs(5), server.recv_from(&mut buffer)).await;
    received.is_ok_and(|received| received.unwrap().0 == size)
}

#[tokio::test]
async fn routes_policies_mtu_and_hardware_addresses_are_followed() {
    let Some(ns) = workloads().await else { return };
    let before = census(&ns).await;
    let linux = Linux::new("fwd").unwrap();
    let mut wire = wire("1", kernel(&ns[0], "nsm-1"), kernel(&ns[1], "nse-1"), 1);
    linux.connect(&wire).await.unwrap();
    let made = index(&ns[0], "nsm-1").await;
    for address in ["172.16.0.1/32", "192.0.2.1/32"] {
        mend::ip(&ns[1], &format!("addr add {address} dev lo")).await;
    }
    let route = |prefix: &str| Route { prefix: prefix.into(), next_hop: String::new() };

    // A prefix more, and one less.
    assert!(!arrives(&ns, "172.16.0.1:7000", 100).await);
    changed(&linux, &mut wire, |wire| ip(wire).src_routes = vec![route("172.16.0.0/16")]).await;
    assert!(arrives(&ns, "172.16.0.1:7000", 100).await);
    changed(&linux, &mut wire, |wire| ip(wire).src_routes.clear()).await;
    assert!(!arrives(&ns, "172.16.0.1:7000", 100).await);

    // Traffic of one port goes another way than the rest; then that of another port.
    let policy = |port: &str| PolicyRoute { proto: "17".into(), dst_port: port.into(), ..Default::default() };
    for (port, chosen, other) in
        [("6666", "192.0.2.1:6666", "192.0.2.1:7777"), ("7777", "192.0.2.1:7777", "192.0.2.1:6666")]
    {
        changed(&linux, &mut wire, |wire| ip(wire).policies = vec![policy(port)]).await;
        assert!(arrives(&ns, chosen, 100).await && !arrives(&ns, other, 100).await, "{port}");
    }
    changed(&linux, &mut wire, |wire| ip(wire).policies.clear()).await;
    assert!(!arrives(&ns, "192.0.2.1:7777", 100).await);

    // The largest packet, with the headers of IPv4 and UDP.
    for mtu in [1400, 1280, 9000] {
        assert_eq!(changed(&linux, &mut wire, |wire| wire.context.mtu = mtu).await, 2);
        assert_eq!(mtu_of(&ns[0], "nsm-1").await, mtu);
        assert!(arrives(&ns, "10.1.0.0:7000", mtu as usize - 28).await, "{mtu}");
    }

    // Each end knows the other's new hardware address: nobody asks on this wire.
    for mac in ["02:aa:00:00:00:01", "02:aa:00:00:00:02"] {
        let ethernet = EthernetContext { src_mac: mac.into(), dst_mac: mac.replace("aa", "bb"), ..Default::default() };
        changed(&linux, &mut wire, |wire| wire.context.ethernet_context = Some(ethernet)).await;
        assert_packets_both_ways(&ns, 1).await;
    }
    assert_eq!(index(&ns[0], "nsm-1").await, made, "it is one interface all the time");
    linux.disconnect("1").await.unwrap();
    for address in ["172.16.0.1/32", "192.0.2.1/32"] {
        mend::ip(&ns[1], &format!("addr del {address} dev lo")).await;
    }
    assert_nothing_left(&before, &ns).await;
}

fn ip(wire: &mut Wire) -> &mut IpContext {
    wire.context.ip_context.as_mut().unwrap()
}

async fn mtu_of(netns: &Netns, interface: &str) -> u32 {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/mtu");
    netns.run(move || std::fs::read_to_string(path)).await.unwrap().trim().parse().unwrap()
}

/// What a sidecar that listens on the loopback address needs: both parameters of the mechanism.
#[tokio::test]
async fn packets_for_a_loopback_address_arrive_as_long_as_that_is_asked_for() {
    let Some(ns) = workloads().await else { return };
    let linux = Linux::new("fwd").unwrap();
    let mut wire = wire("1", kernel(&ns[0], "nsm-1"), kernel(&ns[1], "nse-1"), 1);
    let set = |wire: &mut Wire, allowed: bool| {
        let mut endpoint = wire.next.as_kernel_mut().unwrap();
        let template = "-A PREROUTING -i {{ .NsmInterfaceName }} -p udp -j DNAT --to-destination 127.0.0.1:8080";
        endpoint.set_iptables4_nat_template(template).set_route_local_net(allowed);
    };
    let arrive = async || {
        let server = ns[1].udp_socket("127.0.0.1:8080".parse().unwrap()).await.unwrap();
        let client = ns[0].udp_socket("0.0.0.0:0".parse().unwrap()).await.unwrap();
        client.connect("10.1.0.0:1000").await.unwrap();
        client.send(b"x").await.unwrap();
        let mut buffer = [0; 8];
        let received = tokio::time::timeout(Duration::from_millis(500), server.recv_from(&mut buffer)).await;
        let Ok(received) = received else { return false };
        // The answer has the address that was asked.
        server.send_to(b"yes", received.unwrap().1).await.unwrap();
        tokio::time::timeout(Duration::from_secs(5), client.recv(&mut buffer)).await.is_ok()
    };
    set(&mut wire, true);
    linux.connect(&wire).await.unwrap();
    assert!(arrive().await);
    changed(&linux, &mut wire, |wire| set(wire, false)).await;
    assert!(!arrive().await);
    changed(&linux, &mut wire, |wire| set(wire, true)).await;
    assert!(arrive().await);
    linux.disconnect("1").await.unwrap();
}
