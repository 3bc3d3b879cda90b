use std::fmt;
use std::sync::Arc;

use nsm_api::names;
use nsm_chain::{Call, Code, Element, Error, Next, NextHop, Order, Result, Slot};

use super::bypass::{Known, Place};
use crate::registry::Finder;

/// Sends a Request that came to the manager proxy on: out to the domain that its names say, or into this one.
///
/// *Request*: an endpoint that [`InterdomainBypass`](super::InterdomainBypass) has found in another domain is asked for
/// there, under the same names. One that registered here for a floating domain is asked for at its manager. Any other name
/// is this domain's, called by its full name from outside: it goes on without the domain, and the answer has the names of
/// the Request again. If this domain has no such endpoint, other domains are asked: after a restart nothing is kept.
/// A connection keeps its way; if nobody answers there, it is looked up again. *Close*: the way the connection has.
///
/// It stands in a manager proxy, after `Begin`, before `Discover`. Other domains' registries answer for their names
/// only: a proxy that is told [which domains](Self::of_domains) are its own never mistakes a name for one of them.
pub struct InterdomainNextHop {
    url: Arc<str>,
    known: Arc<Known>,
    local: Arc<Finder>,
    far: Arc<Finder>,
    domains: Vec<String>,
    way: Slot<Way>,
}

/// Which way a connection goes, and for which endpoint that holds.
#[derive(Debug, Clone)]
struct Way {
    endpoint: String,
    to: To,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum To {
    /// On, under the names without the domain.
    Here,
    /// To a hop that knows it by its full name.
    Hop(Place),
}

/// Left in a call that goes to another domain.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeavesDomain;

impl InterdomainNextHop {
    pub(super) fn new(url: Arc<str>, known: Arc<Known>, local: Arc<Finder>, far: Arc<Finder>) -> Self {
        Self { url, known, local, far, domains: Vec::new(), way: Slot::new() }
    }

    /// Names of these domains are this domain's, and no others are (default: whatever its registry knows is).
    #[must_use]
    pub fn of_domains(mut self, domains: impl IntoIterator<Item = String>) -> Self {
        self.domains.extend(domains);
        self
    }

    async fn way(&self, call: &Call) -> Result<To> {
        let asked = call.body();
        let name = &asked.network_service_endpoint_name;
        if let Some(to) = self.kept(name) {
            return Ok(to);
        }
        if self.is_ours(name, &asked.network_service).await? {
            return Ok(To::Here);
        }
        if name.is_empty() {
            return Err(Error::invalid(format!("the Request for {:?} names no endpoint", asked.network_service))
                .hint("a forwarder chooses the endpoint before it asks a proxy"));
        }
        self.look_up(name).await
    }

    fn kept(&self, name: &str) -> Option<To> {
        self.known.place(name).map(|place| self.to(place))
    }

    fn to(&self, place: Place) -> To {
        match place {
            // What was found under our own URL is not abroad.
            Place::Abroad(url) if *url == *self.url => To::Here,
            place => To::Hop(place),
        }
    }

    /// Whether the names are this domain's.
    async fn is_ours(&self, endpoint: &str, service: &str) -> Result<bool> {
        let said = [endpoint, service].into_iter().find(|name| names::is_interdomain(name)).unwrap_or_default();
        if !self.domains.is_empty() {
            return Ok(self.domains.iter().any(|domain| domain == names::domain(said)));
        }
        let service = names::target(service);
        match names::target(endpoint) {
            "" => Ok(!self.local.endpoints_of(service).await?.is_empty()),
            endpoint => match self.local.endpoint(endpoint).await {
                Ok(found) => Ok(found.network_service_names.iter().any(|name| name == service)),
                Err(error) if error.code() == Code::NotFound => Ok(false),
                Err(error) => Err(error),
            },
        }
    }

    /// Asks the other domain, as a Find through this proxy would.
    async fn look_up(&self, name: &str) -> Result<To> {
        self.far.endpoint(name).await?;
        self.kept(name).ok_or_else(|| Error::unavailable(format!("{name:?} was found, and forgotten at once")))
    }

    async fn go(&self, mut call: Call, to: &To, next: Next<'_>) -> Result<Call> {
        let place = match to {
            To::Here => return self.enter(call, next).await,
            To::Hop(place) => place,
        };
        if let Place::Abroad(_) = place {
            call.set_fact(LeavesDomain);
        }
        let (Place::Home(url) | Place::Abroad(url)) = place;
        call.set_fact(NextHop(Arc::clone(url)));
        next.request(call).await
    }

    /// Goes on in this domain.
    async fn enter(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let asked = strip(&mut call);
        let mut call = next.request(call).await?;
        restore(&mut call, asked);
        Ok(call)
    }
}

/// The names of a Request, as its caller says them.
struct Asked {
    service: String,
    endpoint: String,
}

fn strip(call: &mut Call) -> Asked {
    let connection = call.body_mut();
    let cut = |name: &mut String| {
        let target = names::target(name).to_owned();
        std::mem::replace(name, target)
    };
    Asked {
        service: cut(&mut connection.network_service),
        endpoint: cut(&mut connection.network_service_endpoint_name),
    }
}

fn restore(call: &mut Call, asked: Asked) {
    let connection = call.body_mut();
    connection.network_service_endpoint_name = match asked.endpoint {
        // Chosen in this domain: its full name is for the caller.
        none if none.is_empty() => {
            names::join(&connection.network_service_endpoint_name, names::domain(&asked.service))
        }
        endpoint => endpoint,
    };
    connection.network_service = asked.service;
}

impl Element for InterdomainNextHop {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let asked = call.body();
        if ![&asked.network_service, &asked.network_service_endpoint_name].into_iter().any(|n| names::is_interdomain(n))
        {
            return next.request(call).await;
        }
        let (state, endpoint) = (Arc::clone(call.state()?), asked.network_service_endpoint_name.clone());
        let kept = self.way.cloned(&state).filter(|way| way.endpoint == endpoint);
        let to = match kept {
            Some(way) => way.to,
            None => call.patiently(self.way(&call)).await??,
        };
        let (to, call) = match self.go(call.clone(), &to, next).await {
            Ok(call) => (to, call),
            Err(error) if error.code() == Code::Unavailable && matches!(to, To::Hop(Place::Abroad(_))) => {
                // It may have moved since it was found.
                match call.patiently(self.look_up(&endpoint)).await? {
                    Ok(now) if now != to => {
                        let call = self.go(call, &now, next).await?;
                        (now, call)
                    }
                    _ => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        let endpoint = call.body().network_service_endpoint_name.clone();
        self.way.set(&state, Way { endpoint, to });
        Ok(call)
    }

    async fn close(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        if call.slot(&self.way).is_none_or(|way| way.to != To::Here) {
            return next.close(call).await;
        }
        let asked = strip(&mut call);
        let mut call = next.close(call).await?;
        restore(&mut call, asked);
        Ok(call)
    }

    fn order(&self) -> Order {
        Order { after: &["Begin"], before: &["Discover"], last: false }
    }
}

impl fmt::Debug for InterdomainNextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InterdomainNextHop({}, {:?})", self.url, self.domains)
    }
}
