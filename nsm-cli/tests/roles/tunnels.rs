use nsm_kernel::{Netns, Pinger, Underlay, links_with_mark};
use std::time::Duration;

use crate::kit::{Program, Room, may_make_namespaces};

#[tokio::test]
async fn two_nodes_are_joined_by_a_tunnel() {
    if may_make_namespaces() {
        joined("ETHERNET", "", " vxlan ").await;
    }
}

#[tokio::test]
async fn two_nodes_are_joined_by_an_encrypted_tunnel_if_that_is_preferred() {
    if !may_make_namespaces() {
        return;
    }
    match std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => joined("IP", "WIREGUARD", " wireguard").await,
        Err(error) => println!("SKIPPED: /dev/net/tun cannot be opened: {error}"),
    }
}

/// Packets get from a client on one node to an endpoint of this payload on another, by forwarders that prefer this mechanism; the
/// mark of the client's interface says by what tunnel.
async fn joined(payload: &str, priority: &str, tunnel: &str) {
    let room = Room::new();
    let id = room.path("x").parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let network = Underlay::create(2, "198.51.100.0/24".parse().unwrap()).await.unwrap();
    let (client_netns, endpoint_netns) = (Netns::create().await.unwrap(), Netns::create().await.unwrap());
    let identity = ("NSM_INSECURE", "true");
    let registry = room.socket("registry");
    let mut programs: Vec<Program> =
        vec![room.start("registry", room.nsm("registry", None, &[identity, ("NSM_LISTEN_ON", &registry)]))];
    programs[0].says("listens on").await;
    for (number, node) in (1..).zip(network.nodes()) {
        let (manager, name) = (room.socket(&format!("nsmgr-{number}")), format!("nsmgr-{number}"));
        // Others are told the address of the node, which it finds by itself.
        let listen = format!("{manager},tcp://:5001");
        let settings = [identity, ("NSM_NAME", &name), ("NSM_LISTEN_ON", &listen), ("NSM_REGISTRY_URL", &registry)];
        programs.push(room.start(&name, room.nsm("manager", Some(&node.netns), &settings)));
        programs.last_mut().unwrap().says("listens on").await;
        let (listen, name) = (room.socket(&format!("forwarder-{number}")), format!("{id}-{number}"));
        let address = node.ip().to_string();
        let settings = [
            identity,
            ("NSM_NAME", &name),
            ("NSM_LISTEN_ON", &listen),
            ("NSM_CONNECT_TO", &manager),
            ("NSM_TUNNEL_IP", &address),
            ("NSM_MECHANISM_PRIORITY", priority),
        ];
        programs.push(room.start(&name, room.nsm("forwarder", Some(&node.netns), &settings)));
        programs.last_mut().unwrap().says("listens on").await;
    }
    let manager = room.socket("nsmgr-2");
    let settings =
        [identity, ("NSM_CONNECT_TO", &manager), ("NSM_CIDR_PREFIX", "172.16.7.0/24"), ("NSM_PAYLOAD", payload)];
    programs.push(room.start("endpoint", room.nsm("endpoint", Some(&endpoint_netns), &settings)));
    programs.last_mut().unwrap().says("listens on").await;
    let manager = room.socket("nsmgr-1");
    let settings = [identity, ("NSM_CONNECT_TO", &manager), ("NSM_NETWORK_SERVICES", "kernel://icmp-responder/nsm-1")];
    programs.push(room.start("client", room.nsm("client", Some(&client_netns), &settings)));
    programs.last_mut().unwrap().says("nsc-0 up: interface nsm-1, 172.16.7.1/32 to 172.16.7.0/32").await;
    let pinger = Pinger::new(&client_netns).await.unwrap();
    let (from, to) = ("172.16.7.1".parse().unwrap(), "172.16.7.0".parse().unwrap());
    pinger.ping(from, to, Duration::from_secs(5)).await.unwrap();
    let made = links_with_mark(&client_netns, "nsm:").await.unwrap();
    assert!(matches!(&made[..], [link] if link.alias.contains(tunnel)), "{made:?}");
    for program in programs.into_iter().rev() {
        program.stop().await;
    }
}
