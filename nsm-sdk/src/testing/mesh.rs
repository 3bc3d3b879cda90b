use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use nsm_api::{NetworkService, SpiffeId};
use nsm_chain::{
    Begin, Call, Error, Node as Element, OrderError, Peer, Result, Service, Timers, Tokens, elements, time,
};
use nsm_mechanisms::memory::Fabric;

use super::authority::Authority;
use super::census::Hops;
use super::journal::journals;
use super::{Census, HopCensus, Kept, MeshBuilder, Node, RunningEndpoint};
use crate::connect::{Connect, InProcess, Life, Network};
use crate::identity::PolicySet;
use crate::registry::stacks::{Admission, MemoryRegistry, RegistryClient, RegistryClientBuilder};
use crate::registry::{Endpoints, Journals, Services};
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
    network: Network,
    pub(super) authority: Authority,
    /// The registry's disk, if it has one.
    disk: Option<Arc<Mutex<Journals>>>,
    lives: Arc<Mutex<BTreeMap<String, Life>>>,
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
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// A mesh whose tokens live that long.
    ///
    /// # Errors
    /// As [`Mesh::new`].
    pub fn with_token_life(token_life: Duration) -> Result<Self> {
        Self::builder().token_life(token_life).build()
    }

    /// A mesh with more to choose.
    #[must_use]
    pub fn builder() -> MeshBuilder {
        MeshBuilder::default()
    }

    pub(super) fn assemble(authority: Authority, durable: bool) -> Result<Self> {
        let network = Network::default();
        let (services, endpoints) = (InProcess::over(&network), InProcess::over(&network));
        let life = Life::new("admin", "admin");
        let admin = registry_client(&life, &services, &endpoints, REGISTRY).build().map_err(broken)?;
        let mesh = Self {
            calls: InProcess::over(&network),
            services,
            endpoints,
            hops: Hops::default(),
            wires: Fabric::new(),
            network,
            authority,
            disk: durable.then(|| Arc::new(Mutex::new(journals()))),
            lives: Arc::default(),
            nodes: Arc::default(),
            registry: Arc::default(),
            admin,
        };
        mesh.resume_registry()?;
        Ok(mesh)
    }

    /// What lies between the programs of the mesh: to cut, slow down, freeze, and mend. Programs are named as they are
    /// here (`nsc-1`, `nsmgr-node-1`, `registry`), nodes too.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The authority is not there from now on: certificates are not renewed, and end.
    pub fn stop_authority(&self) {
        self.authority.set_present(false);
    }

    /// The authority is there again.
    pub fn start_authority(&self) {
        self.authority.set_present(true);
    }

    /// Replaces the registry by a fresh one, which knows nothing: whoever registered there does so again. If it had a
    /// disk, that is a new one too.
    ///
    /// # Errors
    /// As [`Mesh::new`].
    pub fn restart_registry(&self) -> Result<()> {
        if let Some(disk) = &self.disk {
            *disk.lock().unwrap_or_else(PoisonError::into_inner) = journals();
        }
        self.resume_registry()
    }

    /// Kills the registry, and starts it anew with what it has on its disk.
    ///
    /// # Errors
    /// As [`Mesh::new`].
    pub fn resume_registry(&self) -> Result<()> {
        self.stop_registry();
        let life = self.begin("registry", "registry");
        let registry = MemoryRegistry::builder("registry", Admission::open()).timers(Timers::default());
        let registry = match &self.disk {
            None => registry.build().map_err(broken)?,
            Some(disk) => {
                let disk = disk.lock().unwrap_or_else(PoisonError::into_inner).clone();
                // This disk is never slow.
                let read = registry.restore(&disk).now_or_never();
                let read = read.ok_or_else(|| Error::internal("the test kit's disk is slow"))?;
                read.map_err(|error| Error::internal("the registry of the test kit").because(error))?
            }
        };
        self.services.used_by(&life).serve(REGISTRY, registry.services.clone());
        self.endpoints.used_by(&life).serve(REGISTRY, registry.endpoints.clone());
        let former = self.registry().replace(registry);
        drop(former);
        Ok(())
    }

    /// Kills the registry.
    pub fn stop_registry(&self) {
        self.end("registry");
        self.services.stop(REGISTRY);
        self.endpoints.stop(REGISTRY);
        let former = self.registry().take();
        drop(former);
    }

    /// A program begins a life of its own.
    pub(super) fn begin(&self, name: &str, node: &str) -> Life {
        let life = Life::new(name, node);
        self.lives.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), life.clone());
        life
    }

    /// Ends the life of a client at once: it closes nothing, and what still runs of it reaches nobody. Drop what you have
    /// of it. Of another program only its means to act end; see [`RunningEndpoint::kill`], [`Node::stop_manager`],
    /// [`Mesh::stop_registry`].
    pub fn end(&self, name: &str) {
        let life = self.lives.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        if let Some(life) = life {
            life.end();
        }
    }

    /// Ends everything at once, and forgets it. Programs of a mesh know one another, and so one that is merely dropped keeps
    /// its memory to the end of the process: a process that makes many calls this.
    pub fn end_all(&self) {
        self.hops.forget();
        self.stop_registry();
        self.calls.stop_all();
        self.services.stop_all();
        self.endpoints.stop_all();
        let lives = std::mem::take(&mut *self.lives.lock().unwrap_or_else(PoisonError::into_inner));
        lives.values().for_each(Life::end);
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
        Node::new(self, name, address.into())
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
        Ok(self.authority.tokens(&id(name)?))
    }

    pub(super) fn hop(&self, life: &Life) -> Result<Hop> {
        Ok(Hop::new(Arc::clone(life.name()), self.tokens(life.name())?).with_policies(PolicySet::allow_all()))
    }

    /// The other hops, as this program sees them: it has an identity, and is told of its own connections only.
    pub(super) fn seen_by(&self, life: &Life) -> Result<InProcess<Service>> {
        let name = life.name();
        let peer = Peer { id: id(name)?, certificate: Arc::from([]), not_after: time::now() + AGES };
        Ok(self.calls.used_by(life).seen_by(Some(Arc::new(peer)), self.tokens(name)?))
    }

    /// The other hops, as somebody without an identity sees them, who is told of all connections.
    pub(super) fn seen_by_an_observer(&self, name: &str) -> Result<InProcess<Service>> {
        Ok(self.calls.used_by(&Life::new(name, name)).seen_by(None, self.tokens(name)?))
    }

    pub(super) fn registry_client(&self, life: &Life, url: &str) -> RegistryClientBuilder {
        registry_client(life, &self.services, &self.endpoints, url)
    }
}

fn registry_client(
    life: &Life,
    services: &InProcess<Services>,
    endpoints: &InProcess<Endpoints>,
    url: &str,
) -> RegistryClientBuilder {
    let services = Connect::new(services.used_by(life).links()).to(url);
    let endpoints = Connect::new(endpoints.used_by(life).links()).to(url);
    RegistryClient::builder(&**life.name()).ending_in(Element::new(services), Element::new(endpoints))
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
