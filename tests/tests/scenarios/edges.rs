//! What no well-behaved peer sends, and what two clients do to each other.

use std::time::Duration;

use nsm_api::ServiceUrl;
use nsm_api::connection::{Connection, Mechanism, Path, PathSegment};
use nsm_api::networkservice::NetworkServiceRequest;
use nsm_chain::{Call, Closed, Code, Error, elements};
use nsm_sdk::testing::{Mesh, Node};

use crate::kit::{Count, SOON, ask, ask_within, mesh_of, mesh_with_token_life, nothing_left, pass, until};

/// A mesh with an endpoint and a client that is connected to it.
async fn connected() -> (Mesh, Node, Count, nsm_sdk::stacks::Client, Connection) {
    let (mesh, mut nodes) = mesh_of(1).await;
    let count = Count::default();
    nodes[0].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    let connection = ask(&client, "vpn", "c").await.unwrap();
    // Until the watches that follow the answer are open.
    pass(Duration::from_millis(10)).await;
    (mesh, nodes.remove(0), count, client, connection)
}

/// Sends a Request right to the manager, as a peer with a client of its own would.
async fn send(node: &Node, connection: Connection, preferences: Vec<Mechanism>) -> Result<Connection, Error> {
    let link = node.links("stranger").unwrap().link(node.manager_url()).await.unwrap();
    link.request(Call::request(connection, preferences).within(SOON)).await.map(Call::into_body)
}

fn segment(name: &str, id: &str) -> PathSegment {
    PathSegment { name: name.into(), id: id.into(), ..Default::default() }
}

fn asked(id: &str, path: Option<Path>) -> Connection {
    Connection { id: id.into(), network_service: "vpn".into(), path, ..Default::default() }
}

fn at(index: u32, path_segments: Vec<PathSegment>) -> Option<Path> {
    Some(Path { index, path_segments })
}

fn kernel() -> Vec<Mechanism> {
    let mut kernel = Mechanism::kernel();
    kernel.set_parameter("name", "nsm-1");
    vec![kernel]
}

#[tokio::test(start_paused = true)]
async fn what_contradicts_itself_is_refused_by_hop_and_element_and_touches_nothing() {
    let (mesh, node, count, client, connection) = connected().await;
    let before = (mesh.kept(), mesh.wires().writes(), count.both());
    let unexpired = || vec![segment("stranger", "s")];
    let cases = [
        (
            "an index past the path",
            asked("s", at(7, unexpired())),
            "nsmgr-1/UpdatePath: the path's index 7 is past its 1 segments",
        ),
        (
            "the greatest index",
            asked("s", at(u32::MAX, unexpired())),
            "nsmgr-1/UpdatePath: the path's index 4294967295",
        ),
        (
            "an id that is not the segment's",
            asked("other", at(0, unexpired())),
            "nsmgr-1/UpdatePath: the connection's id \"other\"",
        ),
        (
            "no service",
            Connection { network_service: String::new(), ..asked("s", at(0, unexpired())) },
            "nsmgr-1/DiscoverForwarder: the request names no network service",
        ),
        (
            "an empty own segment",
            asked("", at(0, vec![segment("nsmgr-1", "")])),
            "nsmgr-1/Begin: the connection has no id",
        ),
    ];
    for (what, connection, text) in cases {
        let error = send(&node, connection, kernel()).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{what}: {error}");
        assert!(error.to_string().starts_with(text), "{what}: {error}");
        assert_eq!((error.hop(), error.element().is_some()), (Some("nsmgr-1"), true), "{what}");
        assert_eq!((mesh.kept(), mesh.wires().writes(), count.both()), before, "{what}");
    }
    assert_eq!(ask(&client, "vpn", "c").await.unwrap().id, connection.id);
    client.close(connection, SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_mechanism_is_refused_by_the_forwarder() {
    let (mesh, node, count, client, connection) = connected().await;
    let before = (mesh.kept(), mesh.wires().writes(), count.both());
    let weird = Mechanism { r#type: "CARRIER-PIGEON".into(), cls: "LOCAL".into(), ..Default::default() };
    for preferences in [vec![], vec![weird.clone()], vec![weird; 100]] {
        let error = send(&node, asked("s", at(0, vec![segment("stranger", "s")])), preferences).await.unwrap_err();
        assert_eq!(
            (error.code(), error.hop(), error.element()),
            (Code::Unimplemented, Some("forwarder-1"), Some("CrossConnect"))
        );
        assert!(error.to_string().len() < 400, "{error}");
        assert_eq!((mesh.kept(), mesh.wires().writes(), count.both()), before);
    }
    client.close(connection, SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn huge_and_strange_names_break_nothing() {
    let (mesh, node, _count, client, connection) = connected().await;
    let huge = "x".repeat(100_000);
    for strange in ["", "\0", "{{.nodeName}}", "../../etc", "\u{202e}", huge.as_str()] {
        let mut request = asked("s", at(0, vec![segment(strange, "s")]));
        let made = send(&node, request.clone(), kernel()).await;
        // A name is only a name: what it is does not matter to who passes it on.
        let made = made.unwrap_or_else(|error| panic!("{strange:.20?}: {error:.200}"));
        let link = node.links("stranger").unwrap().link(node.manager_url()).await.unwrap();
        link.close(Call::new(made).within(SOON)).await.unwrap();

        request.network_service = format!("no{strange}");
        let error = send(&node, request, kernel()).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
    }
    client.close(connection, SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn two_clients_with_the_same_connection_id_do_not_meet() {
    let (mesh, node, count, client, connection) = connected().await;
    let other = node.client("other").build().unwrap();
    let second = ask(&other, "vpn", "c").await.unwrap();
    let id = |connection: &Connection| connection.path.as_ref().unwrap().path_segments[1].id.clone();
    assert_eq!(connection.id, second.id);
    assert_ne!(id(&connection), id(&second));
    assert_eq!(mesh.wires().wires().len(), 2);
    client.close(connection, SOON).await.unwrap();
    assert_eq!((count.both(), mesh.wires().wires().len()), ((2, 1), 1));
    assert_eq!(ask(&other, "vpn", "c").await.unwrap().id, "c");
    other.close(second, SOON).await.unwrap();
    nothing_left(&mesh, &[&client, &other]).await;
}

#[tokio::test(start_paused = true)]
async fn requests_and_closes_of_one_connection_at_once_leave_it_made_or_gone() {
    let (mesh, _node, count, client, connection) = connected().await;
    let events = (0..60).map(|at| {
        let (client, connection) = (client.clone(), connection.clone());
        tokio::spawn(async move {
            if at % 3 == 0 {
                client.close(connection, SOON).await.map(drop)
            } else {
                ask(&client, "vpn", "c").await.map(drop)
            }
        })
    });
    for event in events.collect::<Vec<_>>() {
        event.await.unwrap().unwrap();
    }
    client.close(connection.clone(), SOON).await.unwrap();
    assert_eq!(client.close(connection, SOON).await.unwrap(), Closed::Unknown);
    assert!(count.closes() >= 2);
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_an_id_gets_one() {
    let (mesh, node, _count, client, connection) = connected().await;
    let request = NetworkServiceRequest { connection: Some(asked("", None)), mechanism_preferences: kernel() };
    let made = client.request(request, SOON).await.unwrap();
    assert!(!made.id.is_empty() && made.id != connection.id);
    client.shutdown(SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
    drop(node);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_starts_over_gets_the_interface_of_its_former_life_at_once() {
    let (mesh, nodes) = mesh_with_token_life(Duration::from_secs(60), 2).await;
    let count = Count::default();
    nodes[1].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
    let request = || {
        let mut request = "kernel://vpn/nsm-1".parse::<ServiceUrl>().unwrap().to_request("c");
        request.mechanism_preferences[0].set_parameter("inodeURL", "file:///sim/nsc");
        request
    };
    let former = nodes[0].client("nsc").build().unwrap();
    former.request(request(), SOON).await.unwrap();
    // It ends without a word.
    drop(former);
    let client = nodes[0].client("nsc").build().unwrap();
    client.request(request(), Duration::from_millis(1)).await.unwrap();
    // What it had before is closed up to the endpoint; its manager keeps that until the token ends.
    until("the former connection is closed", || count.closes() == 1).await;
    assert_eq!((count.requests(), mesh.wires().wires().len(), mesh.wires().faults()), (2, 2, Vec::new()));
    client.shutdown(SOON).await.unwrap();
    until("the end of the former token", || mesh.kept().is_empty()).await;
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_an_endpoint_is_an_error_and_leaves_nothing() {
    struct Defect;
    impl nsm_chain::Element for Defect {
        async fn request(&self, call: Call, _next: nsm_chain::Next<'_>) -> nsm_chain::Result<Call> {
            assert!(call.connection().labels.contains_key("good"), "a defect");
            Ok(call)
        }
    }
    let (mesh, nodes) = mesh_of(2).await;
    nodes[1].endpoint("nse", "vpn", elements![Defect]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    let error = ask_within(&client, "vpn", "c", Duration::from_secs(1)).await.unwrap_err();
    assert!(error.to_string().contains("the chain broke off") && error.to_string().contains("nse/"), "{error}");
    nothing_left(&mesh, &[&client]).await;
}
