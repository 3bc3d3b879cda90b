use std::sync::Arc;
use std::time::Duration;

use nsm_api::registry::{NetworkService, NetworkServiceEndpoint};
use nsm_chain::{Begin, Chain, Node, OrderError, Timers};

use super::Admission;
use crate::connect::{Connect, Links};
use crate::identity::PolicySet;
use crate::registry::{
    AuthorizeRegistryServer, Cache, ClientInfo, DefaultPayload, Endpoints, Expire, Finder, LocalBypass, Memory,
    ResumeWatch, Services,
};

/// The registry half of a manager: what its endpoints register with, and by what it finds.
///
/// With a registry further on, its endpoints are registered there under the manager's URL. Without one the
/// manager keeps all records itself: a mesh of one node.
#[derive(Debug, Clone)]
pub struct ManagerRegistry {
    /// Register, Unregister and Find of network services.
    pub services: Chain<Services>,
    /// Register, Unregister and Find of endpoints.
    pub endpoints: Chain<Endpoints>,
    /// The manager's own look-ups, from a local copy where there is one.
    pub finder: Finder,
}

/// Settings of a [`ManagerRegistry`].
#[derive(Debug)]
pub struct ManagerRegistryBuilder {
    name: String,
    url: Arc<str>,
    admission: Admission,
    info: ClientInfo,
    expiration: Duration,
    timers: Timers,
    endpoints: Vec<Node<Endpoints>>,
    upstream: Option<(Node<Services>, Node<Endpoints>)>,
    registry_policies: PolicySet,
}

impl ManagerRegistry {
    /// Of the manager called `name` in errors, which others reach under `url`.
    #[must_use]
    pub fn builder(name: impl Into<String>, url: impl Into<Arc<str>>, admission: Admission) -> ManagerRegistryBuilder {
        ManagerRegistryBuilder {
            name: name.into(),
            url: url.into(),
            admission,
            info: ClientInfo::default(),
            expiration: Duration::from_secs(60),
            timers: Timers::default(),
            endpoints: Vec::new(),
            upstream: None,
            registry_policies: PolicySet::registry_client(),
        }
    }
}

impl ManagerRegistryBuilder {
    /// Registers further on, at the registry with this URL.
    #[must_use]
    pub fn registry(self, links: Arc<impl Links<Services> + Links<Endpoints>>, url: impl Into<Arc<str>>) -> Self {
        let url = url.into();
        let services = Connect::new(Arc::clone(&links) as Arc<dyn Links<Services>>).to(Arc::clone(&url));
        let endpoints = Connect::new(links as Arc<dyn Links<Endpoints>>).to(url);
        self.ending_in(Node::new(services), Node::new(endpoints))
    }

    /// Registers further on, with whatever these elements lead to.
    #[must_use]
    pub fn ending_in(mut self, services: Node<Services>, endpoints: Node<Endpoints>) -> Self {
        self.upstream = Some((services, endpoints));
        self
    }

    /// Judges the registry's answers by these policies (default: the stock policies for clients of a registry).
    #[must_use]
    pub fn registry_policies(mut self, policies: PolicySet) -> Self {
        self.registry_policies = policies;
        self
    }

    /// Labels endpoints with where this manager runs (default: not).
    #[must_use]
    pub fn client_info(mut self, info: ClientInfo) -> Self {
        self.info = info;
        self
    }

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

    /// An element for endpoints before they are registered further on: one that takes descriptors, say.
    #[must_use]
    pub fn before_endpoints(mut self, element: Node<Endpoints>) -> Self {
        self.endpoints.push(element);
        self
    }

    /// The chains.
    ///
    /// # Errors
    /// When an element of one's own stands where it may not.
    pub fn build(self) -> Result<ManagerRegistry, OrderError> {
        let name: Arc<str> = self.name.into();
        let bypass = LocalBypass::new(self.url);
        let mut find_services = vec![Node::new(ResumeWatch)]; // the manager's watches outlive the registry
        let mut find_endpoints = vec![
            Node::new(ResumeWatch),
            Node::new(bypass.finds()), // its own endpoints under their own URLs
        ];

        let mut services = self.admission.elements::<NetworkService>(); // path, policies
        let mut endpoints = self.admission.elements::<NetworkServiceEndpoint>(); // path, policies
        endpoints.push(Node::new(Begin::default())); //                            one event a name at a time
        endpoints.push(Node::new(self.info)); //                                   node, pod, cluster
        endpoints.push(Node::new(Expire::after(self.expiration, self.timers))); // until when, if not refreshed
        endpoints.extend(self.endpoints); //                                       the user's own
        endpoints.push(Node::new(bypass)); //                                      elsewhere under the manager's URL

        let (end_services, end_endpoints) = match self.upstream {
            Some(upstream) => {
                find_services.push(Node::new(Cache::<NetworkService>::default())); // asked again and again
                find_endpoints.push(Node::new(Cache::<NetworkServiceEndpoint>::default()));
                services.push(Node::new(AuthorizeRegistryServer::new(self.registry_policies.clone()))); // believes it
                endpoints.push(Node::new(AuthorizeRegistryServer::new(self.registry_policies))); //        or not
                upstream
            }
            None => {
                services.push(Node::new(DefaultPayload::default())); // queries by payload find every service
                (Node::new(Memory::default()), Node::new(Memory::default()))
            }
        };
        services.push(end_services.clone()); // registers, or stores
        endpoints.push(end_endpoints.clone());
        find_services.push(end_services);
        find_endpoints.push(end_endpoints);

        let finder =
            Finder::new(Chain::new(Arc::clone(&name), find_services)?, Chain::new(Arc::clone(&name), find_endpoints)?);
        Ok(ManagerRegistry {
            services: Chain::new(Arc::clone(&name), services)?,
            endpoints: Chain::new(name, endpoints)?,
            finder,
        })
    }
}
