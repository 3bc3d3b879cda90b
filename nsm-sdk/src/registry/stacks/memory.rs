use std::time::Duration;

use nsm_api::registry::{NetworkService, NetworkServiceEndpoint};
use nsm_chain::{Begin, Chain, Node, OrderError, Timers};

use super::Admission;
use crate::registry::{DefaultPayload, Endpoints, Expire, Memory, RegistrationTime, Services};

/// A registry that keeps its records in memory.
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
}

impl MemoryRegistry {
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

    /// An element for network services before the store: one that answers for other domains, say.
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

    /// The registry.
    ///
    /// # Errors
    /// When an element of one's own stands where it may not.
    pub fn build(self) -> Result<MemoryRegistry, OrderError> {
        let mut services = self.admission.elements::<NetworkService>(); // path, policies
        services.push(Node::new(DefaultPayload::default())); //            queries by payload find every service
        services.extend(self.services); //                                 the user's own
        services.push(Node::new(Memory::default())); //                    stores and answers

        let mut endpoints = self.admission.elements::<NetworkServiceEndpoint>(); // path, policies
        endpoints.push(Node::new(Begin::default())); //                            one event a name at a time
        endpoints.extend(self.endpoints); //                                       the user's own: may answer instead
        endpoints.push(Node::new(RegistrationTime::default())); //                 since when
        endpoints.push(Node::new(Expire::after(self.expiration, self.timers))); // until when, if not refreshed
        endpoints.push(Node::new(Memory::default())); //                           stores what the ones before settled

        Ok(MemoryRegistry {
            services: Chain::new(self.name.as_str(), services)?,
            endpoints: Chain::new(self.name.as_str(), endpoints)?,
        })
    }
}
