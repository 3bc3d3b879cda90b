use std::sync::Arc;

use futures::{StreamExt, stream};
use nsm_api::registry::{NetworkService, NetworkServiceEndpoint};
use nsm_chain::{Begin, Chain, Error, Node, OrderError, Record, Registry, Timers};

use crate::connect::{Connect, Links};
use crate::identity::PolicySet;
use crate::lifetime::Retry;
use crate::registry::{
    AuthorizeRegistryServer, Endpoints, Finder, RefreshRegistration, RegistrationHeal, ResumeWatch, SendFd, Services,
};

/// How a program registers and finds: towards its manager, or towards a registry.
///
/// What it has registered stays registered, through refreshes and through restarts of the registry, until it
/// is unregistered.
///
/// ```no_run
/// # async fn example(channels: std::sync::Arc<nsm_sdk::transport::Channels>) -> Result<(), Box<dyn std::error::Error>> {
/// use nsm_api::registry::NetworkServiceEndpoint;
/// use nsm_chain::Call;
/// use nsm_sdk::registry::stacks::RegistryClient;
///
/// let registry = RegistryClient::builder("nse-1").connect(channels, "unix:///var/lib/networkservicemesh/nsm.io.sock").build()?;
/// let nse = NetworkServiceEndpoint {
///     name: "nse-1".into(),
///     network_service_names: vec!["vpn".into()],
///     url: "unix:///run/nse-1.sock".into(),
///     ..Default::default()
/// };
/// registry.endpoints.request(Call::new(nse)).await?;
/// // ... serve ...
/// registry.unregister_all().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct RegistryClient {
    /// Register, Unregister and Find of network services.
    pub services: Chain<Services>,
    /// Register, Unregister and Find of endpoints.
    pub endpoints: Chain<Endpoints>,
    begun_services: Arc<Begin<Services>>,
    begun_endpoints: Arc<Begin<Endpoints>>,
}

impl RegistryClient {
    /// A client called `name` in errors.
    #[must_use]
    pub fn builder(name: impl Into<String>) -> RegistryClientBuilder {
        RegistryClientBuilder {
            name: name.into(),
            timers: Timers::default(),
            seed: None,
            services: Vec::new(),
            endpoints: Vec::new(),
            ends: (Vec::new(), Vec::new()),
            policies: PolicySet::registry_client(),
        }
    }

    /// Look-ups through this client.
    #[must_use]
    pub fn finder(&self) -> Finder {
        Finder::new(self.services.clone(), self.endpoints.clone())
    }

    /// Unregisters all that is registered through this client.
    ///
    /// # Errors
    /// What could not be unregistered; the client lets go of it all the same, and the registry when it
    /// expires.
    pub async fn unregister_all(&self) -> nsm_chain::Result<()> {
        let mut failed = close(&self.begun_endpoints).await;
        failed.extend(close(&self.begun_services).await);
        if failed.is_empty() {
            return Ok(());
        }
        Err(Error::all_failed(format!("{} registrations are left behind", failed.len()), failed))
    }
}

/// How many names are unregistered at the same time.
const AT_ONCE: usize = 16;

async fn close<R: Record>(begin: &Begin<Registry<R>>) -> Vec<Error> {
    let closing = stream::iter(begin.handles()).map(async |handle| handle.close().await.err());
    closing.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await
}

/// Settings of a [`RegistryClient`].
#[derive(Debug)]
pub struct RegistryClientBuilder {
    name: String,
    timers: Timers,
    seed: Option<u64>,
    services: Vec<Node<Services>>,
    endpoints: Vec<Node<Endpoints>>,
    ends: (Vec<Node<Services>>, Vec<Node<Endpoints>>),
    policies: PolicySet,
}

impl RegistryClientBuilder {
    /// Asks the manager or registry at this URL.
    #[must_use]
    pub fn connect(mut self, links: Arc<impl Links<Services> + Links<Endpoints>>, url: impl Into<Arc<str>>) -> Self {
        let url = url.into();
        let (services, endpoints) = (
            Connect::new(Arc::clone(&links) as Arc<dyn Links<Services>>),
            Connect::new(links as Arc<dyn Links<Endpoints>>),
        );
        self.ends.0 = vec![Node::new(services.to(Arc::clone(&url)))];
        self.ends.1 = vec![
            Node::new(SendFd::to(&url)), // sockets by descriptor, both ways
            Node::new(endpoints.to(url)),
        ];
        self
    }

    /// Asks whatever these elements lead to.
    #[must_use]
    pub fn ending_in(mut self, services: Node<Services>, endpoints: Node<Endpoints>) -> Self {
        self.ends = (vec![services], vec![endpoints]);
        self
    }

    /// Judges the registry's answers by these policies (default: the stock policies for clients of a registry).
    #[must_use]
    pub fn policies(mut self, policies: PolicySet) -> Self {
        self.policies = policies;
        self
    }

    /// The timers of the program, instead of a set of its own.
    #[must_use]
    pub fn timers(mut self, timers: Timers) -> Self {
        self.timers = timers;
        self
    }

    /// Spreads refreshes that are tried again from this seed, so that a simulation can be repeated.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// An element for network services right before the one that asks.
    #[must_use]
    pub fn before_services(mut self, element: Node<Services>) -> Self {
        self.services.push(element);
        self
    }

    /// An element for endpoints before those that ask: a cache, say.
    #[must_use]
    pub fn before_endpoints(mut self, element: Node<Endpoints>) -> Self {
        self.endpoints.push(element);
        self
    }

    /// The client. Without [`connect`](Self::connect) it finds nothing and registers nowhere.
    ///
    /// # Errors
    /// When an element of one's own stands where it may not.
    pub fn build(self) -> Result<RegistryClient, OrderError> {
        let begun_services = Arc::new(Begin::initiator());
        let mut services = vec![
            Node::new(Retry::default()),            // around everything that makes one try
            Node::new(ResumeWatch),                 // watches outlive the registry
            Node::new(Arc::clone(&begun_services)), // one event a name at a time
            Node::new(RegistrationHeal::<NetworkService>::default()), // a registry that lost us learns us again
        ];
        services.extend(self.services); // the user's own
        services.push(Node::new(AuthorizeRegistryServer::new(self.policies.clone()))); // before the answer is used
        services.extend(self.ends.0); //   asks

        let refresh = RefreshRegistration::new(self.timers);
        let refresh = match self.seed {
            Some(seed) => refresh.seeded(seed),
            None => refresh,
        };
        let begun_endpoints = Arc::new(Begin::initiator());
        let mut endpoints = vec![
            Node::new(Retry::default()),
            Node::new(ResumeWatch),
            Node::new(Arc::clone(&begun_endpoints)),
            Node::new(RegistrationHeal::<NetworkServiceEndpoint>::default()),
            Node::new(refresh), // endpoints expire, network services do not
        ];
        endpoints.extend(self.endpoints);
        endpoints.push(Node::new(AuthorizeRegistryServer::new(self.policies)));
        endpoints.extend(self.ends.1);

        Ok(RegistryClient {
            services: Chain::new(self.name.as_str(), services)?,
            endpoints: Chain::new(self.name.as_str(), endpoints)?,
            begun_services,
            begun_endpoints,
        })
    }
}
