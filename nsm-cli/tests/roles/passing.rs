use std::time::Duration;

use nsm_kernel::{Census, Netns};

use crate::kit::{may_make_namespaces, write};
use crate::mesh::Mesh;

const CHAIN: &str = "\
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata: {name: vpn}
spec:
  payload: IP
  matches:
    - source_selector: {app: firewall}
      routes: [{destination_selector: {app: gateway}}]
    - routes: [{destination_selector: {app: firewall}}]
";
/// A packet that is dropped is never answered, however long one waits.
const DROPPED: Duration = Duration::from_millis(500);

#[tokio::test]
async fn a_firewall_is_a_program_that_passes_on_what_its_filter_allows_and_leaves_nothing() {
    if !may_make_namespaces() {
        return;
    }
    let mut mesh = Mesh::with_endpoint(&[("NSM_LABELS", "app:gateway"), ("NSM_REGISTER_SERVICE", "false")]).await;
    let manager = mesh.room.socket("nsmgr");
    let file = mesh.room.path("chain.yaml");
    write(&file, CHAIN);
    let mut apply = mesh.room.nsm("apply", None, &mesh.with_identity(&[("NSM_CONNECT_TO", &manager)]));
    apply.arg(&file);
    let (code, said) = mesh.room.start("apply", apply).ends().await;
    assert_eq!(code, Some(0), "{said}");

    let between = Netns::create().await.unwrap();
    let before = Census::take(&between).await.unwrap();
    let settings = [
        ("NSM_NAME", "firewall"),
        ("NSM_CONNECT_TO", manager.as_str()),
        ("NSM_TYPE", "firewall"),
        ("NSM_FILTER", "allow icmp,allow tcp 8080"),
        ("NSM_LABELS", "app:firewall"),
        ("NSM_SERVICE_NAMES", "vpn"),
        ("NSM_PAYLOAD", "IP"),
        ("NSM_UNREGISTER_ITSELF", "true"),
    ];
    let command = mesh.room.nsm("endpoint", Some(&between), &mesh.with_identity(&settings));
    let mut firewall = mesh.room.start("firewall", command);
    firewall.says("listens on").await;
    mesh.start_client_with(&[], "vpn of firewall").await;
    mesh.packets_flow().await;
    // Where nobody listens the kernel of the gateway says so at once, if the question comes that far.
    let asks = |port: u16| {
        let to = (std::net::Ipv4Addr::new(172, 16, 1, 0), port).into();
        tokio::time::timeout(DROPPED, mesh.client_netns.tcp_connect(to))
    };
    assert!(asks(8080).await.is_ok_and(|refused| refused.is_err()), "allowed");
    assert!(asks(80).await.is_err(), "dropped");

    mesh.client.take().unwrap().stop().await;
    firewall.stop().await;
    let after = Census::take(&between).await.unwrap();
    assert!(before.diff(&after).is_empty(), "{}", before.diff(&after));
    mesh.stop().await;
}

#[tokio::test]
async fn a_type_that_cannot_be_what_it_is_told_says_what_is_missing() {
    if !may_make_namespaces() {
        return;
    }
    let room = crate::kit::Room::new();
    let (filter, labels) = (("NSM_FILTER", "allow icmp"), ("NSM_LABELS", "app:a"));
    for (kind, set, said) in [
        ("passthrough", None, "set NSM_LABELS"),
        ("passthrough", Some(filter), "set NSM_LABELS"),
        ("icmp-responder", Some(filter), "set NSM_TYPE=firewall"),
        ("firewall", Some(labels), "its filter is empty"),
    ] {
        let mut settings = vec![("NSM_INSECURE", "true"), ("NSM_TYPE", kind)];
        settings.extend(set);
        let (code, text) = room.start("refused", room.nsm("endpoint", None, &settings)).ends().await;
        assert_eq!((code, text.contains(said)), (Some(1), true), "{kind}: {text}");
    }
}
