use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{StreamExt, future};
use nsm_api::registry::NetworkServiceEndpoint;
use nsm_chain::{Call, Change, Closed, Element, EventStream, Next, Order, Record, Result, Slot, Watch};

use super::Endpoints;
use super::one_node::without_url;

/// Registers the endpoints of this manager under the manager's URL, and finds them under their own.
///
/// *Register*: keeps the endpoint's URL and sends the manager's further on; the answer has the endpoint's
/// again. An endpoint without a URL is refused. *Unregister*: likewise; one that did not register here is not
/// known. *Find*: a record with the manager's URL gets the endpoint's, if it is registered here; if it is not
/// (left over from an earlier life of the manager, say) it is hidden: nobody could be reached by it. One that
/// registered here for another domain comes back from there under a proxy's URL, and gets its own as well.
/// Records of others pass.
///
/// Everybody else thus reaches an endpoint through its manager, and the manager reaches it directly. It
/// stands after `Begin`, in whose state the URL is kept, and right before the store or the registry.
pub struct LocalBypass {
    url: Arc<str>,
    urls: Arc<Urls>,
    registered: Slot<Registered>,
}

/// By full names.
#[derive(Default)]
struct Urls(Mutex<HashMap<Arc<str>, Local>>);

struct Local {
    url: Arc<str>,
    /// The last record found, with the endpoint's URL beside the form it came in.
    found: Option<(Arc<NetworkServiceEndpoint>, Arc<NetworkServiceEndpoint>)>,
}

/// An endpoint's entry in the table; dropping it takes it out.
struct Registered {
    urls: Arc<Urls>,
    name: Arc<str>,
}

impl LocalBypass {
    /// For the manager that others reach under `url`.
    #[must_use]
    pub fn new(url: impl Into<Arc<str>>) -> Self {
        Self { url: url.into(), urls: Arc::default(), registered: Slot::new() }
    }

    /// What it does to Finds, as an element of its own: for a chain that only looks up.
    #[must_use]
    pub fn finds(&self) -> LocalUrls {
        LocalUrls { url: Arc::clone(&self.url), urls: Arc::clone(&self.urls) }
    }

    /// How many endpoints are registered here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.urls.lock().len()
    }

    /// Whether no endpoint is registered here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Urls {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Local>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets an endpoint's URL, or takes it out; tells the one before.
    fn set(&self, name: &Arc<str>, url: Option<Arc<str>>) -> Option<Arc<str>> {
        let mut table = self.lock();
        let before = match url {
            Some(url) => table.insert(Arc::clone(name), Local { url, found: None }),
            None => table.remove(name),
        };
        before.map(|local| local.url)
    }

    /// The change as one on this node sees it; none if he should not.
    fn seen(&self, own: &str, change: Change<NetworkServiceEndpoint>) -> Option<Change<NetworkServiceEndpoint>> {
        let is_own = change.record.url == own;
        if !is_own && change.record.domain().is_none() {
            return Some(change);
        }
        let mut table = self.lock();
        let Some(local) = table.get_mut(change.record.full_name().as_str()) else {
            return (!is_own || change.deleted).then_some(change);
        };
        let record = match &local.found {
            Some((found, with_url)) if Arc::ptr_eq(found, &change.record) => Arc::clone(with_url),
            _ => {
                let with_url =
                    Arc::new(NetworkServiceEndpoint { url: local.url.as_ref().into(), ..(*change.record).clone() });
                local.found = Some((change.record, Arc::clone(&with_url)));
                with_url
            }
        };
        Some(Change { record, deleted: change.deleted })
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.urls.set(&self.name, None);
    }
}

impl Element<Endpoints> for LocalBypass {
    async fn request(&self, mut call: Call<Endpoints>, next: Next<'_, Endpoints>) -> Result<Call<Endpoints>> {
        let state = Arc::clone(call.state()?);
        if call.body().url.is_empty() {
            return Err(without_url(&call.body().name));
        }
        let name: Arc<str> = call.body().full_name().into();
        let url: Arc<str> = std::mem::replace(&mut call.body_mut().url, self.url.as_ref().into()).into();
        // Before the registry tells watchers, so that they see it with its URL.
        let before = self.urls.set(&name, Some(Arc::clone(&url)));
        match next.request(call).await {
            Ok(mut call) => {
                call.body_mut().url = url.as_ref().into();
                // A later Register keeps the guard of the first: dropping that one would take out the entry.
                if self.registered.with(&state, |kept| kept.is_none_or(|kept| kept.name != name)) {
                    self.registered.set(&state, Registered { urls: Arc::clone(&self.urls), name });
                }
                Ok(call)
            }
            Err(error) => {
                self.urls.set(&name, before);
                Err(error)
            }
        }
    }

    async fn close(&self, mut call: Call<Endpoints>, next: Next<'_, Endpoints>) -> Result<Call<Endpoints>> {
        let url = self.urls.lock().get(call.body().full_name().as_str()).map(|local| Arc::clone(&local.url));
        let Some(url) = url else {
            call.set_closed(Closed::Unknown);
            return Ok(call);
        };
        call.body_mut().url = self.url.as_ref().into();
        let mut call = next.close(call).await?;
        call.body_mut().url = url.as_ref().into();
        Ok(call)
    }

    async fn monitor(&self, watch: Watch<Endpoints>, next: Next<'_, Endpoints>) -> Result<EventStream<Endpoints>> {
        self.finds().monitor(watch, next).await
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}

/// Finds the endpoints of this manager under their own URLs: the look-up half of [`LocalBypass`], from which
/// it is made.
///
/// *Register*, *Unregister*: pass. *Find*: as there.
#[derive(Clone)]
pub struct LocalUrls {
    url: Arc<str>,
    urls: Arc<Urls>,
}

impl Element<Endpoints> for LocalUrls {
    async fn monitor(&self, watch: Watch<Endpoints>, next: Next<'_, Endpoints>) -> Result<EventStream<Endpoints>> {
        let (urls, own) = (Arc::clone(&self.urls), Arc::clone(&self.url));
        let found = next.monitor(watch).await?;
        let seen = move |change: Result<_>| future::ready(change.map(|change| urls.seen(&own, change)).transpose());
        Ok(found.filter_map(seen).boxed())
    }
}

impl fmt::Debug for LocalUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalUrls({})", self.url)
    }
}

impl fmt::Debug for LocalBypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalBypass({}, {} here)", self.url, self.len())
    }
}

#[cfg(test)]
mod tests;
