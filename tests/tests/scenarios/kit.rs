//! What scenarios share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use nsm_api::Connection;
use nsm_api::registry::NetworkService;
use nsm_chain::{Call, Element, Error, Next, Result};
use nsm_sdk::lifetime::Liveness;
use nsm_sdk::stacks::Client;
use nsm_sdk::testing::{Mesh, Node};
use tokio::runtime::Handle;

/// Long enough for anything that works; a paused clock makes it free.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// Counts what reaches an endpoint, and lets it fail or hang.
#[derive(Debug, Clone, Default)]
pub(crate) struct Count {
    requests: Arc<AtomicUsize>,
    closes: Arc<AtomicUsize>,
    failing: Arc<AtomicUsize>,
    hanging: Arc<AtomicUsize>,
}

impl Count {
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn closes(&self) -> usize {
        self.closes.load(Ordering::SeqCst)
    }

    pub(crate) fn both(&self) -> (usize, usize) {
        (self.requests(), self.closes())
    }

    /// Refuses the next so many Requests.
    pub(crate) fn fail(&self, requests: usize) {
        self.failing.store(requests, Ordering::SeqCst);
    }

    /// Leaves the next so many Requests without an answer.
    pub(crate) fn hang(&self, requests: usize) {
        self.hanging.store(requests, Ordering::SeqCst);
    }
}

/// Takes one off, unless there is none.
fn one_of(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

impl Element for Count {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        if one_of(&self.failing) {
            return Err(Error::unavailable("busy"));
        }
        if one_of(&self.hanging) {
            call.patiently(std::future::pending::<()>()).await?;
        }
        next.request(call).await
    }

    async fn close(&self, call: Call, next: Next<'_>) -> Result<Call> {
        self.closes.fetch_add(1, Ordering::SeqCst);
        next.close(call).await
    }
}

/// A mesh with the network service `vpn`, and so many nodes called `1`, `2`, ...
pub(crate) async fn mesh_of(nodes: usize) -> (Mesh, Vec<Node>) {
    with_nodes(Mesh::new().unwrap(), nodes).await
}

/// The same, with tokens of that life.
pub(crate) async fn mesh_with_token_life(life: Duration, nodes: usize) -> (Mesh, Vec<Node>) {
    with_nodes(Mesh::with_token_life(life).unwrap(), nodes).await
}

pub(crate) async fn with_nodes(mesh: Mesh, count: usize) -> (Mesh, Vec<Node>) {
    mesh.network_service("vpn").await.unwrap();
    let mut nodes = Vec::new();
    for number in 1..=count {
        nodes.push(mesh.node(&number.to_string()).await.unwrap());
    }
    (mesh, nodes)
}

/// Asks for `kernel://service/nsm-1`.
pub(crate) async fn ask(client: &Client, service: &str, id: &str) -> Result<Connection> {
    ask_within(client, service, id, SOON).await
}

pub(crate) async fn ask_within(client: &Client, service: &str, id: &str, within: Duration) -> Result<Connection> {
    let url = format!("kernel://{service}/nsm-1").parse().unwrap();
    client.request_url(&url, id, within).await
}

/// Waits, on the paused clock, until `done`; fails after ten minutes of it.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..60_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came: {what}");
}

/// Lets that much time pass.
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// The names along a connection's path.
pub(crate) fn names(connection: &Connection) -> Vec<&str> {
    connection.path.iter().flat_map(|path| &path.path_segments).map(|segment| segment.name.as_str()).collect()
}

/// How many tasks there were before a scenario.
pub(crate) struct Census(usize);

impl Census {
    pub(crate) fn begin() -> Self {
        Self(Handle::current().metrics().num_alive_tasks())
    }

    /// After everything is closed: no hop keeps anything of any connection, no wire is left, the clients have nothing,
    /// and, as soon as streams and caches that linger a while are gone, no task runs that did not run before.
    pub(crate) async fn is_the_same(&self, mesh: &Mesh, clients: &[&Client]) {
        nothing_left(mesh, clients).await;
        until("the tasks of before", || Handle::current().metrics().num_alive_tasks() <= self.0).await;
    }
}

/// No hop keeps anything of any connection, no wire is left, and the clients have nothing.
pub(crate) async fn nothing_left(mesh: &Mesh, clients: &[&Client]) {
    for client in clients {
        assert!(client.connections().handles().is_empty(), "{client:?} keeps connections");
    }
    // A former next hop is sent its Close without anybody waiting for it.
    pass(Duration::from_millis(1)).await;
    assert_eq!(mesh.kept(), []);
    assert!(mesh.wires().wires().is_empty(), "{:?}", mesh.wires().wires());
}

/// A network service whose matches lead from a source selector to a destination selector.
pub(crate) fn service(name: &str, matches: Vec<Match>) -> NetworkService {
    NetworkService {
        name: name.into(),
        payload: nsm_api::payload::IP.into(),
        matches: matches.into_iter().map(|rule| rule.0).collect(),
        ..Default::default()
    }
}

/// One rule of a network service.
pub(crate) struct Match(nsm_api::registry::Match);

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn map(pairs: Pairs<'_>) -> std::collections::BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

impl Match {
    pub(crate) fn from(source: Pairs<'_>) -> Self {
        Self(nsm_api::registry::Match { source_selector: map(source), ..Default::default() })
    }

    pub(crate) fn to(self, destination: Pairs<'_>) -> Self {
        self.weighing(destination, 0)
    }

    pub(crate) fn weighing(mut self, destination: Pairs<'_>, weight: u32) -> Self {
        let destination = nsm_api::registry::Destination { destination_selector: map(destination), weight };
        self.0.routes.push(destination);
        self
    }

    pub(crate) fn falling_through(mut self) -> Self {
        self.0.fallthrough = true;
        self
    }

    pub(crate) fn carried_by(mut self, labels: Pairs<'_>) -> Self {
        self.0.metadata = Some(nsm_api::registry::Metadata { labels: map(labels) });
        self
    }
}

/// Packets flow as a test says, whatever else there is.
#[derive(Clone)]
pub(crate) struct Packets(Arc<AtomicBool>);

impl Packets {
    pub(crate) fn flowing() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    pub(crate) fn stop(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    pub(crate) fn flow(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Liveness for Packets {
    fn alive<'a>(&'a self, _connection: &'a Connection, _within: Duration) -> BoxFuture<'a, bool> {
        let flowing = self.0.load(Ordering::SeqCst);
        async move { flowing }.boxed()
    }
}

/// How often liveness is asked.
pub(crate) const EVERY: Duration = Duration::from_millis(200);
