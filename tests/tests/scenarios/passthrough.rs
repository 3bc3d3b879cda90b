//! Chains of endpoints that are clients again.

use std::sync::Arc;
use std::time::Duration;

use nsm_chain::{Node as Element, elements};
use nsm_mechanisms::{KernelOffer, MechanismTranslation};
use nsm_sdk::connect::Connect;
use nsm_sdk::context::Passthrough;
use nsm_sdk::path::UpdatePath;
use nsm_sdk::testing::{Mesh, Node};

use crate::kit::{Census, Count, Match, SOON, ask, mesh_of, names, nothing_left, pass, service, until};

/// The service `chain`: clients go to the first endpoint, each endpoint goes on to the next.
async fn chain_of(mesh: &Mesh, endpoints: usize) {
    let app = |number: usize| format!("app-{number}");
    let mut rules: Vec<_> =
        (1..endpoints).map(|number| Match::from(&[("app", &app(number))]).to(&[("app", &app(number + 1))])).collect();
    rules.push(Match::from(&[]).to(&[("app", &app(1))]));
    mesh.apply(service("chain", rules)).await.unwrap();
}

/// What makes an endpoint a client again, under another name: a segment of its own on the path.
fn goes_on(node: &Node, name: &str, app: &str) -> Vec<Element> {
    let client = format!("{name}-client");
    let links = node.links(&client).unwrap();
    elements![
        MechanismTranslation::default(),
        Passthrough::new([("app".to_owned(), app.to_owned())].into()),
        UpdatePath::new(client),
        KernelOffer::new(),
        Connect::new(links).to(node.manager_url()),
    ]
}

async fn passes_through(mesh: &Mesh, nodes: &[Node], segments: usize) {
    const ENDPOINTS: usize = 7;
    chain_of(mesh, ENDPOINTS).await;
    let count = Count::default();
    for number in 1..=ENDPOINTS {
        let node = &nodes[(number - 1) % nodes.len()];
        let (name, app) = (format!("nse-{number}"), format!("app-{number}"));
        let mut elements = elements![count.clone()];
        if number < ENDPOINTS {
            elements.extend(goes_on(node, &name, &app));
        }
        node.endpoint_with(&name, "chain", [("app", &*app)], elements).await.unwrap();
    }
    pass(Duration::from_secs(300)).await;
    let census = Census::begin();
    let client = nodes[nodes.len() - 1].client("nsc").build().unwrap();
    let connection = ask(&client, "chain", "c").await.unwrap();
    assert_eq!(names(&connection).len(), segments, "{:?}", names(&connection));
    assert_eq!(connection.network_service_endpoint_name, "nse-1");
    assert!(!connection.labels.contains_key("app"));
    let wires = mesh.wires().wires().len();

    for refresh in 1..=5 {
        let again = ask(&client, "chain", "c").await.unwrap();
        assert_eq!(names(&again), names(&connection));
        assert_eq!(count.both(), ((refresh + 1) * ENDPOINTS, 0));
    }
    assert_eq!(mesh.wires().wires().len(), wires);
    client.close(connection, SOON).await.unwrap();
    assert_eq!(count.closes(), ENDPOINTS);
    census.is_the_same(mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn seven_endpoints_on_one_node_make_a_path_of_28() {
    let (mesh, nodes) = mesh_of(1).await;
    passes_through(&mesh, &nodes, 4 * 6 + 4).await;
}

#[tokio::test(start_paused = true)]
async fn seven_endpoints_on_two_nodes_by_turns_make_a_path_of_42() {
    let (mesh, nodes) = mesh_of(2).await;
    // The client is on the other node than the first endpoint: each of seven blocks has six segments.
    passes_through(&mesh, &nodes, 6 * 7).await;
}

#[tokio::test(start_paused = true)]
async fn seven_endpoints_on_seven_nodes_with_the_client_at_the_last_make_a_path_of_42() {
    let (mesh, nodes) = mesh_of(7).await;
    passes_through(&mesh, &nodes, 6 * 7).await;
}

#[tokio::test(start_paused = true)]
async fn seven_endpoints_on_seven_nodes_with_the_client_at_the_first_make_a_path_of_40() {
    let (mesh, mut nodes) = mesh_of(7).await;
    // The first endpoint is local to the client, the others are each on a further node.
    let first = nodes[0].clone();
    nodes.push(first);
    passes_through(&mesh, &nodes, 6 * 6 + 4).await;
}

#[tokio::test(start_paused = true)]
async fn a_passthrough_of_the_stock_stack_is_one_segment() {
    let (mesh, nodes) = mesh_of(2).await;
    chain_of(&mesh, 3).await;
    let counts = [Count::default(), Count::default(), Count::default()];
    let one = nodes[0].passthrough("nse-1", "chain", [("app", "app-1")], elements![counts[0].clone()]).await.unwrap();
    nodes[1].passthrough("nse-2", "chain", [("app", "app-2")], elements![counts[1].clone()]).await.unwrap();
    let last =
        nodes[1].endpoint_with("nse-3", "chain", [("app", "app-3")], elements![counts[2].clone()]).await.unwrap();
    let client = Arc::new(nodes[0].client("nsc").build().unwrap());
    let connection = ask(&client, "chain", "c").await.unwrap();
    let path = "nsc nsmgr-1 forwarder-1 nse-1 nsmgr-1 forwarder-1 nsmgr-2 forwarder-2 nse-2 nsmgr-2 forwarder-2 nse-3";
    assert_eq!(names(&connection).join(" "), path);
    assert_eq!(mesh.wires().wires().len(), 4);

    // Whatever dies on the way, the client has the whole chain made again.
    last.kill();
    let again = Count::default();
    nodes[0].endpoint_with("nse-4", "chain", [("app", "app-3")], elements![again.clone()]).await.unwrap();
    until("the chain to end at nse-4", || again.requests() == 1).await;
    one.restart().await.unwrap();
    until("the chain to begin at nse-1 again", || mesh.wires().wires().len() == 5 && again.requests() > 1).await;
    pass(Duration::from_secs(30)).await;
    let requests = again.requests();
    pass(Duration::from_secs(60)).await;
    assert_eq!(again.requests(), requests, "it is whole, and left alone");

    client.close(connection, SOON).await.unwrap();
    pass(Duration::from_secs(3700)).await;
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_at_the_end_of_a_chain_leaves_nothing_on_the_way() {
    let (mesh, nodes) = mesh_of(2).await;
    chain_of(&mesh, 3).await;
    nodes[0].passthrough("nse-1", "chain", [("app", "app-1")], elements![]).await.unwrap();
    nodes[1].passthrough("nse-2", "chain", [("app", "app-2")], elements![]).await.unwrap();
    let count = Count::default();
    count.fail(usize::MAX);
    nodes[0].endpoint_with("nse-3", "chain", [("app", "app-3")], elements![count.clone()]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    let error = ask(&client, "chain", "c").await.unwrap_err();
    assert!(error.to_string().contains("nse-3/Count: busy"), "{error}");
    nothing_left(&mesh, &[&client]).await;
}
