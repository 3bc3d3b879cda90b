use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nsm_api::NetworkService;
use nsm_chain::{Call, OrderError, Result, Service, Timers, Tokens};

use super::Node;
use crate::connect::InProcess;
use crate::identity::{HmacTokens, PolicySet};
use crate::registry::stacks::{Admission, MemoryRegistry};
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
/// assert_eq!(connection.path.unwrap().path_segments.len(), 4);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Mesh {
    pub(super) calls: InProcess<Service>,
    pub(super) services: InProcess<Services>,
    pub(super) endpoints: InProcess<Endpoints>,
    pub(super) token_life: Duration,
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
        let mesh = Self {
            calls: InProcess::default(),
            services: InProcess::default(),
            endpoints: InProcess::default(),
            token_life,
        };
        mesh.restart_registry()?;
        Ok(mesh)
    }

    /// Replaces the registry by a fresh one, which knows nothing.
    ///
    /// # Errors
    /// As [`Mesh::new`].
    pub fn restart_registry(&self) -> Result<(), OrderError> {
        let registry = MemoryRegistry::builder("registry", Admission::open()).timers(Timers::default()).build()?;
        self.services.serve(REGISTRY, registry.services);
        self.endpoints.serve(REGISTRY, registry.endpoints);
        Ok(())
    }

    /// Takes the registry away.
    pub fn stop_registry(&self) {
        self.services.stop(REGISTRY);
        self.endpoints.stop(REGISTRY);
    }

    /// Registers a network service of payload IP that any of its endpoints serves.
    ///
    /// # Errors
    /// What the registry reports.
    pub async fn network_service(&self, name: &str) -> Result<()> {
        self.apply(NetworkService { name: name.into(), payload: nsm_api::payload::IP.into(), ..Default::default() }).await
    }

    /// Registers a network service, or changes it.
    ///
    /// # Errors
    /// What the registry reports.
    pub async fn apply(&self, service: NetworkService) -> Result<()> {
        let registry = self.services.links().link(REGISTRY).await?;
        registry.request(Call::new(service)).await.map(drop)
    }

    /// A node with a manager, and a forwarder for payloads of any kind.
    ///
    /// # Errors
    /// What the registry reports.
    pub async fn node(&self, name: &str) -> Result<Node> {
        let node = Node::new(self, name)?;
        node.forwarder(&format!("forwarder-{name}")).await?;
        Ok(node)
    }

    /// The tokens of one hop.
    pub(super) fn tokens(&self, name: &str) -> Result<Arc<dyn Tokens>> {
        let id = format!("spiffe://example.org/{name}").parse();
        let id = id.map_err(|error| nsm_chain::Error::invalid("this name fits no SPIFFE ID").because(error))?;
        Ok(Arc::new(HmacTokens::with_lifetime(&id, self.token_life)))
    }

    pub(super) fn hop(&self, name: &str) -> Result<Hop> {
        Ok(Hop::new(name, self.tokens(name)?).with_policies(PolicySet::allow_all()))
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mesh").field(&self.calls).finish()
    }
}
