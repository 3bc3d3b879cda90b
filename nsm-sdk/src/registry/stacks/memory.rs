use std::sync::Arc;
use std::time::Duration;

use nsm_api::registry::{NetworkService, NetworkServiceEndpoint};
use nsm_chain::{Begin, Chain, Node, OrderError, Record, Registry, Timers};

use super::restore::Restoring;
use super::{Admission, RestoreError};
use crate::connect::{Connect, Links};
use crate::identity::PolicySet;
use crate::interdomain::Interdomain;
use crate::registry::{
    AuthorizeRegistryServer, DefaultPayload, Endpoints, Expire, Journals, Memory, RegistrationTime, Services,
};

/// A registry that answers from memory; durable, if it is given journals.
///
/// ```
/// use nsm_api::registry::{NetworkService, NetworkServiceQuery};
/// use nsm_chain::{Call, Watch};
/// use nsm_sdk::registry::stacks::{Admission, MemoryRegistry};
/// use futures::StreamExt;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = MemoryRegistry::builder("registry", Admission::open()).build()?;
/// let vpn = NetworkService { name: "vpn".into(), ..Default::default() };
/// registry.services.request(Call::new(vpn)).await?;
///
/// let mut found = registry.services.monitor(Watch::new(NetworkServiceQuery::default())).await?;
/// assert_eq!(found.next().await.unwrap()?.record.payload, "IP");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct MemoryRegistry {
    /// Register, Unregister and Find of network services.
    pub services: Chain<Services>,
    /// Register, Unregister and Find of endpoints.
    pub endpoints: Chain<Endpoints>,
    stored: (Arc<Memory<NetworkService>>, Arc<Memory<NetworkServiceEndpoint>>),
}

/// Settings of a [`MemoryRegistry`].
#[derive(Debug)]
pub struct MemoryRegistryBuilder {
    name: String,
    admission: Admission,
    expiration: Duration,
    timers: Timers,
    services: Vec<Node<Services>>,
    endpoints: Vec<Node<Endpoints>>,
    proxy: Option<(Node<Services>, Node<Endpoints>)>,
    proxy_policies: PolicySet,
}

impl MemoryRegistry {
    /// Network services and endpoints: how many are stored, and how many watchers are told of changes.
    #[must_use]
    pub fn counts(&self) -> ((usize, usize), (usize, usize)) {
        let (services, endpoints) = &self.stored;
        ((services.len(), services.watchers()), (endpoints.len(), endpoints.watchers()))
    }

    /// A registry called `name` in errors.
    #[must_use]
    pub fn builder(name: impl Into<String>, admission: Admission) -> MemoryRegistryBuilder {
        MemoryRegistryBuilder {
            name: name.into(),
            admission,
            expiration: Duration::from_secs(60),
            timers: Timers::default(),
            services: Vec::new(),
            endpoints: Vec::new(),
            proxy: None,
            proxy_policies: PolicySet::registry_client(),
        }
    }
}

impl MemoryRegistryBuilder {
    /// How long an endpoint that does not say stays registered (default: a minute).
    #[must_use]
    pub fn default_expiration(mut self, life: Duration) -> Self {
        self.expiration = life;
        self
    }

    /// The timers of the program, instead of a set of its own.
    #[must_use]
    pub fn timers(mut self, timers: Timers) -> Self {
        self.timers = timers;
        self
    }

    /// Other domains are reached through the manager proxy at this URL (default: they are not reached).
    #[must_use]
    pub fn proxy(mut self, links: Arc<impl Links<Services> + Links<Endpoints>>, url: impl Into<Arc<str>>) -> Self {
        let url = url.into();
        let services = Connect::new(Arc::clone(&links) as Arc<dyn Links<Services>>).to(Arc::clone(&url));
        let endpoints = Connect::new(links as Arc<dyn Links<Endpoints>>).to(url);
        self.proxy = Some((Node::new(services), Node::new(endpoints)));
        self
    }

    /// Judges the proxy's answers by these policies (default: the stock policies for clients of a registry).
    #[must_use]
    pub fn proxy_policies(mut self, policies: PolicySet) -> Self {
        self.proxy_policies = policies;
        self
    }

    /// An element for network services before the store.
    #[must_use]
    pub fn before_services(mut self, element: Node<Services>) -> Self {
        self.services.push(element);
        self
    }

    /// An element for endpoints before the store.
    #[must_use]
    pub fn before_endpoints(mut self, element: Node<Endpoints>) -> Self {
        self.endpoints.push(element);
        self
    }

    /// The registry: empty, and in memory alone.
    ///
    /// # Errors
    /// When an element of one's own stands where it may not.
    pub fn build(self) -> Result<MemoryRegistry, OrderError> {
        self.assemble(&mut Restoring::nothing(), &mut Restoring::nothing())
    }

    /// The registry as its journals have it, which keep from now on what it tells its callers: what was registered and
    /// has not expired meanwhile is registered, under the same end, and names belong to whom they belonged. Crate
    /// `nsm-store` has journals in a file.
    ///
    /// # Errors
    /// When the journals cannot be read, or an element of one's own stands where it may not.
    pub async fn restore(self, journals: &Journals) -> Result<MemoryRegistry, RestoreError> {
        let mut services = Restoring::from(&journals.services).await?;
        let mut endpoints = Restoring::from(&journals.endpoints).await?;
        let registry = self.assemble(&mut services, &mut endpoints)?;
        services.into(&registry.services).await?;
        endpoints.into(&registry.endpoints).await?;
        Ok(registry)
    }

    fn assemble(
        self,
        services: &mut Restoring<NetworkService>,
        endpoints: &mut Restoring<NetworkServiceEndpoint>,
    ) -> Result<MemoryRegistry, OrderError> {
        let (far_services, far_endpoints) = self.proxy.unzip();
        let far_services = far(&self.name, &self.proxy_policies, far_services)?;
        let far_endpoints = far(&self.name, &self.proxy_policies, far_endpoints)?;

        let (memory, owners) = services.take();
        let stored_services = Arc::new(memory);
        let mut services = self.admission.elements(owners); //   path, policies
        services.push(Node::new(DefaultPayload::default())); //  queries by payload find every service
        services.extend(self.services); //                       the user's own
        services.push(Node::new(Interdomain::by(far_services))); // names of other domains go there
        services.push(Node::new(Arc::clone(&stored_services))); // stores and answers

        let (memory, owners) = endpoints.take();
        let stored_endpoints = Arc::new(memory);
        let mut endpoints = self.admission.elements(owners); //                    path, policies
        endpoints.push(Node::new(Begin::default())); //                            one event a name at a time
        endpoints.extend(self.endpoints); //                                       the user's own: may answer instead
        endpoints.push(Node::new(RegistrationTime::default())); //                 since when
        endpoints.push(Node::new(Expire::after(self.expiration, self.timers))); // until when, if not refreshed
        endpoints.push(Node::new(Interdomain::by(far_endpoints))); //              names of other domains go there
        endpoints.push(Node::new(Arc::clone(&stored_endpoints))); //               stores what the ones before settled

        Ok(MemoryRegistry {
            services: Chain::new(self.name.as_str(), services)?,
            endpoints: Chain::new(self.name.as_str(), endpoints)?,
            stored: (stored_services, stored_endpoints),
        })
    }
}

/// The way to the proxy, whose answers are believed or not.
fn far<R: Record>(
    name: &str,
    policies: &PolicySet,
    proxy: Option<Node<Registry<R>>>,
) -> Result<Option<Node<Registry<R>>>, OrderError> {
    let chain = proxy.map(|proxy| {
        Chain::new(name, vec![Node::new(AuthorizeRegistryServer::new(policies.clone())), proxy]).map(Node::new)
    });
    chain.transpose()
}
