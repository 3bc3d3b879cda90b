use std::sync::Arc;

use futures::TryStreamExt;
use nsm_api::registry::{NetworkService, NetworkServiceEndpoint};
use nsm_chain::{Chain, Error, EventStream, Record, Registry, Result, Watch};

use super::{Endpoints, Services};

/// Looks up network services and endpoints, for the elements that choose where a connection goes.
///
/// It asks the two chains that lead to the registry. What it hands out is shared with whatever the chain
/// keeps: the store itself, or a cache.
///
/// ```
/// use nsm_api::registry::NetworkServiceEndpoint;
/// use nsm_chain::Call;
/// use nsm_sdk::registry::Finder;
/// use nsm_sdk::registry::stacks::{Admission, MemoryRegistry};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = MemoryRegistry::builder("registry", Admission::open()).build()?;
/// let finder = Finder::new(registry.services.clone(), registry.endpoints.clone());
///
/// let error = finder.endpoint("nse-1").await.unwrap_err();
/// assert_eq!(error.code(), nsm_chain::Code::NotFound);
///
/// let nse = NetworkServiceEndpoint { name: "nse-1".into(), ..Default::default() };
/// registry.endpoints.request(Call::new(nse)).await?;
/// assert_eq!(finder.endpoint("nse-1").await?.name, "nse-1");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Finder {
    services: Chain<Services>,
    endpoints: Chain<Endpoints>,
}

impl Finder {
    /// Asks these chains.
    #[must_use]
    pub fn new(services: Chain<Services>, endpoints: Chain<Endpoints>) -> Self {
        Self { services, endpoints }
    }

    /// The network service of that name; with a payload, only if it carries that.
    ///
    /// # Errors
    /// `NotFound`, or whatever the registry reports.
    pub async fn service(&self, name: &str, payload: &str) -> Result<Arc<NetworkService>> {
        named(NetworkService::WHAT, name)?;
        let pattern = NetworkService { name: name.into(), payload: payload.into(), ..Default::default() };
        let found = find(&self.services, pattern).await?.into_iter().next();
        found.ok_or_else(|| {
            let carrying = if payload.is_empty() { String::new() } else { format!(" with payload {payload}") };
            Error::not_found(format!("no network service {name:?}{carrying} is registered"))
                .hint("register it, or correct the name in the request")
        })
    }

    /// The endpoint of that name.
    ///
    /// # Errors
    /// `NotFound`, or whatever the registry reports.
    pub async fn endpoint(&self, name: &str) -> Result<Arc<NetworkServiceEndpoint>> {
        named(NetworkServiceEndpoint::WHAT, name)?;
        let pattern = NetworkServiceEndpoint { name: name.into(), ..Default::default() };
        let found = find(&self.endpoints, pattern).await?.into_iter().next();
        found.ok_or_else(|| {
            Error::not_found(format!("no endpoint {name:?} is registered"))
                .hint("it may have expired: see whether it runs and reaches its manager")
        })
    }

    /// The endpoints that serve a network service: none, if none is registered.
    ///
    /// # Errors
    /// Whatever the registry reports.
    pub async fn endpoints_of(&self, service: &str) -> Result<Vec<Arc<NetworkServiceEndpoint>>> {
        self.endpoints_like(NetworkServiceEndpoint {
            network_service_names: vec![service.into()],
            ..Default::default()
        })
        .await
    }

    /// The endpoints of a service that are registered at the manager with this URL: its forwarders.
    ///
    /// # Errors
    /// Whatever the registry reports.
    pub async fn forwarders(&self, service: &str, manager: &str) -> Result<Vec<Arc<NetworkServiceEndpoint>>> {
        self.endpoints_like(NetworkServiceEndpoint {
            network_service_names: vec![service.into()],
            url: manager.into(),
            ..Default::default()
        })
        .await
    }

    /// The endpoints that match a pattern; its empty fields match anything.
    ///
    /// # Errors
    /// Whatever the registry reports.
    pub async fn endpoints_like(&self, pattern: NetworkServiceEndpoint) -> Result<Vec<Arc<NetworkServiceEndpoint>>> {
        find(&self.endpoints, pattern).await
    }

    /// Follows the network service of that name: as it is, if it is registered, then each change.
    ///
    /// # Errors
    /// When the registry cannot be asked; what happens later comes through the stream, which may end.
    pub async fn watch_service(&self, name: &str) -> Result<EventStream<Services>> {
        named(NetworkService::WHAT, name)?;
        let pattern = NetworkService { name: name.into(), ..Default::default() };
        self.services.monitor(Watch::new(NetworkService::query(pattern, true))).await
    }

    /// Follows the endpoints that match a pattern.
    ///
    /// # Errors
    /// When the registry cannot be asked; what happens later comes through the stream, which may end.
    pub async fn watch_endpoints(&self, pattern: NetworkServiceEndpoint) -> Result<EventStream<Endpoints>> {
        self.endpoints.monitor(Watch::new(NetworkServiceEndpoint::query(pattern, true))).await
    }
}

/// In a pattern an empty name would match all.
fn named(what: &str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid(format!("the request names no {what}")).hint("set the name"));
    }
    Ok(())
}

async fn find<R: Record>(chain: &Chain<Registry<R>>, pattern: R) -> Result<Vec<Arc<R>>> {
    let found = chain.monitor(Watch::new(R::query(pattern, false))).await?;
    found.try_filter_map(|change| async move { Ok((!change.deleted).then_some(change.record)) }).try_collect().await
}
