use std::process::Command;
use std::time::Duration;

use nsm_kernel::{Census, Netns};
use tokio::time::{Instant, sleep};

use crate::kit::{PATIENCE, may_make_namespaces};
use crate::mesh::Mesh;

#[tokio::test]
async fn packets_flow_on_whatever_is_killed_and_comes_back() {
    if !may_make_namespaces() {
        return;
    }
    let mut mesh = Mesh::without_client().await;
    mesh.start_client().await;
    mesh.packets_flow().await;

    mesh.registry.take().unwrap().kill();
    mesh.ping("172.16.1.1", "172.16.1.0").await.unwrap();
    mesh.start_registry().await;
    mesh.ping("172.16.1.1", "172.16.1.0").await.unwrap();

    mesh.manager.take().unwrap().kill();
    mesh.ping("172.16.1.1", "172.16.1.0").await.unwrap();
    mesh.start_manager().await;
    mesh.client.as_mut().unwrap().says("; mended: ").await;
    mesh.ping("172.16.1.1", "172.16.1.0").await.unwrap();

    mesh.forwarder.take().unwrap().kill();
    mesh.ping("172.16.1.1", "172.16.1.0").await.unwrap();
    mesh.start_forwarder().await;
    mesh.client.as_mut().unwrap().says_times("; mended: ", 2).await;
    mesh.ping("172.16.1.1", "172.16.1.0").await.unwrap();

    mesh.endpoint.take().unwrap().kill();
    mesh.client.as_mut().unwrap().says("nsc-1-0 down: ").await;
    mesh.start_endpoint().await;
    mesh.client.as_mut().unwrap().says_times("nsc-1-0 up: ", 2).await;
    mesh.packets_flow().await;

    let before = mesh.census().await;
    mesh.client.take().unwrap().stop().await;
    let [client, endpoint] = mesh.census().await;
    let gone = before[0].diff(&client).vanished.len() + before[1].diff(&endpoint).vanished.len();
    assert!(gone > 0, "closing took the interfaces away");
    for census in [&client, &endpoint] {
        assert!(!format!("{census:?}").contains("nsm-1"), "{census:?}");
    }
    mesh.stop().await;
}

#[tokio::test]
async fn a_client_that_was_killed_goes_on_with_what_it_had() {
    if !may_make_namespaces() {
        return;
    }
    let mut mesh = Mesh::without_client().await;
    mesh.start_client().await;
    mesh.packets_flow().await;
    let before = mesh.census().await;
    mesh.client.take().unwrap().kill();
    mesh.ping("172.16.1.1", "172.16.1.0").await.unwrap();
    mesh.start_client().await;
    let said = mesh.client.as_mut().unwrap().says("an earlier life is continued").await;
    assert!(said.contains("endpoint=\"nse-1\""), "{said}");
    mesh.packets_flow().await;
    // The very same interfaces, addresses and routes.
    for (before, after) in before.iter().zip(mesh.census().await) {
        let difference = before.diff(&after);
        assert!(difference.appeared.is_empty() && difference.vanished.is_empty(), "{difference}");
    }
    mesh.stop().await;
    let [client, _] = mesh.census().await;
    assert!(!format!("{client:?}").contains("nsm-1"), "{client:?}");
}

#[tokio::test]
async fn a_client_that_dies_with_its_namespace_is_closed_at_its_endpoint_at_once() {
    if !may_make_namespaces() {
        return;
    }
    let mut mesh = Mesh::without_client().await;
    let before = mesh.census().await;
    mesh.start_client().await;
    mesh.packets_flow().await;
    // A workload that ends before it was ever seen is not judged: the forwarder watches it and the endpoint by now.
    let begun = Instant::now();
    while mesh.forwarder.as_ref().unwrap().watched_processes() < 2 {
        assert!(begun.elapsed() < PATIENCE, "the forwarder does not watch its workloads");
        sleep(Duration::from_millis(20)).await;
    }
    // Nobody keeps the namespace but the client, and what the mesh holds of it.
    let id = mesh.client_netns.id();
    mesh.client_netns = Netns::create().await.unwrap();
    mesh.client.take().unwrap().kill();
    mesh.forwarder.as_mut().unwrap().says("its workload is gone from this node").await;
    let begun = Instant::now();
    loop {
        let left = before[1].diff(&Census::take(&mesh.endpoint_netns).await.unwrap());
        let held = mesh.forwarder.as_ref().unwrap().descriptors().contains(&(id.dev, id.ino));
        if left.is_empty() && !held {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{left}, held: {held}");
        sleep(Duration::from_millis(20)).await;
    }
    mesh.stop().await;
}

#[tokio::test]
async fn an_interface_that_somebody_deletes_is_there_again() {
    if !may_make_namespaces() {
        return;
    }
    let mut mesh = Mesh::without_client().await;
    mesh.start_client().await;
    mesh.packets_flow().await;
    let deleted = mesh.client_netns.run(|| Command::new("ip").args(["link", "del", "nsm-1"]).status()).await.unwrap();
    assert!(deleted.success());
    mesh.forwarder.as_mut().unwrap().says("is mended").await;
    mesh.packets_flow().await;
    mesh.stop().await;
}

#[tokio::test]
async fn a_program_reads_what_becomes_of_a_connection_as_json() {
    if !may_make_namespaces() {
        return;
    }
    let mut mesh = Mesh::without_client().await;
    mesh.start_client_with(&[("NSM_EVENTS", "json")], "\"event\":\"up\"").await;
    mesh.endpoint.take().unwrap().kill();
    mesh.client.as_mut().unwrap().says("\"event\":\"down\"").await;
    mesh.start_endpoint().await;
    mesh.client.as_mut().unwrap().says_times("\"event\":\"up\"", 2).await;
    mesh.packets_flow().await;
    let client = mesh.client.take().unwrap();
    client.signal(nix::sys::signal::Signal::SIGTERM);
    let (code, said) = client.ends().await;
    assert_eq!(code, Some(0), "{said}");
    // What it logs is in the same file, and is no JSON.
    let events: Vec<serde_json::Value> =
        said.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |key: &str| events.iter().map(|event| event[key].as_str().unwrap_or("-")).collect::<Vec<_>>();
    let kinds: Vec<_> = of("event").into_iter().filter(|event| *event != "changed").collect();
    assert_eq!(kinds, ["up", "down", "up", "gone"], "{said}");
    assert_eq!(events[0]["interface"], "nsm-1");
    assert_eq!(events[0]["addresses"][0], "172.16.1.1/32");
    assert_eq!((&events[0]["service"], &events[0]["endpoint"]), (&"vpn".into(), &"nse-1".into()));
    assert_eq!(events[0]["hops"].as_array().unwrap().len(), 4);
    assert_eq!(of("why").last(), Some(&"ended"), "{said}");
    assert!(of("time").is_sorted() && of("time")[0].ends_with('Z'), "{said}");
    assert!(of("id").iter().all(|id| *id == "nsc-1-0"));
    mesh.stop().await;
}
