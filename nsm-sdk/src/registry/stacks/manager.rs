use std::sync::Arc;
use std::time::Duration;

use nsm_api::registry::{NetworkService, NetworkServiceEndpoint};
use nsm_chain::{Begin, Chain, Error, Node, OrderError, Timers};

use super::restore::Restoring;
use super::{Admission, RestoreError};
use crate::connect::{Connect, Links};
use crate::identity::PolicySet;
use crate::registry::{
    AuthorizeRegistryServer, Cache, ClientInfo, DefaultPayload, Endpoints, Expire, Finder, Journals, LocalBypass,
    OneNode, RecvFd, ResumeWatch, Services,
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

    /// An element for endpoints before they are registered further on: one that dials them ahead, say.
    #[must_use]
    pub fn before_endpoints(mut self, element: Node<Endpoints>) -> Self {
        self.endpoints.push(element);
        self
    }

    /// The chains; without a registry further on, all records are in memory alone.
    ///
    /// # Errors
    /// When an element of one's own stands where it may not.
    pub fn build(self) -> Result<ManagerRegistry, OrderError> {
        self.assemble(&mut Restoring::nothing(), &mut Restoring::nothing())
    }

    /// The chains of a manager that keeps all records itself, as [its journals](super::MemoryRegistryBuilder::restore) have
    /// them.
    ///
    /// # Errors
    /// When there is a registry further on, which keeps them; when the journals cannot be read; when an element of
    /// one's own stands where it may not.
    pub async fn restore(self, journals: &Journals) -> Result<ManagerRegistry, RestoreError> {
        if self.upstream.is_some() {
            let error = Error::precondition("a manager with a registry further on keeps no records itself");
            return Err(error.hint("give the store to the registry").into());
        }
        let mut services = Restoring::from(&journals.services).await?;
        let mut endpoints = Restoring::from(&journals.endpoints).await?;
        let registry = self.assemble(&mut services, &mut endpoints)?;
        services.into(&registry.services).await?;
        endpoints.into(&registry.endpoints).await?;
        Ok(registry)
    }

    fn assemble(
        self,
        stored_services: &mut Restoring<NetworkService>,
        stored_endpoints: &mut Restoring<NetworkServiceEndpoint>,
    ) -> Result<ManagerRegistry, OrderError> {
        let name: Arc<str> = self.name.into();
        let (service_memory, owners) = stored_services.take();
        let mut services = self.admission.elements::<NetworkService>(owners); // path, policies
        let (endpoint_memory, owners) = stored_endpoints.take();
        let mut endpoints = self.admission.elements::<NetworkServiceEndpoint>(owners); // path, policies
        endpoints.push(Node::new(Begin::default())); //                            one event a name at a time
        endpoints.push(Node::new(self.info)); //                                   node, pod, cluster
        endpoints.push(Node::new(Expire::after(self.expiration, self.timers))); // until when, if not refreshed
        endpoints.push(Node::new(RecvFd::new())); //                               sockets by descriptor, both ways
        endpoints.extend(self.endpoints); //                                       the user's own

        let mut find_services = vec![Node::new(ResumeWatch)]; // the manager's watches outlive the registry
        let mut find_endpoints = vec![Node::new(ResumeWatch)];
        let (end_services, end_endpoints) = match self.upstream {
            Some(upstream) => {
                let bypass = LocalBypass::new(self.url);
                find_services.push(Node::new(Cache::<NetworkService>::default())); // asked again and again
                find_endpoints.push(Node::new(bypass.finds())); //                    its own under their own URLs
                find_endpoints.push(Node::new(Cache::<NetworkServiceEndpoint>::default()));
                services.push(Node::new(AuthorizeRegistryServer::new(self.registry_policies.clone()))); // believes it
                endpoints.push(Node::new(AuthorizeRegistryServer::new(self.registry_policies))); //        or not
                endpoints.push(Node::new(bypass)); // elsewhere under the manager's URL
                upstream
            }
            None => {
                let one_node = OneNode::new(self.url); // the manager's URL means all that is here
                services.push(Node::new(DefaultPayload::default())); // queries by payload find every service
                find_endpoints.push(Node::new(one_node.clone()));
                endpoints.push(Node::new(one_node));
                (Node::new(service_memory), Node::new(endpoint_memory))
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
