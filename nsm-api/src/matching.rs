//! Which endpoints and forwarders a network service gives to a client.
//!
//! A service's matches are rules in order. The first whose `source_selector` the client's labels satisfy
//! decides, unless it is marked `fallthrough` and yields nothing. A service without matches gives every client
//! every endpoint.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use crate::registry::{Match, NetworkService, NetworkServiceEndpoint};
use crate::{labels as names, template};

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// An endpoint that a client may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<E> {
    /// The endpoint, as it was given.
    pub endpoint: E,
    /// Weight of the route that chose it, at least 1.
    pub weight: u32,
}

/// Whether `labels` satisfy `selector`: each of its values equals the label of that name, as it stands or
/// rendered as a [template] over `client` (the labels of the client).
///
/// As in the reference, an absent label equals an empty value, and fewer labels than the selector has
/// never satisfy it.
pub fn satisfies(labels: &Labels, selector: &Labels, client: &Labels) -> bool {
    labels.len() >= selector.len()
        && selector.iter().all(|(key, wanted)| {
            let value = labels.get(key).map_or("", String::as_str);
            value == wanted || value == template::render(wanted, client)
        })
}

impl NetworkService {
    /// The endpoints that a client with these labels may get, in order of preference: of the first route all
    /// that fit it, then of the second, and so on. Each endpoint comes once, with the first route it fits.
    ///
    /// Takes any handle of an endpoint (`&NetworkServiceEndpoint`, `Arc<NetworkServiceEndpoint>`) and gives the
    /// same handles back. Whether an endpoint has [expired](NetworkServiceEndpoint::is_expired) is the caller's to ask.
    pub fn candidates<E>(&self, client: &Labels, endpoints: impl IntoIterator<Item = E>) -> Vec<Candidate<E>>
    where
        E: Borrow<NetworkServiceEndpoint>,
    {
        if self.matches.is_empty() {
            return all(endpoints);
        }
        let mut pool: Vec<Option<E>> = endpoints.into_iter().map(Some).collect();
        for rule in self.rules_for(client) {
            let found = self.by_routes(rule, client, &mut pool);
            if !found.is_empty() {
                return found;
            }
            if rule.fallthrough {
                continue;
            }
            // A rule that only selects forwarders leaves the endpoints open.
            if rule.metadata.is_some() && rule.routes.is_empty() {
                return all(pool.into_iter().flatten());
            }
            return found;
        }
        Vec::new()
    }

    /// The forwarders that may carry a client with these labels, in the order given.
    ///
    /// `forwarder_service` is the network service that forwarders register under. They must have, for that
    /// service, the labels of the rule's metadata; a rule without asks for `p2p=true`.
    pub fn forwarder_candidates<E>(
        &self,
        client: &Labels,
        forwarder_service: &str,
        forwarders: impl IntoIterator<Item = E>,
    ) -> Vec<E>
    where
        E: Borrow<NetworkServiceEndpoint>,
    {
        if self.matches.is_empty() {
            return forwarders.into_iter().collect();
        }
        let default = Labels::from([(names::P2P.to_owned(), "true".to_owned())]);
        let mut pool: Vec<E> = forwarders.into_iter().collect();
        for rule in self.rules_for(client) {
            let wanted = rule.metadata.as_ref().map(|metadata| &metadata.labels);
            let wanted = wanted.filter(|labels| !labels.is_empty()).unwrap_or(&default);
            let fits = |forwarder: &E| {
                let labels = forwarder.borrow().network_service_labels.get(forwarder_service);
                labels.is_some_and(|labels| satisfies(&labels.labels, wanted, client))
            };
            if rule.fallthrough && !pool.iter().any(fits) {
                continue;
            }
            pool.retain(fits);
            return pool;
        }
        Vec::new()
    }

    fn rules_for<'a>(&'a self, client: &'a Labels) -> impl Iterator<Item = &'a Match> {
        self.matches.iter().filter(move |rule| satisfies(client, &rule.source_selector, client))
    }

    /// Takes out of the pool what fits a route of the rule.
    fn by_routes<E>(&self, rule: &Match, client: &Labels, pool: &mut [Option<E>]) -> Vec<Candidate<E>>
    where
        E: Borrow<NetworkServiceEndpoint>,
    {
        let none = Labels::new();
        let mut found = Vec::new();
        for route in &rule.routes {
            let weight = route.weight.max(1);
            for entry in pool.iter_mut() {
                let taken = entry.take_if(|endpoint| {
                    let labels = (*endpoint).borrow().network_service_labels.get(&self.name);
                    let labels = labels.map_or(&none, |labels| &labels.labels);
                    satisfies(labels, &route.destination_selector, client)
                });
                found.extend(taken.map(|endpoint| Candidate { endpoint, weight }));
            }
        }
        found
    }
}

fn all<E>(endpoints: impl IntoIterator<Item = E>) -> Vec<Candidate<E>> {
    endpoints.into_iter().map(|endpoint| Candidate { endpoint, weight: 1 }).collect()
}

#[cfg(test)]
mod tests;
