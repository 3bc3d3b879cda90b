use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt, stream};
use nsm_chain::{
    Call, Change, Element, EventStream, Handle, Next, Order, Record, Registry, Result, Slot, Watch, WeakNext, Why,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::watching::QUIET;
use crate::lifetime::Backoff;

/// Fills a registry again that has lost what was registered through here.
///
/// *Register*: on success the name is listed. While names are listed, one watch, on one of them, tells
/// whether the registry is still there and still knows it: if it was lost, everything listed is registered
/// again as soon as it is back; if it forgot that name, that name is. What cannot be registered is tried
/// again, ever more slowly. *Unregister*: the name is no longer listed.
///
/// One watch for all names, not one each, keeps a client of many names cheap. What the registry forgets while
/// it is up, other than that one name, the next refresh brings back. It belongs to whoever registers for
/// itself, and stands after `Begin`.
pub struct RegistrationHeal<R: Record> {
    names: Arc<Names<R>>,
    listed: Slot<Listed<R>>,
}

struct Names<R: Record> {
    table: Mutex<Table<R>>,
    removed: Notify,
}

struct Table<R: Record> {
    handles: BTreeMap<Arc<str>, Handle<Registry<R>>>,
    watched: bool,
}

/// A name's place in the list; dropping it takes the name out.
struct Listed<R: Record> {
    names: Arc<Names<R>>,
    name: Arc<str>,
}

/// How many names are registered again at the same time.
const AT_ONCE: usize = 16;
/// A watch that lived for so long starts with short pauses again.
const STEADY: Duration = Duration::from_secs(10);

impl<R: Record> Default for RegistrationHeal<R> {
    fn default() -> Self {
        let table = Table { handles: BTreeMap::new(), watched: false };
        Self { names: Arc::new(Names { table: Mutex::new(table), removed: Notify::new() }), listed: Slot::new() }
    }
}

impl<R: Record> Element<Registry<R>> for RegistrationHeal<R> {
    async fn request(&self, call: Call<Registry<R>>, next: Next<'_, Registry<R>>) -> Result<Call<Registry<R>>> {
        let call = next.request(call).await?;
        let state = call.state()?;
        if let Some(handle) = call.handle()
            && self.listed.with(state, |listed| listed.is_none())
        {
            let name = Arc::clone(handle.key());
            if self.names.list(handle.clone()) {
                tokio::spawn(keep(Arc::clone(&self.names), next.weak()));
            }
            self.listed.set(state, Listed { names: Arc::clone(&self.names), name });
        }
        Ok(call)
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}

impl<R: Record> Names<R> {
    fn lock(&self) -> MutexGuard<'_, Table<R>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists a name; tells whether nobody watches over the list yet.
    fn list(&self, handle: Handle<Registry<R>>) -> bool {
        let mut table = self.lock();
        table.handles.insert(Arc::clone(handle.key()), handle);
        !std::mem::replace(&mut table.watched, true)
    }

    /// Some name to watch; none: whoever watches over the list ends.
    fn any(&self) -> Option<Arc<str>> {
        let mut table = self.lock();
        let any = table.handles.keys().next().cloned();
        table.watched = any.is_some();
        any
    }

    fn all(&self) -> BTreeSet<Arc<str>> {
        self.lock().handles.keys().cloned().collect()
    }

    /// Returns when the name is not listed.
    async fn without(&self, name: &str) {
        loop {
            let removed = self.removed.notified();
            if !self.lock().handles.contains_key(name) {
                return;
            }
            removed.await;
        }
    }

    /// Registers names again; those with which it works, or that are not listed any more, leave the set.
    async fn heal(&self, names: &mut BTreeSet<Arc<str>>) {
        let handles: Vec<_> = {
            let table = self.lock();
            names.iter().filter_map(|name| table.handles.get(name).cloned()).collect()
        };
        let again = stream::iter(handles).map(async |handle| (handle.request(Why::Heal).await, handle));
        let failed = again.buffer_unordered(AT_ONCE).filter_map(async |(result, handle)| {
            let error = result.err()?;
            tracing::warn!(what = R::WHAT, name = &**handle.key(), %error, "cannot register again, trying later");
            Some(Arc::clone(handle.key()))
        });
        *names = failed.collect().await;
    }
}

impl<R: Record> Drop for Listed<R> {
    fn drop(&mut self) {
        self.names.lock().handles.remove(&self.name);
        self.names.removed.notify_waiters();
    }
}

/// Watches over the list while there is anything on it.
async fn keep<R: Record>(names: Arc<Names<R>>, next: WeakNext<Registry<R>>) {
    let mut ward = Ward { names, missing: BTreeSet::new(), pauses: pauses() };
    while let Some(name) = ward.names.any() {
        let opened = Instant::now();
        let Some(next) = next.upgrade() else { return };
        let watch = Watch::new(query::<R>(&name));
        let mut opening = pin!(async move { next.monitor(watch).await });
        let events = match tokio::time::timeout(QUIET, &mut opening).await {
            Ok(opened) => Some(opened),
            // It is not waited for. When it is open it is perhaps at another registry than what is registered now.
            Err(_) => {
                let opened = ward.heal_until(&name, &mut opening).await;
                ward.missing = ward.names.all();
                opened
            }
        };
        match events {
            Some(Ok(events)) => ward.follow(&name, events).await,
            Some(Err(error)) => {
                tracing::debug!(what = R::WHAT, %error, "the registry is lost");
                ward.missing = ward.names.all();
            }
            None => {}
        }
        if opened.elapsed() >= STEADY {
            ward.pauses = pauses();
        }
        if !ward.missing.is_empty() {
            tokio::time::sleep(ward.pauses.pause()).await;
        }
    }
}

/// What one who watches over the list knows.
struct Ward<R: Record> {
    names: Arc<Names<R>>,
    missing: BTreeSet<Arc<str>>,
    pauses: Backoff,
}

impl<R: Record> Ward<R> {
    /// Follows one watch until it is lost, everything is missing then, or its name is no longer listed.
    async fn follow(&mut self, name: &Arc<str>, mut events: EventStream<Registry<R>>) {
        while let Some(event) = self.heal_until(name, events.next()).await {
            match event {
                Some(Ok(Change { deleted: true, .. })) => drop(self.missing.insert(Arc::clone(name))),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => {
                    self.missing = self.names.all();
                    return;
                }
            }
        }
    }

    /// Registers what is missing, ever more slowly, until there is news; none, if the name is no longer listed.
    async fn heal_until<T>(&mut self, name: &str, news: impl Future<Output = T>) -> Option<T> {
        let mut news = pin!(news);
        loop {
            self.names.heal(&mut self.missing).await;
            let later = async {
                if self.missing.is_empty() {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(self.pauses.pause()).await;
            };
            tokio::select! {
                biased;
                news = &mut news => return Some(news),
                () = self.names.without(name) => return None,
                () = later => {}
            }
        }
    }
}

fn query<R: Record>(name: &str) -> R::Query {
    let mut pattern = R::default();
    pattern.set_name(name.to_owned());
    R::query(pattern, true)
}

fn pauses() -> Backoff {
    Backoff::within_a_second(Duration::from_millis(100), "registry")
}

impl<R: Record> fmt::Debug for RegistrationHeal<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistrationHeal({} listed)", self.names.lock().handles.len())
    }
}

#[cfg(test)]
mod tests;
