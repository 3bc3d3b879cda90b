//! What dies between two domains, and what comes back.

use nsm_api::Connection;
use nsm_sdk::roles::Running;
use nsm_sdk::stacks::Client;

use crate::kit::{Domain, Node, SOON, Seen, World, again, ask, path, until};

/// A client in `a`, connected to an endpoint in `b`.
struct Connected {
    _world: World,
    a: Domain,
    b: Domain,
    here: Node,
    there: Node,
    client: Client,
    seen: Seen,
    endpoint: Running,
    connection: Connection,
}

async fn connected() -> Connected {
    let world = World::new().await;
    let (a, mut b) = (world.domain("a").await, world.domain("b").await);
    let (here, there) = (a.node(1).await, b.node(1).await);
    b.network_service("vpn").await;
    let seen = Seen::default();
    let endpoint = there.endpoint("nse-1", "vpn", &seen).await;
    let client = here.client("nsc");
    let connection = ask(&client, "vpn@b.test", "c").await.unwrap();
    Connected { _world: world, a, b, here, there, client, seen, endpoint, connection }
}

impl Connected {
    /// Something came back: the connection heals by itself, works, and nothing of it is left in the end.
    async fn heals(self, what: &str) {
        let before = self.seen.requests();
        until(what, || self.seen.requests() > before).await;
        self.still_works().await;
    }

    async fn still_works(self) {
        let connection = again(&self.client, "vpn@b.test", "c").await;
        assert_eq!(path(&connection), path(&self.connection));
        assert_eq!(self.seen.names(), ("vpn".into(), "nse-1".into()));
        self.client.close(connection, SOON).await.unwrap();
        until("the endpoint to have nothing", || self.endpoint.connections() == 0).await;
        self.a.is_empty(&[&self.here]).await;
        self.b.is_empty(&[&self.there]).await;
    }
}

#[tokio::test]
async fn another_endpoint_takes_over_when_one_dies() {
    let c = connected().await;
    let seen = Seen::default();
    let next = c.there.endpoint("nse-2", "vpn", &seen).await;
    drop(c.endpoint);
    until("the other endpoint to be asked", || seen.requests() > 0).await;
    let connection = again(&c.client, "vpn@b.test", "c").await;
    assert_eq!(connection.network_service_endpoint_name, "nse-2@b.test");
    c.client.close(connection, SOON).await.unwrap();
    assert_eq!(next.connections(), 0);
    c.a.is_empty(&[&c.here]).await;
}

#[tokio::test]
async fn the_proxy_of_the_clients_domain_is_restarted() {
    let mut c = connected().await;
    c.a.start_manager_proxy().await;
    c.heals("the way through the new proxy").await;
}

#[tokio::test]
async fn the_proxy_of_the_endpoints_domain_is_restarted() {
    let mut c = connected().await;
    c.b.start_manager_proxy().await;
    c.heals("the way through the new proxy").await;
}

#[tokio::test]
async fn the_managers_are_restarted() {
    let mut c = connected().await;
    c.here.start_manager().await;
    let before = c.seen.requests();
    until("the way through the new manager", || c.seen.requests() > before).await;
    c.there.start_manager().await;
    c.heals("the way through the other new manager").await;
}

#[tokio::test]
async fn registries_and_registry_proxies_are_not_missed_and_come_back() {
    let mut c = connected().await;
    c.a.registry = None;
    c.b.registry = None;
    c.a.registry_proxy = None;
    let refreshed = again(&c.client, "vpn@b.test", "c").await;
    assert_eq!(path(&refreshed), path(&c.connection));
    c.a.start_registry_proxy().await;
    c.a.start_registry(true).await;
    c.b.start_registry(true).await;
    // Endpoints and network services are registered again, and found again.
    let other = c.here.client("other");
    let connection = again(&other, "vpn@b.test", "d").await;
    other.close(connection, SOON).await.unwrap();
    c.still_works().await;
}

#[tokio::test]
async fn everything_between_the_two_nodes_is_restarted_at_once() {
    let mut c = connected().await;
    for domain in [&mut c.a, &mut c.b] {
        domain.manager_proxy = None;
        domain.registry_proxy = None;
        domain.registry = None;
    }
    for domain in [&mut c.a, &mut c.b] {
        domain.start_registry_proxy().await;
        domain.start_manager_proxy().await;
        domain.start_registry(true).await;
    }
    c.heals("the way through all that is new").await;
}
