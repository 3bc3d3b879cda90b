use std::sync::Arc;

use nsm_chain::{Call, Candidates, Code, Element, Error, Next, NextHop, Result, Slot, time};

use crate::registry::Finder;

/// Finds the endpoints that may serve a Request.
///
/// *Request*: one that names its endpoint goes to that endpoint's URL. Any other gets [`Candidates`]: the endpoints of
/// its network service that the service's matches let through for the client's labels, without expired ones; and the
/// service's payload. An endpoint that serves the connection already is looked up again only if it does not answer where
/// it was: a registry that is down breaks nothing that stands. *Close* passes: `Connect` knows where the connection
/// lives.
///
/// A call whose [`NextHop`] is chosen already passes as it is. It stands before a selection such as `RoundRobin`.
#[derive(Debug, Clone)]
pub struct Discover {
    finder: Arc<Finder>,
    found: Arc<Slot<Found>>,
}

#[derive(Debug, Clone)]
struct Found {
    name: String,
    url: Arc<str>,
}

impl Discover {
    /// Looks things up here.
    #[must_use]
    pub fn new(finder: Arc<Finder>) -> Self {
        Self { finder, found: Arc::default() }
    }

    async fn candidates(&self, call: &Call) -> Result<Candidates> {
        let asked = call.body();
        let service = self.finder.service(&asked.network_service, &asked.payload).await?;
        let now = time::now().into();
        let endpoints = self.finder.endpoints_of(&asked.network_service).await?;
        let known = endpoints.len();
        let alive = endpoints.into_iter().filter(|endpoint| !endpoint.is_expired(&now));
        let found = service.candidates(&asked.labels, alive);
        if found.is_empty() {
            let name = &asked.network_service;
            let labels = &asked.labels;
            return Err(Error::not_found(format!("none of the {known} endpoints of {name} fits labels {labels:?}"))
                .hint(if known == 0 {
                    "start an endpoint that registers for this service"
                } else {
                    "compare the service's matches with the client's and the endpoints' labels"
                }));
        }
        let endpoints = found.into_iter().map(|candidate| (candidate.endpoint, candidate.weight)).collect();
        Ok(Candidates { service, endpoints })
    }

    async fn named(&self, name: String, mut call: Call, next: Next<'_>) -> Result<Call> {
        let found = call.slot(&self.found).filter(|found| found.name == name);
        if let Some(Found { url, .. }) = &found {
            let mut attempt = call.clone();
            attempt.set_fact(NextHop(Arc::clone(url)));
            match next.request(attempt).await {
                Err(error) if error.code() == Code::Unavailable => {
                    match call.patiently(self.finder.endpoint(&name)).await? {
                        Ok(endpoint) if *endpoint.url != **url => {
                            call.set_fact(NextHop(endpoint.url.as_str().into()));
                        }
                        _ => return Err(error),
                    }
                }
                result => return result,
            }
        } else {
            let endpoint = call.patiently(self.finder.endpoint(&name)).await??;
            call.set_fact(NextHop(endpoint.url.as_str().into()));
        }
        let call = next.request(call).await?;
        self.remember(&call);
        Ok(call)
    }

    /// Keeps who answered, and where.
    fn remember(&self, call: &Call) {
        if let (Ok(state), Some(NextHop(url))) = (call.state(), call.fact::<NextHop>()) {
            let name = call.body().network_service_endpoint_name.clone();
            self.found.set(state, Found { name, url: Arc::clone(url) });
        }
    }
}

impl Element for Discover {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        if call.fact::<NextHop>().is_some() {
            return next.request(call).await;
        }
        let name = call.body().network_service_endpoint_name.clone();
        if !name.is_empty() {
            return self.named(name, call, next).await;
        }
        let candidates = call.patiently(self.candidates(&call)).await??;
        if call.body().payload.is_empty() {
            call.body_mut().payload.clone_from(&candidates.service.payload);
        }
        call.set_fact(candidates);
        let call = next.request(call).await?;
        self.remember(&call);
        Ok(call)
    }
}
