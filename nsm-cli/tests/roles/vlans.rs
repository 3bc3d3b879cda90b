use std::time::Duration;

use nsm_kernel::{InterfaceSpec, Netns, PeerNeighbours, Pinger, Underlay, VethWire, VlanPort};

use crate::kit::{Room, may_make_namespaces, write};

/// The endpoint says where, the forwarder knows by which interface, and the client talks to a host outside that knows nothing of
/// any mesh.
#[tokio::test]
async fn a_client_reaches_a_host_in_a_vlan_outside() {
    if !may_make_namespaces() {
        return;
    }
    if let Err(error) = VlanPort::allowed() {
        return println!("SKIPPED: {error}");
    }
    let room = Room::new();
    let id = room.path("x").parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let network = Underlay::create(2, "198.51.100.0/24".parse().unwrap()).await.unwrap();
    let [node, outside] = network.nodes() else { panic!("two were asked for") };
    let (client_netns, host) = (Netns::create().await.unwrap(), Netns::create().await.unwrap());
    let mac = [2, 0, 0, 0, 0, 0x77];
    let eth0 = InterfaceSpec::new("eth0", "host").unwrap().with_mac(mac).with_address("172.16.7.0/24".parse().unwrap());
    let port = VlanPort { uplink: "uplink".parse().unwrap(), id: 100, mac: Some(mac) };
    let port = InterfaceSpec::new("host", "host").unwrap().into_vlan(port);
    VethWire::create((&host, &eth0), (&outside.netns, &port), PeerNeighbours::Learned).await.unwrap();

    let identity = ("NSM_INSECURE", "true");
    let (registry, manager, forwarder) = (room.socket("registry"), room.socket("nsmgr"), room.socket("forwarder"));
    let selector = room.path("selector.yaml");
    write(&selector, "interfaces:\n- name: uplink\n  matches:\n  - labelSelector:\n    - via: gw1\n");
    let (selector, listen) = (selector.display().to_string(), format!("tcp://{}:5005", outside.ip()));
    let inside = Some(&node.netns);
    let roles = [
        ("registry", None, vec![("NSM_LISTEN_ON", registry.as_str())]),
        ("manager", inside, vec![("NSM_LISTEN_ON", &manager), ("NSM_REGISTRY_URL", &registry)]),
        (
            "forwarder",
            inside,
            vec![
                ("NSM_NAME", &id),
                ("NSM_LISTEN_ON", &forwarder),
                ("NSM_CONNECT_TO", &manager),
                ("NSM_DEVICE_SELECTOR_FILE", &selector),
            ],
        ),
        (
            "endpoint",
            Some(&outside.netns),
            vec![
                ("NSM_CONNECT_TO", &registry),
                ("NSM_LISTEN_ON", &listen),
                ("NSM_SERVICES", "finance { vlan: 100; via: gw1 }"),
                ("NSM_CIDR_PREFIX", "172.16.7.0/24"),
            ],
        ),
    ];
    let mut programs = Vec::new();
    for (role, netns, settings) in roles {
        programs.push(room.start(role, room.nsm(role, netns, &[&[identity], &settings[..]].concat())));
        programs.last_mut().unwrap().says("listens on").await;
    }
    let settings = [identity, ("NSM_CONNECT_TO", &manager), ("NSM_NETWORK_SERVICES", "kernel://finance/nsm-1")];
    programs.push(room.start("client", room.nsm("client", Some(&client_netns), &settings)));
    programs.last_mut().unwrap().says("nsc-0 up: interface nsm-1, 172.16.7.1/32 to 172.16.7.0/32").await;
    let pinger = Pinger::new(&client_netns).await.unwrap();
    let (from, to) = ("172.16.7.1".parse().unwrap(), "172.16.7.0".parse().unwrap());
    pinger.ping(from, to, Duration::from_secs(5)).await.unwrap();
    for program in programs.into_iter().rev() {
        program.stop().await;
    }
}
