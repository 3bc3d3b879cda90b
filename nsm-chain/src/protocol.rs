//! What flows through a chain: connections, or the records of the registry.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use nsm_api::connection::{Connection, ConnectionEvent, Mechanism, MonitorScopeSelector, State};
use nsm_api::names;
use nsm_api::registry::{NetworkService, NetworkServiceEndpoint, NetworkServiceEndpointQuery, NetworkServiceQuery};

use crate::Why;

/// A protocol of three verbs: make something, unmake it, watch it.
///
/// Network Service Mesh has the same shape three times: Request / Close / Monitor for connections, and
/// Register / Unregister / Find for network services and for endpoints. One chain serves all of them, and an
/// element that does not care what flows is written once for every `P: Protocol`.
pub trait Protocol: Sized + Send + Sync + 'static {
    /// What one instance is called in an error: `connection`, `network service`, `endpoint`.
    const WHAT: &'static str;
    /// Whether a Close of something [`Begin`](crate::Begin) does not know still travels on (an Unregister does: the
    /// record may live further along).
    const UNKNOWN_CLOSE_TRAVELS: bool;

    /// The message that makes, and that is made.
    type Body: Clone + Default + fmt::Debug + PartialEq + Send + Sync + 'static;
    /// What else travels with a Request.
    type Extra: Clone + Default + fmt::Debug + Send + Sync + 'static;
    /// What a watcher asks for.
    type Query: Clone + fmt::Debug + Send + Sync + 'static;
    /// What a watcher is told.
    type Event: Clone + fmt::Debug + Send + Sync + 'static;

    /// The name under which a hop keeps state for this body.
    fn key(body: &Self::Body) -> &str;

    /// Whether a body that came back from the whole chain says that it is established, as what is kept under `key`.
    fn is_settled(_body: &Self::Body, _key: &str) -> bool {
        true
    }

    /// Makes a body that came back from the whole chain say so.
    fn settle(_body: &mut Self::Body, _key: &str) {}

    /// Whether this Request asks every hop to let go of what it holds first.
    fn reselects(_body: &Self::Body) -> bool {
        false
    }

    /// Makes this body ask every hop to choose afresh.
    fn reselect(_body: &mut Self::Body) {}

    /// Why a caller asks for this, where `established` is what this hop has of it.
    fn why(established: Option<&Self::Body>, _asked: &Self::Body) -> Why {
        if established.is_some() { Why::Refresh } else { Why::First }
    }

    /// What of the extra is kept for events of our own at a hop that is not the initiator.
    fn keep(extra: &Self::Extra) -> Self::Extra {
        extra.clone()
    }

    /// What an initiator sends when it asks again: `stored` is what was established last (by a healing, say), `told`
    /// what the application got last, `asked` what it hands in now. What differs between the latter two it has changed.
    fn merge(stored: &Self::Body, _told: &Self::Body, _asked: &Self::Body) -> Self::Body {
        stored.clone()
    }
}

/// Connections: Request, Close, Monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service;

impl Protocol for Service {
    const WHAT: &'static str = "connection";
    const UNKNOWN_CLOSE_TRAVELS: bool = false;
    type Body = Connection;
    /// Mechanism preferences, best first.
    type Extra = Vec<Mechanism>;
    type Query = MonitorScopeSelector;
    type Event = Arc<ConnectionEvent>;

    fn key(body: &Connection) -> &str {
        &body.id
    }

    fn is_settled(body: &Connection, _key: &str) -> bool {
        body.state() == State::Up
    }

    fn settle(body: &mut Connection, _key: &str) {
        body.set_state(State::Up);
    }

    fn reselects(body: &Connection) -> bool {
        body.state() == State::ReselectRequested
    }

    /// Drops the chosen endpoint and mechanism, and asks every hop to do the same.
    fn reselect(body: &mut Connection) {
        body.mechanism = None;
        body.network_service_endpoint_name.clear();
        body.set_state(State::ReselectRequested);
    }

    /// State RESELECT_REQUESTED says so itself. Else it is a healing where the caller has had it and this hop has not (a
    /// mechanism is chosen), where it comes by another way than before, and where its state is DOWN.
    fn why(established: Option<&Connection>, asked: &Connection) -> Why {
        match (asked.state(), established) {
            (State::ReselectRequested, _) => Why::Reselect,
            (State::Down, _) => Why::Heal,
            (_, None) if asked.mechanism.is_some() => Why::Heal,
            (_, None) => Why::First,
            (_, Some(established)) if came_by(established).ne(came_by(asked)) => Why::Heal,
            (_, Some(_)) => Why::Refresh,
        }
    }

    /// Nothing: a mechanism is chosen.
    fn keep(_extra: &Vec<Mechanism>) -> Vec<Mechanism> {
        Vec::new()
    }

    /// The stored connection, with the endpoint name and the context as the application changed them. One without an
    /// endpoint name is content with the endpoint it has, and one that was healed since the application got it stays
    /// where it is. Labels, mechanism, service, payload and state of a re-request do not count: they were settled at
    /// first.
    fn merge(stored: &Connection, told: &Connection, asked: &Connection) -> Connection {
        let mut merged = stored.clone();
        let name = &asked.network_service_endpoint_name;
        if !name.is_empty() && *name != told.network_service_endpoint_name {
            merged.network_service_endpoint_name.clone_from(name);
        }
        if asked.context.is_some() && asked.context != told.context {
            merged.context.clone_from(&asked.context);
        }
        merged
    }
}

/// The hops before this one, by the ids under which they know a connection.
fn came_by(connection: &Connection) -> impl Iterator<Item = (&str, &str)> {
    let path = connection.path.iter();
    let before = path.flat_map(|path| path.path_segments.iter().take(path.index as usize));
    before.map(|segment| (segment.name.as_str(), segment.id.as_str()))
}

/// A record of the registry: a network service or an endpoint.
pub trait Record: Clone + Default + fmt::Debug + PartialEq + Send + Sync + 'static {
    /// What one is called in an error.
    const WHAT: &'static str;
    /// Whether an Unregister of an unknown name travels on.
    const UNKNOWN_CLOSE_TRAVELS: bool;
    /// The generated query message.
    type Query: Clone + Default + fmt::Debug + Send + Sync + 'static;

    /// The record's name, unique in its registry.
    fn name(&self) -> &str;
    /// Sets the name.
    fn set_name(&mut self, name: String);
    /// The network services it belongs to: those an endpoint serves; a network service has none.
    fn services(&self) -> &[String];
    /// Replaces every name in it: its own, its services', and those that its labels are kept under.
    fn rename(&mut self, change: impl Fn(&str) -> String);
    /// Where it is reached; a network service is nowhere.
    fn url_mut(&mut self) -> Option<&mut String>;
    /// SPIFFE IDs along the registration's path.
    fn path_ids(&self) -> &[String];
    /// SPIFFE IDs along the registration's path, to edit.
    fn path_ids_mut(&mut self) -> &mut Vec<String>;
    /// Whether this record answers the query.
    fn answers(&self, query: &Self::Query) -> bool;
    /// The pattern inside a query; none is a query for everything.
    fn pattern(query: &Self::Query) -> Option<&Self>;
    /// A query for records like `pattern`.
    fn query(pattern: Self, watch: bool) -> Self::Query;
    /// Whether the query wants to be told of changes.
    fn watches(query: &Self::Query) -> bool;
    /// What is asked again at a refresh: `stored` as the registry answered it, under the name first asked for.
    fn again(stored: &Self, asked: &Self) -> Self;

    /// The domain it says it belongs to, in its name or in the first service's that says one; none: this domain.
    fn domain(&self) -> Option<&str> {
        let services = self.services().iter().map(String::as_str);
        let said = std::iter::once(self.name()).chain(services).find(|name| names::is_interdomain(name));
        said.map(names::domain)
    }

    /// Its name with the domain it belongs to: under this one other domains know it.
    fn full_name(&self) -> String {
        names::join(names::target(self.name()), self.domain().unwrap_or_default())
    }
}

/// Register, Unregister, Find of one kind of record.
#[derive(Debug)]
pub struct Registry<R>(PhantomData<fn() -> R>);

/// The registry's path header: one token a hop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryPath {
    /// The hop that owns the message.
    pub index: usize,
    /// The hops' tokens.
    pub tokens: Vec<crate::peer::PathToken>,
}

/// A record as a watcher is told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Change<R> {
    /// The record, or its last state if it is gone.
    pub record: Arc<R>,
    /// Whether it is gone.
    pub deleted: bool,
}

impl<R: Record> Protocol for Registry<R> {
    const WHAT: &'static str = R::WHAT;
    const UNKNOWN_CLOSE_TRAVELS: bool = R::UNKNOWN_CLOSE_TRAVELS;
    type Body = R;
    /// The path header; absent where a peer sent none.
    type Extra = Option<RegistryPath>;
    type Query = R::Query;
    type Event = Change<R>;

    fn key(body: &R) -> &str {
        body.name()
    }

    fn is_settled(body: &R, key: &str) -> bool {
        body.name() == key
    }

    /// The record keeps the name that was asked for, whatever name another domain knows it by: under that name it is
    /// refreshed and unregistered.
    fn settle(body: &mut R, key: &str) {
        body.set_name(key.to_owned());
    }

    fn merge(stored: &R, _told: &R, asked: &R) -> R {
        R::again(stored, asked)
    }
}

impl Record for NetworkService {
    const WHAT: &'static str = "network service";
    const UNKNOWN_CLOSE_TRAVELS: bool = false;
    type Query = NetworkServiceQuery;

    fn name(&self) -> &str {
        &self.name
    }

    fn set_name(&mut self, name: String) {
        self.name = name;
    }

    fn services(&self) -> &[String] {
        &[]
    }

    fn path_ids(&self) -> &[String] {
        &self.path_ids
    }

    fn rename(&mut self, change: impl Fn(&str) -> String) {
        self.name = change(&self.name);
    }

    fn url_mut(&mut self) -> Option<&mut String> {
        None
    }

    fn path_ids_mut(&mut self) -> &mut Vec<String> {
        &mut self.path_ids
    }

    fn answers(&self, query: &NetworkServiceQuery) -> bool {
        query.finds(self)
    }

    fn pattern(query: &NetworkServiceQuery) -> Option<&Self> {
        query.network_service.as_ref()
    }

    fn query(pattern: Self, watch: bool) -> NetworkServiceQuery {
        NetworkServiceQuery { network_service: Some(pattern), watch }
    }

    fn watches(query: &NetworkServiceQuery) -> bool {
        query.watch
    }

    fn again(_stored: &Self, asked: &Self) -> Self {
        asked.clone()
    }
}

impl Record for NetworkServiceEndpoint {
    const WHAT: &'static str = "endpoint";
    const UNKNOWN_CLOSE_TRAVELS: bool = true;
    type Query = NetworkServiceEndpointQuery;

    fn name(&self) -> &str {
        &self.name
    }

    fn set_name(&mut self, name: String) {
        self.name = name;
    }

    fn services(&self) -> &[String] {
        &self.network_service_names
    }

    fn path_ids(&self) -> &[String] {
        &self.path_ids
    }

    fn rename(&mut self, change: impl Fn(&str) -> String) {
        self.name = change(&self.name);
        self.network_service_names.iter_mut().for_each(|service| *service = change(service));
        let labels = std::mem::take(&mut self.network_service_labels);
        self.network_service_labels = labels.into_iter().map(|(service, labels)| (change(&service), labels)).collect();
    }

    fn url_mut(&mut self) -> Option<&mut String> {
        Some(&mut self.url)
    }

    fn path_ids_mut(&mut self) -> &mut Vec<String> {
        &mut self.path_ids
    }

    fn answers(&self, query: &NetworkServiceEndpointQuery) -> bool {
        query.finds(self)
    }

    fn pattern(query: &NetworkServiceEndpointQuery) -> Option<&Self> {
        query.network_service_endpoint.as_ref()
    }

    fn query(pattern: Self, watch: bool) -> NetworkServiceEndpointQuery {
        NetworkServiceEndpointQuery { network_service_endpoint: Some(pattern), watch }
    }

    fn watches(query: &NetworkServiceEndpointQuery) -> bool {
        query.watch
    }

    /// Keeps the first registration time, asks for a new expiry.
    fn again(stored: &Self, asked: &Self) -> Self {
        let mut again = asked.clone();
        again.expiration_time = None;
        if again.initial_registration_time.is_none() {
            again.initial_registration_time = stored.initial_registration_time;
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsm_api::connection::{Path, PathSegment};

    fn nse(name: &str, services: &[&str]) -> NetworkServiceEndpoint {
        let services = services.iter().map(|service| (*service).to_owned());
        NetworkServiceEndpoint {
            name: name.into(),
            network_service_names: services.clone().collect(),
            network_service_labels: services.map(|service| (service, Default::default())).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn the_domain_is_that_of_the_name_or_of_the_first_service_with_one() {
        let named = |name: &str, services: &[&str]| {
            let nse = nse(name, services);
            (nse.domain().map(str::to_owned), nse.full_name())
        };
        assert_eq!(named("nse", &["a", "b"]), (None, "nse".into()));
        assert_eq!(named("nse@x", &["a@y"]), (Some("x".into()), "nse@x".into()));
        assert_eq!(named("nse", &["a", "b@y@z", "c@x"]), (Some("y@z".into()), "nse@y@z".into()));
        assert_eq!(named("nse@", &[]), (Some(String::new()), "nse".into()));
    }

    #[test]
    fn every_name_in_a_record_is_renamed() {
        let mut record = nse("nse@x", &["a@x", "b"]);
        record.rename(|name| names::target(name).to_owned());
        assert_eq!(record, nse("nse", &["a", "b"]));
    }

    #[test]
    fn why_a_caller_asks_is_seen_from_what_a_hop_knows() {
        let asked = |mechanism: bool, state: State, before: &[&str]| {
            let segment = |id: &&str| PathSegment { name: "hop".into(), id: (*id).into(), ..Default::default() };
            let path_segments: Vec<_> = before.iter().chain(&["own"]).map(segment).collect();
            Connection {
                mechanism: mechanism.then(Mechanism::kernel),
                state: state.into(),
                path: Some(Path { index: path_segments.len() as u32 - 1, path_segments }),
                ..Default::default()
            }
        };
        let known = asked(true, State::Up, &["a", "b"]);
        let cases = [
            (None, asked(false, State::Up, &["a"]), Why::First),
            (None, asked(true, State::Up, &["a"]), Why::Heal),
            (None, asked(false, State::ReselectRequested, &["a"]), Why::Reselect),
            (Some(&known), asked(true, State::Up, &["a", "b"]), Why::Refresh),
            (Some(&known), asked(true, State::Up, &["a", "c"]), Why::Heal),
            (Some(&known), asked(true, State::Down, &["a", "b"]), Why::Heal),
            (Some(&known), asked(false, State::ReselectRequested, &["a", "b"]), Why::Reselect),
            (Some(&known), Connection::default(), Why::Heal),
            (None, Connection::default(), Why::First),
        ];
        for (at, (established, asked, why)) in cases.into_iter().enumerate() {
            assert_eq!(Service::why(established, &asked), why, "case {at}");
        }
        assert_eq!(<Registry<NetworkService>>::why(None, &NetworkService::default()), Why::First);
        assert_eq!(
            <Registry<NetworkService>>::why(Some(&NetworkService::default()), &Default::default()),
            Why::Refresh
        );
    }
}
