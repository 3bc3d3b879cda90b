use std::fmt;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nsm_api::{NetworkService, SpiffeId};
use nsm_chain::{
    Begin, Call, Error, Node as Element, OrderError, Peer, Result, Service, Timers, Tokens, elements, time,
};
use nsm_mechanisms::Underlay;
use nsm_mechanisms::memory::Fabric;

use super::census::Hops;
use super::{Census, HopCensus, Kept, Node, RunningEndpoint};
use crate::connect::{Connect, InProcess};
use crate::identity::{HmacTokens, PolicySet};
use crate::registry::stacks::{Admission, MemoryRegistry, RegistryClient, RegistryClientBuilder};
use crate::registry::{Endpoints, Services};
use crate::stacks::Hop;

/// A mesh in one process: a registry, and nodes with a manager and a forwarder each.
///
/// ```
/// use nsm_chain::elements;
/// use nsm_sdk::testing::Mesh;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mesh = Mesh::new()?;
/// mesh.network_service("vpn").await?;
/// let node = mesh.node("node-1").await?;
/// node.endpoint("nse-1", "vpn", elements![]).await?;
///
/// let client = node.client("nsc-1").build()?;
/// let connection = client.request_url(&"kernel://vpn/nsm-1".parse()?, "c-1", Duration::from_secs(5)).await?;
/// assert_eq!(connection.network_service_endpoint_name, "nse-1");
/// assert_eq!(connection.path.as_ref().unwrap().path_segments.len(), 4);
/// assert_eq!(mesh.wires().wires().len(), 1);
///
/// client.close(connection, Duration::from_secs(5)).await?;
/// assert_eq!((mesh.wires().wires().len(), mesh.kept()), (0, vec![]));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Mesh {
    pub(super) calls: InProcess<Service>,
    pub(super) services: InProcess<Services>,
    pub(super) endpoints: InProcess<Endpoints>,
    pub(super) hops: Hops,
    pub(super) wires: Fabric,
    token_life: Duration,
    nodes: Arc<AtomicU32>,
    registry: Arc<Mutex<Option<MemoryRegistry>>>,
    /// Keeps the network services registered.
    admin: RegistryClient,
}

/// Where the registry of every test mesh is served.
pub(super) const REGISTRY: &str = "mem://registry";

impl Mesh {
    /// A mesh with a registry, and no nodes yet. Tokens live an hour.
    ///
    /// # Errors
    /// None that a released version gives: the stacks' own order is right.
    pub fn new() -> Result<Self, OrderError> {
        Self::with_token_life(Duration::from_secs(3600))
    }

    /// A mesh whose tokens live that long.
    ///
    /// # Errors
    /// As [`Mesh::new`].
    pub fn with_token_life(token_life: Duration) -> Result<Self, OrderError> {
        let (services, endpoints) = (InProcess::default(), InProcess::default());
        let admin = registry_client("admin", &services, &endpoints, REGISTRY).build()?;
        let mesh = Self {
            calls: InProcess::default(),
            services,
            endpoints,
            hops: Hops::default(),
            wires: Fabric::new(),
            token_life,
            nodes: Arc::default(),
            registry: Arc::default(),
            admin,
        };
        mesh.restart_registry()?;
        Ok(mesh)
    }

    /// Replaces the registry by a fresh one, which knows nothing: whoever registered there does so again.
    ///
    /// # Errors
    /// As [`Mesh::new`].
    pub fn restart_registry(&self) -> Result<(), OrderError> {
        let registry = MemoryRegistry::builder("registry", Admission::open()).timers(Timers::default()).build()?;
        self.services.serve(REGISTRY, registry.services.clone());
        self.endpoints.serve(REGISTRY, registry.endpoints.clone());
        let former = self.registry().replace(registry);
        drop(former);
        Ok(())
    }

    /// Takes the registry away.
    pub fn stop_registry(&self) {
        self.services.stop(REGISTRY);
        self.endpoints.stop(REGISTRY);
        let former = self.registry().take();
        drop(former);
    }

    /// Registers a network service of payload IP that any of its endpoints serves.
    ///
    /// # Errors
    /// What the registry reports.
    pub async fn network_service(&self, name: &str) -> Result<()> {
        self.apply(NetworkService { name: name.into(), payload: nsm_api::payload::IP.into(), ..Default::default() })
            .await
    }

    /// Registers a network service, or changes it.
    ///
    /// # Errors
    /// What the registry reports.
    pub async fn apply(&self, service: NetworkService) -> Result<()> {
        self.admin.services.request(Call::new(service)).await.map(drop)
    }

    /// A node with a manager, and a forwarder for payloads of any kind, called `forwarder-` and the node's name.
    ///
    /// # Errors
    /// What the registry reports.
    pub async fn node(&self, name: &str) -> Result<Node> {
        let node = self.node_without_forwarder(name)?;
        node.forwarder(&format!("forwarder-{name}")).await?;
        Ok(node)
    }

    /// A node with a manager and nothing else.
    ///
    /// # Errors
    /// None that a released version gives.
    pub fn node_without_forwarder(&self, name: &str) -> Result<Node> {
        let number = self.nodes.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(192, 168, 0, 0).to_bits().wrapping_add(number));
        Node::new(self, name, Underlay::new(address.into()))
    }

    /// The endpoint or forwarder of that name, if it was ever started.
    #[must_use]
    pub fn running(&self, name: &str) -> Option<RunningEndpoint> {
        self.hops.find(name)
    }

    /// What the forwarders have programmed.
    #[must_use]
    pub fn wires(&self) -> &Fabric {
        &self.wires
    }

    /// What each hop keeps of connections; hops that keep nothing are left out. Clients are not asked: they are the
    /// caller's.
    #[must_use]
    pub fn kept(&self) -> Vec<Kept> {
        self.hops.kept()
    }

    /// All that is there now. Clients are the caller's: each by name, with its connections and timers.
    ///
    /// To be called within a tokio runtime, whose tasks are counted.
    #[must_use]
    pub fn census<'a>(&self, clients: impl IntoIterator<Item = (&'a str, &'a Begin, &'a Timers)>) -> Census {
        let client = |(name, connections, timers): (&str, _, _)| (name.to_owned(), HopCensus::of(connections, timers));
        let registry = self.registry().as_ref().map(MemoryRegistry::counts);
        Census {
            hops: self.hops.census(),
            clients: clients.into_iter().map(client).collect(),
            fabric: self.wires.clone(),
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
            registry: registry.into_iter().flat_map(|(s, e)| [("service", s), ("endpoint", e)]).collect(),
        }
    }

    fn registry(&self) -> MutexGuard<'_, Option<MemoryRegistry>> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tokens of one hop.
    pub(super) fn tokens(&self, name: &str) -> Result<Arc<dyn Tokens>> {
        Ok(Arc::new(HmacTokens::with_lifetime(&id(name)?, self.token_life)))
    }

    pub(super) fn hop(&self, name: &str) -> Result<Hop> {
        Ok(Hop::new(name, self.tokens(name)?).with_policies(PolicySet::allow_all()))
    }

    /// The other hops, as the one of that name sees them: it has an identity, and is told of its own connections only.
    pub(super) fn seen_by(&self, name: &str) -> Result<InProcess<Service>> {
        let peer = Peer { id: id(name)?, certificate: Arc::from([]), not_after: time::now() + AGES };
        Ok(self.calls.seen_by(Some(Arc::new(peer)), self.tokens(name)?))
    }

    /// The other hops, as somebody without an identity sees them, who is told of all connections.
    pub(super) fn seen_by_an_observer(&self, name: &str) -> Result<InProcess<Service>> {
        Ok(self.calls.seen_by(None, self.tokens(name)?))
    }

    pub(super) fn registry_client(&self, name: &str, url: &str) -> RegistryClientBuilder {
        registry_client(name, &self.services, &self.endpoints, url)
    }
}

fn registry_client(
    name: &str,
    services: &InProcess<Services>,
    endpoints: &InProcess<Endpoints>,
    url: &str,
) -> RegistryClientBuilder {
    let services = Connect::new(services.links()).to(url);
    let endpoints = Connect::new(endpoints.links()).to(url);
    RegistryClient::builder(name).ending_in(Element::new(services), Element::new(endpoints))
}

/// Longer than any test.
const AGES: Duration = Duration::from_secs(10 * 365 * 86_400);

fn id(name: &str) -> Result<SpiffeId> {
    let id = format!("spiffe://example.org/{name}").parse();
    id.map_err(|error| Error::invalid("this name fits no SPIFFE ID").because(error))
}

/// What goes wrong only where the kit itself is wrong.
pub(super) fn broken(error: OrderError) -> Error {
    Error::internal("a stack of the test kit").because(error)
}

/// The mechanisms of every endpoint in a test mesh.
pub(super) fn mechanisms() -> Result<Vec<Element>> {
    use nsm_api::mechanism::KERNEL;
    let mechanisms = nsm_mechanisms::Mechanisms::new().with(KERNEL, nsm_mechanisms::KernelAccept::new());
    Ok(elements![mechanisms.map_err(broken)?])
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mesh").field(&self.calls).finish()
    }
}
