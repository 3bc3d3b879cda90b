use std::sync::Arc;
use std::time::Duration;

use nsm_api::registry::NetworkServiceEndpoint;
use nsm_chain::{Call, Code, Element, Error, Next, NextHop, Order, Result, Slot};

use tokio::time::Instant;

use super::share;
use crate::path::NewSegment;
use crate::registry::Finder;

/// The network service that forwarders register under.
pub(crate) const FORWARDER: &str = "forwarder";

/// Chooses the forwarder that carries a connection.
///
/// *Request*: of the forwarders registered at this manager it takes those that the network service's metadata admit.
/// A connection keeps the forwarder it has, without a look at the registry as long as that one answers, and after a
/// restart of the manager the one its path names, which gets a while to register again; otherwise they are tried in turn
/// until one accepts, each with its share of the caller's time. *Close* passes: `Connect` knows where the connection lives.
///
/// It stands in a manager, before `Connect`.
#[derive(Debug)]
pub struct DiscoverForwarder {
    finder: Arc<Finder>,
    service: Arc<str>,
    manager: Arc<str>,
    chosen: Slot<Chosen>,
    started: Instant,
}

/// How long after its start a manager waits for a forwarder it knows only from a connection's path.
const GATHERING: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
struct Chosen {
    name: String,
    url: Arc<str>,
}

impl DiscoverForwarder {
    /// Chooses among the forwarders of the manager with this URL.
    #[must_use]
    pub fn new(finder: Arc<Finder>, manager: impl Into<Arc<str>>) -> Self {
        Self {
            finder,
            service: FORWARDER.into(),
            manager: manager.into(),
            chosen: Slot::new(),
            started: Instant::now(),
        }
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

    /// Asks the forwarder that carries the connection already; if it is not where it was, where it is now.
    async fn again(&self, kept: Chosen, call: Call, next: Next<'_>) -> Result<Call> {
        let mut attempt = call.clone();
        attempt.set_fact(NextHop(Arc::clone(&kept.url)));
        let error = match next.request(attempt).await {
            Err(error) if error.code() == Code::Unavailable => error,
            result => return result,
        };
        let forwarders = call.patiently(self.finder.forwarders(&self.service, &self.manager)).await?;
        let moved =
            forwarders.iter().flatten().find(|forwarder| forwarder.name == kept.name && *forwarder.url != *kept.url);
        let Some(moved) = moved else {
            return Err(error);
        };
        let (mut call, url): (_, Arc<str>) = (call, moved.url.as_str().into());
        call.set_fact(NextHop(Arc::clone(&url)));
        let call = next.request(call).await?;
        self.chosen.set(call.state()?, Chosen { url, ..kept });
        Ok(call)
    }
}

impl Element for DiscoverForwarder {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        if call.fact::<NextHop>().is_some() {
            return next.request(call).await;
        }
        let state = Arc::clone(call.state()?);
        let reselects = call.body().state() == nsm_api::State::ReselectRequested;
        if let Some(kept) = self.chosen.cloned(&state).filter(|_| !reselects) {
            return self.again(kept, call, next).await;
        }
        let mut candidates = call.patiently(self.candidates(&call)).await??;
        let knows = !reselects && call.fact::<NewSegment>().is_none();
        if knows && let Some(segment) = call.body().next_segment() {
            match candidates.iter().position(|forwarder| forwarder.name == segment.name) {
                Some(at) => candidates.swap(0, at),
                None if self.started.elapsed() < GATHERING => {
                    let name = &segment.name;
                    return Err(Error::unavailable(format!(
                        "the forwarder of this connection, {name:?}, is not registered yet"
                    ))
                    .hint("it has some seconds to do so after a restart of its manager; then another one is taken"));
                }
                None => {}
            }
        }
        let mut causes = Vec::new();
        for (at, forwarder) in candidates.iter().enumerate() {
            let url: Arc<str> = forwarder.url.as_str().into();
            let mut attempt = call.clone();
            attempt.set_fact(NextHop(Arc::clone(&url)));
            match next.request(share(attempt, candidates.len() - at)).await {
                Ok(call) => {
                    self.chosen.set(&state, Chosen { name: forwarder.name.clone(), url });
                    return Ok(call);
                }
                Err(error) => causes.push(error),
            }
        }
        match <[Error; 1]>::try_from(causes) {
            Ok([only]) => Err(only),
            Err(causes) => {
                Err(Error::all_failed(format!("none of {} forwarders could do it", candidates.len()), causes))
            }
        }
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}
