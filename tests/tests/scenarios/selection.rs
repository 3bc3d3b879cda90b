//! Who serves, and who carries: rules of network services, and what happens when they change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nsm_api::labels::{NODE_NAME, P2P};
use nsm_chain::{Code, elements};
use nsm_sdk::context::ClientInfo;

use crate::kit::{
    Census, Count, EVERY, Match, Packets, SOON, ask, ask_within, mesh_of, names, nothing_left, pass, service, until,
};

fn labelled(labels: &[(&str, &str)]) -> ClientInfo {
    ClientInfo::new(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_falls_through_gives_way_where_no_endpoint_fits_it() {
    for falls in [true, false] {
        let (mesh, nodes) = mesh_of(2).await;
        let strict = Match::from(&[]).to(&[("app", "absent")]);
        let strict = if falls { strict.falling_through() } else { strict };
        mesh.apply(service("chain", vec![strict, Match::from(&[]).to(&[("app", "there")])])).await.unwrap();
        nodes[1].endpoint_with("nse", "chain", [("app", "there")], elements![]).await.unwrap();
        let client = nodes[0].client("nsc").build().unwrap();
        let asked = ask(&client, "chain", "c").await;
        if falls {
            client.close(asked.unwrap(), SOON).await.unwrap();
        } else {
            let error = asked.unwrap_err();
            assert!(error.to_string().contains("none of the 1 endpoints of chain fits"), "{error}");
        }
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_rule_may_ask_for_an_endpoint_on_the_clients_own_node() {
    let (mesh, nodes) = mesh_of(2).await;
    mesh.apply(service("near", vec![Match::from(&[]).to(&[(NODE_NAME, "{{.nodeName}}")])])).await.unwrap();
    for (number, node) in nodes.iter().enumerate() {
        let name = format!("node-{number}");
        node.endpoint_with(&format!("nse-{number}"), "near", [(NODE_NAME, &*name)], elements![]).await.unwrap();
    }
    for (number, node) in nodes.iter().enumerate() {
        let place = format!("node-{number}");
        let client = node.client("nsc").with(elements![labelled(&[(NODE_NAME, &place)])]).build().unwrap();
        for id in 0..4 {
            let connection = ask(&client, "near", &id.to_string()).await.unwrap();
            assert_eq!(connection.network_service_endpoint_name, format!("nse-{number}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_rule_asks_of_forwarders_picks_one_at_both_nodes() {
    let (mesh, nodes) = mesh_of(2).await;
    for (number, node) in nodes.iter().enumerate() {
        node.forwarder_with(&format!("p2mp-{number}"), [("p2mp", "true")]).await.unwrap();
    }
    mesh.apply(service("many", vec![Match::from(&[]).carried_by(&[("p2mp", "true")])])).await.unwrap();
    mesh.apply(service("plain", vec![Match::from(&[]).carried_by(&[])])).await.unwrap();
    mesh.apply(service("none", vec![Match::from(&[]).carried_by(&[("color", "red")])])).await.unwrap();
    for name in ["many", "plain", "none"] {
        nodes[1].endpoint(&format!("nse-{name}"), name, elements![]).await.unwrap();
    }
    let client = nodes[0].client("nsc").build().unwrap();
    let connection = ask(&client, "many", "a").await.unwrap();
    assert_eq!(names(&connection), ["nsc", "nsmgr-1", "p2mp-0", "nsmgr-2", "p2mp-1", "nse-many"]);
    let connection = ask(&client, "plain", "b").await.unwrap();
    assert_eq!(names(&connection)[2], "forwarder-1", "without labels {P2P} is asked for");
    let error = ask_within(&client, "none", "c", Duration::from_secs(1)).await.unwrap_err();
    assert!(error.to_string().contains("none of the 2 forwarders has the labels that none asks for"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn weights_share_connections_among_routes() {
    let (mesh, nodes) = mesh_of(1).await;
    let rule = Match::from(&[]).weighing(&[("v", "1")], 3).weighing(&[("v", "2")], 1);
    mesh.apply(service("shared", vec![rule])).await.unwrap();
    for version in ["1", "2"] {
        nodes[0].endpoint_with(&format!("nse-{version}"), "shared", [("v", version)], elements![]).await.unwrap();
    }
    let client = nodes[0].client("nsc").build().unwrap();
    let mut shares = BTreeMap::new();
    for id in 0..40 {
        let connection = ask(&client, "shared", &id.to_string()).await.unwrap();
        *shares.entry(connection.network_service_endpoint_name).or_insert(0) += 1;
    }
    assert_eq!(shares, BTreeMap::from([("nse-1".to_owned(), 30), ("nse-2".to_owned(), 10)]));
}

#[tokio::test(start_paused = true)]
async fn a_named_endpoint_is_the_one() {
    let (_mesh, nodes) = mesh_of(2).await;
    for name in ["a", "b", "c"] {
        nodes[1].endpoint(name, "vpn", elements![]).await.unwrap();
    }
    let client = nodes[0].client("nsc").build().unwrap();
    for (id, name) in ["b", "c", "b"].into_iter().enumerate() {
        let mut request = "kernel://vpn/nsm-1".parse::<nsm_api::ServiceUrl>().unwrap().to_request(id.to_string());
        request.connection.get_or_insert_default().network_service_endpoint_name = name.into();
        assert_eq!(client.request(request, SOON).await.unwrap().network_service_endpoint_name, name);
    }
}

#[tokio::test(start_paused = true)]
async fn asking_twice_for_one_connection_does_not_move_it() {
    let (mesh, nodes) = mesh_of(2).await;
    for name in ["a", "b", "c"] {
        nodes[1].endpoint(name, "vpn", elements![]).await.unwrap();
    }
    let client = nodes[0].client("nsc").build().unwrap();
    let first = ask(&client, "vpn", "c").await.unwrap();
    for _ in 0..5 {
        let again = ask(&client, "vpn", "c").await.unwrap();
        assert_eq!(again.network_service_endpoint_name, first.network_service_endpoint_name);
    }
    client.close(first, SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn an_application_may_move_its_connection_to_another_endpoint() {
    let (mesh, nodes) = mesh_of(2).await;
    let (one, two) = (Count::default(), Count::default());
    nodes[1].endpoint("a", "vpn", elements![one.clone()]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    let mut connection = ask(&client, "vpn", "c").await.unwrap();
    nodes[0].endpoint("b", "vpn", elements![two.clone()]).await.unwrap();
    connection.network_service_endpoint_name = "b".into();
    let request = nsm_api::networkservice::NetworkServiceRequest { connection: Some(connection), ..Default::default() };
    let moved = client.request(request, SOON).await.unwrap();
    assert_eq!(names(&moved), ["nsc", "nsmgr-1", "forwarder-1", "b"]);
    pass(Duration::from_secs(1)).await;
    assert_eq!((one.closes(), two.both()), (1, (1, 0)), "the old one is told");
    assert_eq!(mesh.wires().wires().len(), 1);
    client.close(moved, SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_service_moves_the_clients_it_concerns_and_no_others() {
    for remote in [0, 1] {
        let (mesh, nodes) = mesh_of(2).await;
        let (one, two) = (Count::default(), Count::default());
        let to = |app: &'static str| vec![Match::from(&[]).to(&[("app", app)])];
        mesh.apply(service("my-service", to("1"))).await.unwrap();
        mesh.apply(service("my-service-2", to("1"))).await.unwrap();
        let similar = Count::default();
        nodes[remote].endpoint_with("nse-1", "my-service", [("app", "1")], elements![one.clone()]).await.unwrap();
        nodes[remote].endpoint_with("nse-2", "my-service", [("app", "2")], elements![two.clone()]).await.unwrap();
        nodes[remote].endpoint_with("nse-3", "my-service-2", [("app", "1")], elements![similar.clone()]).await.unwrap();
        pass(Duration::from_secs(300)).await;
        let census = Census::begin();
        let client = nodes[0].client("nsc").build().unwrap();
        let connection = ask(&client, "my-service", "c").await.unwrap();
        let other = ask(&client, "my-service-2", "d").await.unwrap();
        assert_eq!(connection.network_service_endpoint_name, "nse-1");

        // A change that leaves it where it is.
        let mut both = to("1");
        both.extend(to("2"));
        mesh.apply(service("my-service", both)).await.unwrap();
        pass(Duration::from_secs(10)).await;
        assert_eq!((one.both(), two.both()), ((1, 0), (0, 0)));

        mesh.apply(service("my-service", to("2"))).await.unwrap();
        until("the client at nse-2", || two.requests() == 1).await;
        pass(Duration::from_secs(10)).await;
        assert_eq!((one.both(), two.both(), similar.both()), ((1, 1), (1, 0), (1, 0)), "remote: {remote}");
        assert_eq!(ask(&client, "my-service", "c").await.unwrap().network_service_endpoint_name, "nse-2");

        client.close(connection, SOON).await.unwrap();
        client.close(other, SOON).await.unwrap();
        census.is_the_same(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_service_moves_a_client_whose_packets_still_flow_at_once() {
    let (mesh, nodes) = mesh_of(1).await;
    let to = |app: &'static str| vec![Match::from(&[]).to(&[("app", app)])];
    mesh.apply(service("my-service", to("1"))).await.unwrap();
    for app in ["1", "2"] {
        nodes[0].endpoint_with(&format!("nse-{app}"), "my-service", [("app", app)], elements![]).await.unwrap();
    }
    let liveness = Arc::new(Packets::flowing());
    let client = nodes[0].client("nsc").liveness(liveness, EVERY, EVERY).build().unwrap();
    ask(&client, "my-service", "c").await.unwrap();
    mesh.apply(service("my-service", to("2"))).await.unwrap();
    pass(Duration::from_secs(1)).await;
    assert_eq!(ask(&client, "my-service", "c").await.unwrap().network_service_endpoint_name, "nse-2");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_exist_is_named_in_the_error() {
    let (mesh, nodes) = mesh_of(1).await;
    let client = nodes[0].client("nsc").build().unwrap();
    let error = ask_within(&client, "vpm", "c", Duration::from_secs(1)).await.unwrap_err();
    assert!(error.to_string().contains("nsmgr-1/DiscoverForwarder: no network service \"vpm\""), "{error}");
    assert_eq!(error.code(), Code::DeadlineExceeded);
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_forwarder_the_error_says_so() {
    let (mesh, _) = mesh_of(0).await;
    let node = mesh.node_without_forwarder("1").unwrap();
    node.endpoint("nse", "vpn", elements![]).await.unwrap();
    let client = node.client("nsc").build().unwrap();
    let error = ask_within(&client, "vpn", "c", Duration::from_secs(1)).await.unwrap_err();
    assert!(error.to_string().contains("no forwarder is registered at this manager"), "{error}");
}
