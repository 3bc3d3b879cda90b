use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use nsm_api::NetworkServiceEndpoint;
use nsm_chain::{Call, Change, Element, Error, EventStream, Next, Order, Record, Result, Slot, Watch};

use super::InterdomainNextHop;
use crate::generations::Generations;
use crate::registry::{Endpoints, Finder};

/// Puts the manager proxy into the way to endpoints of other domains.
///
/// *Register*: keeps the URL of the manager that registers, and sends the proxy's further on; the answer has the manager's
/// again. *Unregister*: likewise. *Find*: keeps where each endpoint is found, and says the proxy's URL in its place. Where
/// a Request goes that then comes to the proxy, [`InterdomainNextHop`] knows from what is kept.
///
/// What is registered is kept until it is unregistered or expires. Of what was found as much is kept as a large mesh
/// uses; the rest is asked for again when it is needed. It stands in the registry half of a manager proxy, after `Begin`.
pub struct InterdomainBypass {
    pub(super) url: Arc<str>,
    pub(super) known: Arc<Known>,
    registered: Slot<Registered>,
}

/// Where endpoints are, by their full names.
pub(super) struct Known(Mutex<Table>);

struct Table {
    next: u64,
    registered: HashMap<Arc<str>, (u64, Arc<str>)>,
    found: Generations<Arc<str>, Arc<str>>,
}

/// Where a known endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// At this URL of this domain: it registered here for another one.
    Home(Arc<str>),
    /// Behind this URL of another domain.
    Abroad(Arc<str>),
}

/// An endpoint's entry in the table; dropping it takes it out, unless a later registration has replaced it.
struct Registered {
    known: Arc<Known>,
    name: Arc<str>,
    number: u64,
}

/// As many found endpoints are kept, and at most twice as many.
const FOUND: usize = 16_384;

impl InterdomainBypass {
    /// For the proxy that others reach under `url`.
    #[must_use]
    pub fn new(url: impl Into<Arc<str>>) -> Self {
        let table = Table { next: 0, registered: HashMap::new(), found: Generations::new(FOUND) };
        Self { url: url.into(), known: Arc::new(Known(Mutex::new(table))), registered: Slot::new() }
    }

    /// The element that sends Requests to what is kept here. `local` looks up in this domain's registry, `far` looks up
    /// names of other domains, through this element.
    #[must_use]
    pub fn next_hop(&self, local: Arc<Finder>, far: Arc<Finder>) -> InterdomainNextHop {
        InterdomainNextHop::new(Arc::clone(&self.url), Arc::clone(&self.known), local, far)
    }

    /// How many endpoints of this domain are registered in others.
    #[must_use]
    pub fn registered(&self) -> usize {
        self.known.lock().registered.len()
    }
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn place(&self, name: &str) -> Option<Place> {
        let mut table = self.lock();
        if let Some((_, url)) = table.registered.get(name) {
            return Some(Place::Home(Arc::clone(url)));
        }
        table.found.lookup(name).map(|url| Place::Abroad(Arc::clone(url)))
    }

    fn register(self: &Arc<Self>, name: &str, url: &str) -> Registered {
        let mut table = self.lock();
        table.next += 1;
        let (number, name) = (table.next, Arc::<str>::from(name));
        table.registered.insert(Arc::clone(&name), (number, url.into()));
        Registered { known: Arc::clone(self), name, number }
    }

    fn found(&self, name: &str, url: &str) {
        let mut table = self.lock();
        // The same again and again: a watch tells every refresh.
        if table.found.lookup(name).is_none_or(|known| **known != *url) {
            table.found.insert(name.into(), url.into());
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut table = self.known.lock();
        if table.registered.get(&self.name).is_some_and(|(number, _)| *number == self.number) {
            table.registered.remove(&self.name);
        }
    }
}

impl Element<Endpoints> for InterdomainBypass {
    async fn request(&self, mut call: Call<Endpoints>, next: Next<'_, Endpoints>) -> Result<Call<Endpoints>> {
        let state = Arc::clone(call.state()?);
        if call.body().url.is_empty() {
            return Err(Error::invalid(format!("the endpoint {:?} has no URL", call.body().name))
                .hint("set the URL under which its manager is reached"));
        }
        let name = call.body().full_name();
        let url = std::mem::replace(&mut call.body_mut().url, self.url.as_ref().into());
        let mut call = next.request(call).await?;
        // The later guard is set before the former is dropped: there is no moment without an entry.
        drop(self.registered.set(&state, self.known.register(&name, &url)));
        call.body_mut().url = url;
        Ok(call)
    }

    async fn close(&self, mut call: Call<Endpoints>, next: Next<'_, Endpoints>) -> Result<Call<Endpoints>> {
        let url = std::mem::replace(&mut call.body_mut().url, self.url.as_ref().into());
        let mut call = next.close(call).await?;
        call.body_mut().url = url;
        Ok(call)
    }

    async fn monitor(&self, watch: Watch<Endpoints>, next: Next<'_, Endpoints>) -> Result<EventStream<Endpoints>> {
        let found = next.monitor(watch).await?;
        let (known, own) = (Arc::clone(&self.known), Arc::clone(&self.url));
        let seen = move |change: Result<Change<NetworkServiceEndpoint>>| {
            let mut change = change?;
            if !change.deleted && !change.record.url.is_empty() {
                known.found(&change.record.full_name(), &change.record.url);
            }
            Arc::make_mut(&mut change.record).url = own.as_ref().into();
            Ok(change)
        };
        Ok(found.map(seen).boxed())
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}

impl fmt::Debug for InterdomainBypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InterdomainBypass({}, {} registered)", self.url, self.registered())
    }
}

#[cfg(test)]
mod tests;
