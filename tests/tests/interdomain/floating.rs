//! A third domain that has a registry and nothing else.

use crate::kit::{SOON, Seen, World, again, ask, path};

#[tokio::test]
async fn an_endpoint_is_found_in_a_floating_domain_by_its_name_or_by_its_service() {
    for (name, service) in [("nse-1@c.test", "vpn"), ("nse-1", "vpn@c.test")] {
        let world = World::new().await;
        let (a, mut b, _c) = (world.domain("a").await, world.domain("b").await, world.floating("c").await);
        let (here, there) = (a.node(1).await, b.node(1).await);
        b.network_service("vpn@c.test").await;
        let seen = Seen::default();
        let endpoint = there.endpoint(name, service, &seen).await;
        let client = here.client("nsc");

        let connection = ask(&client, "vpn@c.test", "c").await.unwrap();
        let expected = format!("nsc nsmgr-a1 forwarder-a1 proxy-a proxy-b nsmgr-b1 forwarder-b1 {name}");
        assert_eq!(path(&connection), expected);
        assert_eq!(connection.network_service_endpoint_name, "nse-1@c.test");
        ask(&client, "vpn@c.test", "c").await.unwrap();
        assert_eq!((seen.requests(), seen.closes()), (2, 0));
        client.close(connection, SOON).await.unwrap();
        assert_eq!(seen.closes(), 1);
        a.is_empty(&[&here]).await;
        b.is_empty(&[&there]).await;

        endpoint.shutdown().await.unwrap();
        let error = crate::kit::ask_within(&client, "vpn@c.test", "d", std::time::Duration::from_secs(3)).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("none of the 0 endpoints of vpn@c.test"), "{error}");
    }
}

#[tokio::test]
async fn a_client_of_the_endpoints_own_domain_finds_it_there_too() {
    let world = World::new().await;
    let (mut b, _c) = (world.domain("b").await, world.floating("c").await);
    let (one, two) = (b.node(1).await, b.node(2).await);
    b.network_service("vpn@c.test").await;
    let seen = Seen::default();
    let _endpoint = two.endpoint("nse-1@c.test", "vpn", &seen).await;
    for (node, expected) in [
        (&one, "nsc nsmgr-b1 forwarder-b1 proxy-b nsmgr-b2 forwarder-b2 nse-1@c.test"),
        (&two, "nsc nsmgr-b2 forwarder-b2 nse-1@c.test"),
    ] {
        let client = node.client("nsc");
        let connection = ask(&client, "vpn@c.test", "c").await.unwrap();
        assert_eq!(path(&connection), expected);
        client.close(connection, SOON).await.unwrap();
    }
    b.is_empty(&[&one, &two]).await;
}

#[tokio::test]
async fn an_endpoint_moves_from_its_domain_to_a_floating_one() {
    let world = World::new().await;
    let (a, mut b, _c) = (world.domain("a").await, world.domain("b").await, world.floating("c").await);
    let (here, there) = (a.node(1).await, b.node(1).await);
    b.network_service("vpn").await;
    b.network_service("vpn@c.test").await;
    let seen = [Seen::default(), Seen::default()];
    let inside = there.endpoint("nse-1", "vpn", &seen[0]).await;
    let client = here.client("nsc");
    let connection = ask(&client, "vpn@b.test", "c").await.unwrap();
    assert_eq!(connection.network_service_endpoint_name, "nse-1@b.test");
    client.close(connection, SOON).await.unwrap();
    inside.shutdown().await.unwrap();

    let _floating = there.endpoint("nse-1@c.test", "vpn", &seen[1]).await;
    let connection = again(&client, "vpn@c.test", "c").await;
    assert_eq!(connection.network_service_endpoint_name, "nse-1@c.test");
    assert_eq!(path(&connection).split(' ').count(), 8);
    client.close(connection, SOON).await.unwrap();
    assert_eq!(seen.each_ref().map(|seen| (seen.requests(), seen.closes())), [(1, 1), (1, 1)]);
    a.is_empty(&[&here]).await;
    b.is_empty(&[&there]).await;
}

#[tokio::test]
async fn endpoints_of_several_domains_meet_in_a_floating_one() {
    let world = World::new().await;
    let (a, mut b, d) = (world.domain("a").await, world.domain("b").await, world.domain("d").await);
    let _c = world.floating("c").await;
    let (here, there, elsewhere) = (a.node(1).await, b.node(1).await, d.node(1).await);
    b.network_service("vpn@c.test").await;
    let seen = [Seen::default(), Seen::default()];
    let _endpoints = (
        there.endpoint("nse-b@c.test", "vpn", &seen[0]).await,
        elsewhere.endpoint("nse-d@c.test", "vpn", &seen[1]).await,
    );
    let client = here.client("nsc");
    for number in 0..4 {
        ask(&client, "vpn@c.test", &number.to_string()).await.unwrap();
    }
    assert_eq!(seen.each_ref().map(Seen::requests), [2, 2]);
    client.shutdown(SOON).await.unwrap();
    assert_eq!(seen.each_ref().map(Seen::closes), [2, 2]);
    a.is_empty(&[&here]).await;
    b.is_empty(&[&there]).await;
    d.is_empty(&[&elsewhere]).await;
}
