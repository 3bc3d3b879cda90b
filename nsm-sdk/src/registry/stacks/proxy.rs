use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nsm_api::registry::{NetworkService, NetworkServiceEndpoint};
use nsm_chain::{Begin, Chain, Node, OrderError, Record, Timers};

use super::Admission;
use crate::connect::{Connect, Links};
use crate::identity::PolicySet;
use crate::interdomain::{DnsResolve, DomainResolver, MANAGER_PROXY, REGISTRY};
use crate::registry::{AuthorizeRegistryServer, Endpoints, Expire, Services};

/// The registry proxy of a domain: what leaves for the registries of other domains leaves through it.
#[derive(Debug, Clone)]
pub struct RegistryProxy {
    /// Register, Unregister and Find of network services.
    pub services: Chain<Services>,
    /// Register, Unregister and Find of endpoints.
    pub endpoints: Chain<Endpoints>,
}

/// Settings of a [`RegistryProxy`].
pub struct RegistryProxyBuilder<L> {
    name: String,
    admission: Admission,
    resolver: Arc<dyn DomainResolver>,
    links: Arc<L>,
    finding: (String, String),
    policies: PolicySet,
    timers: Timers,
}

impl RegistryProxy {
    /// A proxy called `name` in errors, that finds other domains by `resolver` and reaches them by `links`.
    #[must_use]
    pub fn builder<L: Links<Services> + Links<Endpoints>>(
        name: impl Into<String>,
        admission: Admission,
        resolver: Arc<dyn DomainResolver>,
        links: Arc<L>,
    ) -> RegistryProxyBuilder<L> {
        RegistryProxyBuilder {
            name: name.into(),
            admission,
            resolver,
            links,
            finding: (REGISTRY.to_owned(), MANAGER_PROXY.to_owned()),
            policies: PolicySet::registry_client(),
            timers: Timers::default(),
        }
    }
}

impl<L: Links<Services> + Links<Endpoints>> RegistryProxyBuilder<L> {
    /// Other domains' registries and manager proxies are found under these names (default: [`REGISTRY`] and
    /// [`MANAGER_PROXY`]).
    #[must_use]
    pub fn finding(mut self, registry: impl Into<String>, proxy: impl Into<String>) -> Self {
        self.finding = (registry.into(), proxy.into());
        self
    }

    /// Judges other registries' answers by these policies (default: the stock policies for clients of a registry).
    #[must_use]
    pub fn registry_policies(mut self, policies: PolicySet) -> Self {
        self.policies = policies;
        self
    }

    /// The timers of the program, instead of a set of its own.
    #[must_use]
    pub fn timers(mut self, timers: Timers) -> Self {
        self.timers = timers;
        self
    }

    fn which_registry<R: Record>(&self) -> DnsResolve<R> {
        let (registry, proxy) = &self.finding;
        DnsResolve::named(Arc::clone(&self.resolver), registry.as_str(), proxy.as_str())
    }

    /// The chains.
    ///
    /// # Errors
    /// None that a released version gives: the order is right.
    pub fn build(self) -> Result<RegistryProxy, OrderError> {
        let (to_services, to_endpoints): (Arc<dyn Links<Services>>, Arc<dyn Links<Endpoints>>) =
            (Arc::clone(&self.links) as _, Arc::clone(&self.links) as _);

        let mut services = self.admission.elements::<NetworkService>(Vec::new()); // path, policies
        services.extend([
            Node::new(AuthorizeRegistryServer::new(self.policies.clone())), // believes the other registry or not
            Node::new(self.which_registry::<NetworkService>()),             // which one
            Node::new(Connect::new(to_services)),                           // to that one
        ]);

        let mut endpoints = self.admission.elements::<NetworkServiceEndpoint>(Vec::new()); // path, policies
        endpoints.extend([
            Node::new(Begin::default()),                                    // one event a name at a time
            Node::new(Expire::after(LIFE, self.timers.clone())),            // nothing is kept of the dead
            Node::new(AuthorizeRegistryServer::new(self.policies.clone())), // believes the other registry or not
            Node::new(self.which_registry::<NetworkServiceEndpoint>()),     // which one
            Node::new(Connect::new(to_endpoints)),                          // to that one
        ]);

        let name = self.name.as_str();
        Ok(RegistryProxy { services: Chain::new(name, services)?, endpoints: Chain::new(name, endpoints)? })
    }
}

impl<L> fmt::Debug for RegistryProxyBuilder<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistryProxyBuilder({})", self.name)
    }
}

/// How long an endpoint that does not say stays registered.
const LIFE: Duration = Duration::from_secs(60);
