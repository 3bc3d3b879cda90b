//! A client in one domain, an endpoint in another.

use std::time::Duration;

use futures::StreamExt;
use nsm_api::connection::{ConnectionEventType, MonitorScopeSelector, PathSegment};
use nsm_api::registry::{NetworkServiceEndpointQuery, NetworkServiceQuery};
use nsm_chain::{Node as Step, Service, Watch};
use nsm_sdk::connect::Links;
use nsm_sdk::registry::stacks::RegistryClient;
use nsm_sdk::roles::Site;
use nsm_sdk::transport::Transport;

use crate::kit::{SOON, Seen, World, ask, path, register, until};

#[tokio::test]
async fn a_client_reaches_an_endpoint_of_another_domain() {
    let world = World::new().await;
    let (a, mut b) = (world.domain("a").await, world.domain("b").await);
    let (here, there) = (a.node(1).await, b.node(1).await);
    b.network_service("vpn").await;
    let seen = Seen::default();
    let endpoint = there.endpoint("nse-1", "vpn", &seen).await;
    let client = here.client("nsc");

    let connection = ask(&client, "vpn@b.test", "c").await.unwrap();
    assert_eq!(path(&connection), "nsc nsmgr-a1 forwarder-a1 proxy-a proxy-b nsmgr-b1 forwarder-b1 nse-1");
    assert_eq!(connection.network_service, "vpn@b.test");
    assert_eq!(connection.network_service_endpoint_name, "nse-1@b.test");
    assert_eq!(seen.names(), ("vpn".into(), "nse-1".into()), "the endpoint never sees the domain");
    assert_eq!((a.wires.wires().len(), b.wires.wires().len()), (1, 1));
    let passing = |domain: &crate::kit::Domain| domain.manager_proxy.as_ref().unwrap().passing();
    assert_eq!((passing(&a), passing(&b)), (1, 1));

    // The manager shows the client its connection under the names it asked by.
    let links = here.site("nsc").channels();
    let manager: Step<Service> = Links::<Service>::link(&*links, &here.url).await.unwrap();
    let segment = PathSegment { name: "nsc".into(), id: "c".into(), ..Default::default() };
    let selector = MonitorScopeSelector { path_segments: vec![segment], ..Default::default() };
    let mut events = manager.monitor(Watch::new(selector)).await.unwrap();
    let initial = events.next().await.unwrap().unwrap();
    assert_eq!(initial.r#type(), ConnectionEventType::InitialStateTransfer);
    let shown = initial.connections.values().next().unwrap();
    assert_eq!((shown.network_service.as_str(), path(shown)), ("vpn@b.test", path(&connection)));

    let again = ask(&client, "vpn@b.test", "c").await.unwrap();
    assert_eq!(path(&again), path(&connection));
    assert_eq!((seen.requests(), seen.closes()), (2, 0));
    assert_eq!(seen.names(), ("vpn".into(), "nse-1".into()));
    let update = events.next().await.unwrap().unwrap();
    assert_eq!(update.r#type(), ConnectionEventType::Update);

    client.close(connection, SOON).await.unwrap();
    assert_eq!(seen.closes(), 1, "the Close reaches the endpoint");
    let gone = events.next().await.unwrap().unwrap();
    assert_eq!(gone.r#type(), ConnectionEventType::Delete);
    assert_eq!(endpoint.connections(), 0);
    a.is_empty(&[&here]).await;
    b.is_empty(&[&there]).await;
}

#[tokio::test]
async fn a_connection_across_domains_is_refreshed_before_tokens_expire() {
    let world = World::new().await;
    let (a, mut b) = (world.domain("a").await, world.domain("b").await);
    let (here, there) = (a.node(1).await, b.node(1).await);
    b.network_service("vpn").await;
    let seen = Seen::default();
    let _endpoint = there.endpoint("nse-1", "vpn", &seen).await;
    let brief = Site::over(Transport::mtls(here.identity("nsc"), Duration::from_secs(6)));
    let client = nsm_sdk::roles::client("nsc", &brief, &here.url).build().unwrap();
    let connection = ask(&client, "vpn@b.test", "c").await.unwrap();
    until("two refreshes", || seen.requests() >= 3).await;
    assert_eq!(seen.closes(), 0);
    client.close(connection, SOON).await.unwrap();
    a.is_empty(&[&here]).await;
    b.is_empty(&[&there]).await;
}

#[tokio::test]
async fn both_directions_at_once_and_two_endpoints_on_two_nodes() {
    let world = World::new().await;
    let (mut a, mut b) = (world.domain("a").await, world.domain("b").await);
    let (here, there, further) = (a.node(1).await, b.node(1).await, b.node(2).await);
    a.network_service("vpn").await;
    b.network_service("vpn").await;
    let seen = [Seen::default(), Seen::default(), Seen::default()];
    // The same names in both domains, on purpose.
    let _endpoints = (
        here.endpoint("nse-1", "vpn", &seen[0]).await,
        there.endpoint("nse-1", "vpn", &seen[1]).await,
        further.endpoint("nse-2", "vpn", &seen[2]).await,
    );
    let (ours, theirs) = (here.client("nsc-a"), there.client("nsc-b"));
    for number in 0..4 {
        ask(&ours, "vpn@b.test", &format!("ours-{number}")).await.unwrap();
    }
    let theirs_connection = ask(&theirs, "vpn@a.test", "theirs").await.unwrap();
    assert_eq!(theirs_connection.network_service_endpoint_name, "nse-1@a.test");
    let local = ask(&ours, "vpn", "local").await.unwrap();
    assert_eq!(path(&local), "nsc-a nsmgr-a1 forwarder-a1 nse-1");
    assert_eq!(seen.each_ref().map(Seen::requests), [2, 2, 2], "both endpoints there take their turn");
    ours.shutdown(SOON).await.unwrap();
    theirs.shutdown(SOON).await.unwrap();
    assert_eq!(seen.each_ref().map(Seen::closes), [2, 2, 2]);
    a.is_empty(&[&here]).await;
    b.is_empty(&[&there, &further]).await;
}

#[tokio::test]
async fn a_domain_is_reached_by_its_own_name() {
    for knows_itself in [false, true] {
        let world = World::new().await;
        let mut a = world.domain("a").await;
        a.knows_itself = knows_itself;
        a.start_manager_proxy().await;
        // On another node: a kernel has no tunnel from a node to itself.
        let (node, there) = (a.node(1).await, a.node(2).await);
        a.network_service("vpn").await;
        let seen = Seen::default();
        let _endpoint = there.endpoint("nse-1", "vpn", &seen).await;
        let client = node.client("nsc");
        let connection = ask(&client, "vpn@a.test", "c").await.unwrap();
        assert_eq!(path(&connection), "nsc nsmgr-a1 forwarder-a1 proxy-a nsmgr-a2 forwarder-a2 nse-1");
        assert_eq!(connection.network_service_endpoint_name, "nse-1@a.test");
        assert_eq!(seen.names(), ("vpn".into(), "nse-1".into()));
        client.close(connection, SOON).await.unwrap();
        assert_eq!(seen.closes(), 1);
        a.is_empty(&[&node, &there]).await;
    }
}

#[tokio::test]
async fn what_is_registered_elsewhere_is_unregistered_there() {
    let world = World::new().await;
    let (a, b) = (world.domain("a").await, world.domain("b").await);
    let here = a.node(1).await;
    let far = RegistryClient::builder("looking").connect(b.site("looking").channels(), b.registry_url());
    let far = far.build().unwrap();
    let names = async || {
        let found = far.endpoints.monitor(Watch::new(NetworkServiceEndpointQuery::default())).await.unwrap();
        found.map(|found| found.unwrap().record.name.clone()).collect::<Vec<_>>().await
    };
    for (name, services) in [("nse@b.test", ["vpn"]), ("nse", ["vpn@b.test"])] {
        let (client, answer) = register(&here.site("nse"), &here.url, name, &services, "unix:///nse").await.unwrap();
        assert_eq!((answer.name.as_str(), &*answer.network_service_names[0]), (name, services[0]));
        assert_eq!(names().await, ["nse"]);
        client.unregister_all().await.unwrap();
        assert!(names().await.is_empty());
    }
    let services = far.services.monitor(Watch::new(NetworkServiceQuery::default())).await.unwrap();
    assert_eq!(services.count().await, 0);
}
