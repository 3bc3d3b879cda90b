//! The network function in a whole mesh: no root, no sockets, and a clock that waits for nobody.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::time::Duration;

use in_process_test::{Blocks, PORTS, PortBlocks};
use nsm_chain::{Error, OwnedNext, Result, elements, from_fn};
use nsm_sdk::lifecycle::Change;
use nsm_sdk::stacks::{Client, Session};
use nsm_sdk::testing::{Mesh, Node};
use tokio::time::{sleep, timeout};

const SOON: Duration = Duration::from_secs(15);
const HOUR: Duration = Duration::from_secs(3600);

async fn mesh() -> (Mesh, Node) {
    let mesh = Mesh::new().unwrap();
    mesh.network_service("internet").await.unwrap();
    let node = mesh.node("node-1").await.unwrap();
    (mesh, node)
}

async fn ask(client: &Client, id: &str) -> Result<Session> {
    client.connect(&"kernel://internet/nsm-1".parse().unwrap(), id, SOON).await
}

/// Its ports as they are now.
fn ports(session: &Session) -> String {
    session.current().context.as_ref().unwrap().extra_context[PORTS].clone()
}

#[tokio::test(start_paused = true)]
async fn a_client_keeps_its_ports_for_a_day_and_gives_them_back() {
    let (mesh, node) = mesh().await;
    let blocks = Blocks::of_size(1024);
    let nat = elements![PortBlocks::of(Arc::clone(&blocks))];
    node.endpoint("nat-1", "internet", nat).await.unwrap();
    let client = node.client("nsc").build().unwrap();

    let internet = ask(&client, "c").await.unwrap();
    assert_eq!(ports(&internet), "1024-2047");
    sleep(24 * HOUR).await; // tokens live an hour: it is refreshed many times
    assert_eq!(ports(&internet), "1024-2047");
    assert_eq!(blocks.free(), 62);

    internet.close(SOON).await.unwrap();
    assert_eq!((blocks.free(), mesh.wires().wires().len()), (63, 0));
}

#[tokio::test(start_paused = true)]
async fn without_ports_a_client_is_told_who_refused_and_what_to_do() {
    let (_mesh, node) = mesh().await;
    let blocks = Blocks::of_size(64_512);
    node.endpoint("nat-1", "internet", elements![PortBlocks::of(blocks)]).await.unwrap();
    let client = node.client("nsc").build().unwrap();

    ask(&client, "first").await.unwrap();
    let error = ask(&client, "second").await.unwrap_err();
    let refused = "nat-1/PortBlocks: all port blocks are in use (add a public address, or make blocks smaller)";
    assert!(error.to_string().ends_with(refused), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_fails_behind_it_costs_no_ports() {
    let (_mesh, node) = mesh().await;
    let blocks = Blocks::of_size(1024);
    let broken = from_fn(|_call, _next: OwnedNext| async { Err(Error::precondition("the uplink is down")) });
    node.endpoint("nat-1", "internet", elements![PortBlocks::of(Arc::clone(&blocks)), broken]).await.unwrap();
    let client = node.client("nsc").build().unwrap();

    ask(&client, "c").await.unwrap_err();
    assert_eq!(blocks.free(), 63);
}

#[tokio::test(start_paused = true)]
async fn when_its_endpoint_dies_a_client_gets_ports_at_another() {
    let (_mesh, node) = mesh().await;
    let (one, two) = (Blocks::of_size(1024), Blocks::of_size(2048));
    let first = node.endpoint("nat-1", "internet", elements![PortBlocks::of(one)]).await.unwrap();
    let client = node.client("nsc").build().unwrap();
    let internet = ask(&client, "c").await.unwrap();
    assert_eq!(ports(&internet), "1024-2047");

    node.endpoint("nat-2", "internet", elements![PortBlocks::of(Arc::clone(&two))]).await.unwrap();
    first.kill();
    let told = async {
        let mut changes = internet.changes();
        while let Some(change) = changes.next().await {
            match change {
                Change::Up(now) if now.endpoint() == "nat-2" => break,
                Change::Gone { how, .. } => panic!("{how}"),
                other => println!("{other}"),
            }
        }
    };
    timeout(SOON, told).await.unwrap();
    assert_eq!((ports(&internet), two.free()), ("1024-3071".to_owned(), 30));
}
