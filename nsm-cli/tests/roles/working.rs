use nix::sys::signal::Signal;

use crate::kit::{Room, may_make_namespaces};
use crate::mesh::Mesh;

#[tokio::test]
async fn five_programs_carry_packets_and_leave_nothing() {
    if !may_make_namespaces() {
        return;
    }
    let mut mesh = Mesh::without_client().await;
    let before = mesh.census().await;
    mesh.start_client().await;
    mesh.packets_flow().await;
    let client = mesh.client.take().unwrap();
    client.signal(Signal::SIGTERM);
    let (code, said) = client.ends().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("nsc-1-0 gone: closed from here") && said.contains("nsc-1 closed 1 connection"), "{said}");
    let after = mesh.census().await;
    for (before, after) in before.iter().zip(&after) {
        let difference = before.diff(after);
        assert!(difference.appeared.is_empty(), "{difference}");
    }
    mesh.stop().await;
    assert_eq!(mesh.room.sockets(), [""; 0].map(std::path::PathBuf::from));
}

#[tokio::test]
async fn a_client_asks_until_there_is_an_endpoint_and_says_why_there_is_nothing_yet() {
    if !may_make_namespaces() {
        return;
    }
    let mut mesh = Mesh::without_client().await;
    mesh.endpoint.take().unwrap().stop().await;
    let manager = mesh.room.socket("nsmgr");
    let settings = [
        ("NSM_NAME", "nsc-1"),
        ("NSM_CONNECT_TO", manager.as_str()),
        ("NSM_REQUEST_TIMEOUT", "500ms"),
        ("NSM_NETWORK_SERVICES", "kernel://later/nsm-1,kernel://vpn/nsm-2"),
    ];
    let mut client =
        mesh.room.start("client", mesh.room.nsm("client", Some(&mesh.client_netns), &mesh.with_identity(&settings)));
    client.says("no network service \"later\" is registered").await;
    mesh.start_endpoint().await;
    client.says("nsc-1-1 up: interface nsm-2").await;
    client.stop().await;
    mesh.stop().await;
}

#[tokio::test]
async fn an_endpoint_ends_when_nobody_needs_it() {
    if !may_make_namespaces() {
        return;
    }
    let mut mesh = Mesh::without_client().await;
    let manager = mesh.room.socket("nsmgr");
    let settings =
        [("NSM_CONNECT_TO", manager.as_str()), ("NSM_IDLE_TIMEOUT", "300ms"), ("NSM_UNREGISTER_ITSELF", "true")];
    let endpoint =
        mesh.room.start("idle", mesh.room.nsm("endpoint", Some(&mesh.endpoint_netns), &mesh.with_identity(&settings)));
    let (code, said) = endpoint.ends().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("idle for 300ms"), "{said}");
    mesh.stop().await;
}

#[tokio::test]
async fn signals_change_what_is_logged_and_a_second_one_ends_at_once() {
    let room = Room::new();
    let listen = room.socket("registry");
    let settings = [("NSM_INSECURE", "true"), ("NSM_LISTEN_ON", listen.as_str())];
    let mut registry = room.start("registry", room.nsm("registry", None, &settings));
    registry.says("registry listens on unix://").await;
    registry.signal(Signal::SIGUSR1);
    registry.says("what is logged has changed wanted=\"trace\"").await;
    registry.signal(Signal::SIGUSR2);
    registry.says("what is logged has changed wanted=\"info\"").await;
    for signal in [Signal::SIGHUP, Signal::SIGQUIT] {
        let one = room.socket(signal.as_str());
        let settings = [("NSM_INSECURE", "true"), ("NSM_LISTEN_ON", one.as_str())];
        let mut other = room.start(signal.as_str(), room.nsm("registry", None, &settings));
        other.says("listens on").await;
        other.signal(signal);
        let (code, said) = other.ends().await;
        assert_eq!(code, Some(0), "{signal}: {said}");
    }
    registry.stop().await;
}

#[tokio::test]
async fn a_client_that_cannot_close_is_ended_by_a_second_signal() {
    if !may_make_namespaces() {
        return;
    }
    let mut mesh = Mesh::without_client().await;
    mesh.start_client().await;
    // Somebody is there, and does not answer.
    mesh.manager.as_ref().unwrap().signal(Signal::SIGSTOP);
    let mut client = mesh.client.take().unwrap();
    client.signal(Signal::SIGTERM);
    client.says("a second signal ends at once").await;
    client.signal(Signal::SIGINT);
    let (code, said) = client.ends().await;
    assert_eq!(code, Some(128 + Signal::SIGINT as i32), "{said}");
    mesh.manager.take().unwrap().kill();
}

#[tokio::test]
async fn a_network_service_is_applied_and_an_endpoint_leaves_it_as_it_is() {
    if !may_make_namespaces() {
        return;
    }
    let mut mesh = Mesh::without_client().await;
    let manager = mesh.room.socket("nsmgr");
    let file = mesh.room.path("other.yaml");
    crate::kit::write(
        &file,
        "apiVersion: networkservicemesh.io/v1\nkind: NetworkService\nmetadata: {name: other}\nspec: {payload: IP}\n",
    );
    let to = [("NSM_CONNECT_TO", manager.as_str())];
    let mut apply = mesh.room.nsm("apply", None, &mesh.with_identity(&to));
    apply.arg(&file);
    let (code, said) = mesh.room.start("apply", apply).ends().await;
    assert_eq!((code, said.contains("network service other applied")), (Some(0), true), "{said}");
    let settings =
        [&to[..], &[("NSM_NAME", "nse-2"), ("NSM_SERVICE_NAMES", "other"), ("NSM_PAYLOAD", "ETHERNET")]].concat();
    let mut endpoint =
        mesh.room.start("other", mesh.room.nsm("endpoint", Some(&mesh.endpoint_netns), &mesh.with_identity(&settings)));
    let said = endpoint.says("listens on").await;
    assert!(said.contains("it is registered for IP and stays so"), "{said}");
    endpoint.stop().await;
    mesh.stop().await;
}

#[tokio::test]
async fn a_registry_with_a_store_remembers_and_one_without_a_registry_may_have_one_too() {
    let room = Room::new();
    let (listen, store) = (room.socket("nsmgr"), room.path("records").display().to_string());
    let authority = room.path("authority").display().to_string();
    let identity = ("NSM_AUTHORITY", authority.as_str());
    let file = room.path("vpn.yaml");
    crate::kit::write(
        &file,
        "apiVersion: networkservicemesh.io/v1\nkind: NetworkService\nmetadata: {name: vpn}\nspec: {payload: IP}\n",
    );
    for (role, registry) in [("registry", None), ("manager", Some(("NSM_REGISTRY_URL", "")))] {
        let mut settings = vec![identity, ("NSM_LISTEN_ON", listen.as_str()), ("NSM_STORE", store.as_str())];
        settings.extend(registry);
        let mut keeper = room.start(role, room.nsm(role, None, &settings));
        keeper.says("listens on").await;
        let mut apply = room.nsm("apply", None, &[identity, ("NSM_CONNECT_TO", listen.as_str())]);
        apply.arg(&file);
        let (code, said) = room.start("apply", apply).ends().await;
        assert_eq!(code, Some(0), "{role}: {said}");
        keeper.kill();
        let mut keeper = room.start(role, room.nsm(role, None, &settings));
        keeper.says("listens on").await;
        let settings = [identity, ("NSM_CONNECT_TO", listen.as_str()), ("NSM_SERVICE_NAMES", "vpn")];
        let mut endpoint = room.start("endpoint", room.nsm("endpoint", None, &settings));
        endpoint.says("it is registered for IP and stays so").await;
        endpoint.says("listens on").await;
        endpoint.stop().await;
        keeper.stop().await;
        std::fs::remove_file(&store).unwrap();
    }
    let settings = [identity, ("NSM_STORE", store.as_str()), ("NSM_LISTEN_ON", listen.as_str())];
    let (code, said) = room.start("both", room.nsm("manager", None, &settings)).ends().await;
    assert_eq!((code, said.contains("NSM_STORE to the registry")), (Some(1), true), "{said}");
}

#[tokio::test]
async fn the_proxies_of_a_domain_serve_and_end() {
    let room = Room::new();
    let authority = room.path("authority").display().to_string();
    let [proxy, registry_proxy, registry] = ["nsmgr-proxy", "registry-proxy", "registry"].map(|name| room.socket(name));
    let settings = [
        ("NSM_AUTHORITY", authority.as_str()),
        ("NSM_LISTEN_ON", proxy.as_str()),
        ("NSM_REGISTRY_URL", registry.as_str()),
        ("NSM_REGISTRY_PROXY_URL", registry_proxy.as_str()),
    ];
    let mut program = room.start("nsmgr-proxy", room.nsm("manager-proxy", None, &settings));
    program.says("nsmgr-proxy listens on unix://").await;
    program.stop().await;
    if std::fs::read_to_string("/etc/resolv.conf").is_ok_and(|text| text.contains("nameserver")) {
        let settings = [("NSM_AUTHORITY", authority.as_str()), ("NSM_LISTEN_ON", registry_proxy.as_str())];
        let mut program = room.start("registry-proxy", room.nsm("registry-proxy", None, &settings));
        program.says("registry-proxy listens on unix://").await;
        program.stop().await;
    } else {
        println!("SKIPPED: /etc/resolv.conf names no DNS server");
    }
    assert!(room.sockets().is_empty());
}
