use std::sync::Arc;

use nsm_api::registry::NetworkServiceEndpoint;
use nsm_chain::{Call, Element, Error, Next, NextHop, Order, Result, Slot};

use crate::registry::Finder;

/// The network service that forwarders register under.
pub(crate) const FORWARDER: &str = "forwarder";

/// Chooses the forwarder that carries a connection.
///
/// *Request*: of the forwarders registered at this manager it takes those that the network service's metadata admit.
/// A connection keeps the forwarder it has, and after a restart of the manager the one its path names; otherwise they
/// are tried in turn until one accepts. *Close* passes: `Connect` knows where the connection lives.
///
/// It stands in a manager, before `Connect`.
#[derive(Debug)]
pub struct DiscoverForwarder {
    finder: Arc<Finder>,
    service: Arc<str>,
    manager: Arc<str>,
    chosen: Slot<String>,
}

impl DiscoverForwarder {
    /// Chooses among the forwarders of the manager with this URL.
    #[must_use]
    pub fn new(finder: Arc<Finder>, manager: impl Into<Arc<str>>) -> Self {
        Self { finder, service: FORWARDER.into(), manager: manager.into(), chosen: Slot::new() }
    }

    /// Forwarders register under another service than `forwarder`.
    #[must_use]
    pub fn with_service(mut self, service: impl Into<Arc<str>>) -> Self {
        self.service = service.into();
        self
    }

    async fn candidates(&self, call: &Call) -> Result<Vec<Arc<NetworkServiceEndpoint>>> {
        let asked = call.body();
        let service = self.finder.service(&asked.network_service, &asked.payload).await?;
        let forwarders = self.finder.forwarders(&self.service, &self.manager).await?;
        if forwarders.is_empty() {
            return Err(Error::unavailable("no forwarder is registered at this manager")
                .hint("start a forwarder on this node and point it at this manager"));
        }
        let count = forwarders.len();
        let found = service.forwarder_candidates(&asked.labels, &self.service, forwarders);
        if found.is_empty() {
            return Err(Error::not_found(format!(
                "none of the {count} forwarders has the labels that {} asks for in its matches' metadata",
                asked.network_service
            ))
            .hint("label a forwarder, or change the metadata of the network service"));
        }
        Ok(found)
    }
}

impl Element for DiscoverForwarder {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        if call.fact::<NextHop>().is_some() {
            return next.request(call).await;
        }
        let state = Arc::clone(call.state()?);
        let mut candidates = call.patiently(self.candidates(&call)).await??;
        let reselects = call.body().state() == nsm_api::State::ReselectRequested;
        let kept = self.chosen.cloned(&state).filter(|_| !reselects);
        if let Some(kept) = &kept {
            candidates.retain(|forwarder| forwarder.name == *kept);
            if candidates.is_empty() {
                return Err(Error::unavailable(format!("the forwarder of this connection, {kept}, is gone"))
                    .hint("healing chooses another one"));
            }
        } else if !reselects
            && let Some(segment) = call.body().next_segment()
            && let Some(at) = candidates.iter().position(|forwarder| forwarder.name == segment.name)
        {
            candidates.swap(0, at);
        }
        let mut causes = Vec::new();
        for forwarder in &candidates {
            let mut attempt = call.clone();
            attempt.set_fact(NextHop(forwarder.url.as_str().into()));
            match next.request(attempt).await {
                Ok(call) => {
                    self.chosen.set(&state, forwarder.name.clone());
                    return Ok(call);
                }
                Err(error) => causes.push(error),
            }
            call.patiently(std::future::ready(())).await?;
        }
        match <[Error; 1]>::try_from(causes) {
            Ok([only]) => Err(only),
            Err(causes) => Err(Error::all_failed(format!("none of {} forwarders could do it", candidates.len()), causes)),
        }
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}
