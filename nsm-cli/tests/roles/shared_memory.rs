use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::echo;
use crate::kit::may_make_namespaces;
use crate::mesh::Mesh;

const SHARED: [(&str, &str); 1] = [("NSM_NETWORK_SERVICES", "memif://vpn")];

/// Where a client says that its shared memory is.
fn socket(said: &str) -> PathBuf {
    let (_, rest) = said.rsplit_once("memif at ").unwrap();
    rest.split(',').next().unwrap().into()
}

#[tokio::test]
async fn a_program_finds_the_shared_memory_of_a_client_also_after_that_was_killed() {
    if !may_make_namespaces() {
        return;
    }
    let mut mesh = Mesh::without_client().await;
    let before = mesh.census().await;
    let ends = ["172.16.1.1".parse().unwrap(), "172.16.1.0".parse().unwrap()];
    for _life in 0..2 {
        mesh.start_client_with(&SHARED, "nsc-1-0 up: memif at /proc/").await;
        let said = mesh.client.as_ref().unwrap().said();
        assert!(said.contains(", vpn of nse-1"), "{said}");
        echo::answers(&socket(&said), ends).await;
        mesh.client.take().unwrap().kill();
    }
    mesh.start_client_with(&[SHARED[0], ("NSM_EVENTS", "json")], "\"event\":\"up\"").await;
    let client = mesh.client.take().unwrap();
    let said = client.said();
    let event = said.lines().find(|line| line.contains("\"up\"")).unwrap();
    let event: serde_json::Value = serde_json::from_str(event).unwrap();
    assert_eq!(event.get("interface"), None);
    echo::answers(Path::new(event["socket"].as_str().unwrap()), ends).await;
    client.signal(Signal::SIGTERM);
    let (code, said) = client.ends().await;
    assert_eq!(code, Some(0), "{said}");
    let after = mesh.census().await;
    for (before, after) in before.iter().zip(&after) {
        assert!(before.diff(after).appeared.is_empty(), "{}", before.diff(after));
    }
    mesh.stop().await;
}

#[tokio::test]
async fn what_a_client_has_not_is_refused_by_name_with_what_it_has() {
    if !may_make_namespaces() {
        return;
    }
    let mut mesh = Mesh::without_client().await;
    let manager = mesh.room.socket("nsmgr");
    let settings = [("NSM_CONNECT_TO", manager.as_str()), ("NSM_NETWORK_SERVICES", "kernel://vpn,vfio://vpn")];
    let client = mesh.room.nsm("client", Some(&mesh.client_netns), &mesh.with_identity(&settings));
    let (code, said) = mesh.room.start("refused", client).ends().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("vfio://vpn asks for VFIO") && said.contains("or memif://service"), "{said}");
    mesh.stop().await;
}
