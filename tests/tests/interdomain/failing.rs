//! What goes wrong between domains, and what is said about it.

use std::net::IpAddr;
use std::time::Duration;

use nsm_chain::Error;
use nsm_dns::testing::Records;

use crate::kit::{Domain, Node, Seen, World, again, ask_within};

/// Long enough to fail for the right reason.
const BRIEFLY: Duration = Duration::from_secs(4);

async fn fails(node: &Node, service: &str) -> Error {
    fails_within(node, service, BRIEFLY).await
}

async fn fails_within(node: &Node, service: &str, within: Duration) -> Error {
    let client = node.client("nsc");
    let error = ask_within(&client, service, "c", within).await.unwrap_err();
    assert!(client.connections().handles().is_empty());
    error
}

/// Domain `a` with a node.
async fn client(world: &World) -> (Domain, Node) {
    let a = world.domain("a").await;
    let node = a.node(1).await;
    (a, node)
}

#[tokio::test]
async fn a_domain_that_dns_does_not_know() {
    let world = World::new().await;
    let (a, node) = client(&world).await;
    let text = fails(&node, "vpn@nowhere.test").await.to_string();
    assert!(text.contains("registry-proxy-a/DnsResolve: cannot find registry.nsm-system of the domain"), "{text}");
    assert!(text.contains("has no SRV record of registry.nsm-system.nowhere.test."), "{text}");
    a.is_empty(&[&node]).await;
}

#[tokio::test]
async fn dns_is_down_and_comes_back() {
    let world = World::new().await;
    let (a, node) = client(&world).await;
    let mut b = world.domain("b").await;
    b.network_service("vpn").await;
    let there = b.node(1).await;
    let seen = Seen::default();
    let _endpoint = there.endpoint("nse-1", "vpn", &seen).await;
    world.dns.silence(true);
    let text = fails_within(&node, "vpn@b.test", 3 * BRIEFLY).await.to_string();
    assert!(text.contains("gave no answer about registry.nsm-system.b.test"), "{text}");
    world.dns.silence(false);
    let client = node.client("nsc");
    let connection = again(&client, "vpn@b.test", "c").await;
    client.close(connection, BRIEFLY).await.unwrap();
    a.is_empty(&[&node]).await;
    b.is_empty(&[&there]).await;
}

#[tokio::test]
async fn a_record_that_points_to_nobody() {
    let world = World::new().await;
    let (a, node) = client(&world).await;
    let dead = Records::new().srv(9, "target.test.").address(IpAddr::from([127, 0, 0, 1]));
    world.dns.set("registry.nsm-system.dead.test.", dead);
    let text = fails(&node, "vpn@dead.test").await.to_string();
    assert!(text.contains("tcp://127.0.0.1:9") && text.contains("refused the connection"), "{text}");
    a.is_empty(&[&node]).await;
}

#[tokio::test]
async fn a_domain_that_is_not_federated() {
    let world = World::new().await;
    let (a, node) = client(&world).await;
    let mut stranger = world.stranger("s");
    stranger.start_registry_proxy().await;
    stranger.start_manager_proxy().await;
    stranger.start_registry(true).await;
    world.publish("s", &stranger, true);
    let text = fails(&node, "vpn@s.test").await.to_string();
    assert!(text.contains("registry-proxy-a"), "{text}");
    assert!(text.contains(&stranger.registry_url()) && text.contains("trust"), "{text}");
    a.is_empty(&[&node]).await;
}

#[tokio::test]
async fn a_domain_whose_manager_proxy_is_away() {
    let world = World::new().await;
    let (a, node) = client(&world).await;
    let mut b = world.domain("b").await;
    b.network_service("vpn").await;
    let there = b.node(1).await;
    let seen = Seen::default();
    let _endpoint = there.endpoint("nse-1", "vpn", &seen).await;
    b.manager_proxy = None;
    let text = fails(&node, "vpn@b.test").await.to_string();
    assert!(text.contains("proxy-a") && text.contains(&b.url(5004)), "{text}");
    b.start_manager_proxy().await;
    let client = node.client("nsc");
    let connection = again(&client, "vpn@b.test", "c").await;
    client.close(connection, BRIEFLY).await.unwrap();
    assert_eq!(seen.requests(), seen.closes());
    a.is_empty(&[&node]).await;
}

#[tokio::test]
async fn a_registry_without_a_proxy_says_so() {
    let world = World::new().await;
    let (mut a, node) = client(&world).await;
    a.start_registry(false).await;
    let text = fails(&node, "vpn@b.test").await.to_string();
    assert!(text.contains("registry-a/Interdomain") && text.contains("this registry has no proxy"), "{text}");
    assert!(text.contains("give the registry the URL of its domain's manager proxy"), "{text}");
}
