use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nsm_api::registry::{NetworkService, NetworkServiceEndpoint};
use nsm_chain::{Begin, Chain, Node, OrderError, Service, elements};

use super::Hop;
use crate::connect::{Connect, Links};
use crate::discovery::{Discover, RoundRobin};
use crate::identity::PolicySet;
use crate::interdomain::{ClusterInfo, InterdomainBypass, SwapIp};
use crate::monitor::Monitor;
use crate::registry::stacks::Admission;
use crate::registry::{AuthorizeRegistryServer, Cache, Endpoints, Expire, Finder, ResumeWatch, Services};

/// The manager proxy of a domain (NSMgr proxy): Requests and registrations that cross its border go through it.
///
/// Its registry half stands between the domain's registry and its [registry proxy](crate::registry::stacks::RegistryProxy).
#[derive(Debug, Clone)]
pub struct ManagerProxy {
    /// Request, Close and Monitor.
    pub chain: Chain,
    /// Register, Unregister and Find of other domains' network services.
    pub services: Chain<Services>,
    /// Register, Unregister and Find of other domains' endpoints.
    pub endpoints: Chain<Endpoints>,
    /// What is connected now.
    pub connections: Arc<Begin>,
    /// What watchers see.
    pub monitor: Arc<Monitor>,
}

/// Settings of a [`ManagerProxy`].
pub struct ManagerProxyBuilder<L> {
    hop: Hop,
    admission: Admission,
    url: Arc<str>,
    links: Arc<L>,
    registry: Arc<str>,
    registry_proxy: Arc<str>,
    domains: Vec<String>,
    addresses: PathBuf,
    cluster: PathBuf,
    registry_policies: PolicySet,
    elements: Vec<Node>,
}

impl ManagerProxy {
    /// A proxy that others reach under `url`. It looks endpoints of this domain up in `registry`, those of others through
    /// `registry_proxy`, and reaches all of them, other domains' proxies and this domain's managers by `links`.
    #[must_use]
    pub fn builder<L>(
        hop: &Hop,
        admission: Admission,
        url: impl Into<Arc<str>>,
        links: Arc<L>,
        (registry, registry_proxy): (impl Into<Arc<str>>, impl Into<Arc<str>>),
    ) -> ManagerProxyBuilder<L>
    where
        L: Links<Service> + Links<Services> + Links<Endpoints>,
    {
        ManagerProxyBuilder {
            hop: hop.clone(),
            admission,
            url: url.into(),
            links,
            registry: registry.into(),
            registry_proxy: registry_proxy.into(),
            domains: Vec::new(),
            addresses: SwapIp::DEFAULT_PATH.into(),
            cluster: ClusterInfo::DEFAULT_PATH.into(),
            registry_policies: PolicySet::registry_client(),
            elements: Vec::new(),
        }
    }
}

impl<L: Links<Service> + Links<Services> + Links<Endpoints>> ManagerProxyBuilder<L> {
    /// The domains by whose names others know this one (default: whatever its registry knows is taken for this domain's).
    #[must_use]
    pub fn domains(mut self, domains: impl IntoIterator<Item = String>) -> Self {
        self.domains.extend(domains);
        self
    }

    /// The file that maps inside addresses to outside ones and back (default: [`SwapIp::DEFAULT_PATH`]).
    #[must_use]
    pub fn addresses(mut self, path: impl Into<PathBuf>) -> Self {
        self.addresses = path.into();
        self
    }

    /// The file with the cluster's labels (default: [`ClusterInfo::DEFAULT_PATH`]).
    #[must_use]
    pub fn cluster(mut self, path: impl Into<PathBuf>) -> Self {
        self.cluster = path.into();
        self
    }

    /// Judges the registry proxy's answers by these policies (default: the stock policies for clients of a registry).
    #[must_use]
    pub fn registry_policies(mut self, policies: PolicySet) -> Self {
        self.registry_policies = policies;
        self
    }

    /// Elements of one's own, before the choice of the next hop: limits, labels.
    #[must_use]
    pub fn with(mut self, elements: Vec<Node>) -> Self {
        self.elements.extend(elements);
        self
    }

    fn to<P>(&self, url: &Arc<str>) -> Node<P>
    where
        P: crate::connect::Listens,
        L: Links<P>,
    {
        Node::new(Connect::new(Arc::clone(&self.links) as Arc<dyn Links<P>>).to(Arc::clone(url)))
    }

    /// The chains.
    ///
    /// # Errors
    /// When an element of one's own stands where it may not.
    pub fn build(self) -> Result<ManagerProxy, OrderError> {
        let name = Arc::clone(&self.hop.name);
        let bypass = Arc::new(InterdomainBypass::new(Arc::clone(&self.url)));
        let addresses = SwapIp::new(&*self.addresses);
        let cluster = ClusterInfo::new(&*self.cluster);

        let mut services = self.admission.elements::<NetworkService>(Vec::new()); // path, policies
        services.push(Node::new(AuthorizeRegistryServer::new(self.registry_policies.clone()))); // believes it or not
        services.push(self.to(&self.registry_proxy)); //                   to the registry proxy

        let mut endpoints = self.admission.elements::<NetworkServiceEndpoint>(Vec::new()); // path, policies
        endpoints.extend([
            Node::new(Begin::default()),                               // one event a name at a time
            Node::new(Expire::after(LIFE, self.hop.timers().clone())), // nothing is kept of the dead
            Node::new(Arc::clone(&bypass)),                            // known abroad under the proxy's URL
            Node::new(addresses.clone()),                              // as it is seen from outside
            Node::new(AuthorizeRegistryServer::new(self.registry_policies.clone())), // believes the registry proxy or not
            Node::new(cluster.clone()),                                              // which cluster it is in
            self.to(&self.registry_proxy),                                           // to the registry proxy
        ]);

        let local = Arc::new(Finder::new(
            Chain::new(Arc::clone(&name), looking_up(self.to(&self.registry)))?,
            Chain::new(Arc::clone(&name), looking_up(self.to(&self.registry)))?,
        ));
        let far: Vec<Node<Endpoints>> = vec![
            Node::new(Begin::default()),
            Node::new(Arc::clone(&bypass)), // keeps what is found
            Node::new(addresses.clone()),
            self.to(&self.registry_proxy),
        ];
        let far = Arc::new(Finder::new(
            Chain::new(Arc::clone(&name), vec![self.to(&self.registry_proxy)])?,
            Chain::new(Arc::clone(&name), far)?,
        ));

        let (connections, monitor) = (Arc::default(), self.hop.monitor());
        let mut list = self.hop.head(&connections, &monitor);
        list.extend(elements![cluster]); // from which cluster it comes
        list.extend(self.elements);
        list.extend(elements![
            bypass.next_hop(Arc::clone(&local), far).of_domains(self.domains), // out of this domain, or into it
            addresses,                                                         // as they are seen from outside
            Discover::new(local),                                              // into it: which manager
            RoundRobin::default(),                                             // where no endpoint is named
            Connect::new(self.links), // to the other domain's proxy, or to that manager
        ]);
        Ok(ManagerProxy {
            chain: Chain::new(Arc::clone(&name), list)?,
            services: Chain::new(Arc::clone(&name), services)?,
            endpoints: Chain::new(name, endpoints)?,
            connections,
            monitor,
        })
    }
}

/// How long an endpoint that does not say stays registered.
const LIFE: Duration = Duration::from_secs(60);

/// Look-ups in the domain's registry.
fn looking_up<R: nsm_chain::Record>(registry: Node<nsm_chain::Registry<R>>) -> Vec<Node<nsm_chain::Registry<R>>> {
    vec![
        Node::new(ResumeWatch),           // its watches outlive the registry
        Node::new(Cache::<R>::default()), // asked again and again
        registry,
    ]
}

impl<L> fmt::Debug for ManagerProxyBuilder<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ManagerProxyBuilder({} at {})", self.hop.name, self.url)
    }
}
