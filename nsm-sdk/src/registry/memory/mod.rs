//! The store of a registry, in memory.

mod by_name;
mod queue;
mod store;
mod watchers;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{StreamExt, stream};
use nsm_chain::{Call, Change, Closed, Element, Error, EventStream, Next, Order, Record, Registry, Result, Watch};

use super::journal::{Entry, Journal, Restored};
pub(in crate::registry) use by_name::ByName;
pub(in crate::registry) use store::Store;

/// Keeps records in memory and answers with them.
///
/// *Register*: stores the record under its name as it arrives here, and tells the watchers it concerns. Every
/// Register is an update to them, also one that changes nothing but the expiration: who caches lives by it,
/// and a manager that restarted learns its own entries back from it.
/// *Unregister*: removes it; watchers get its last state marked as deleted. An unknown name is
/// [`Closed::Unknown`].
/// *Find*: answers in order of name. A query that names a record or a service looks only at those (of several
/// services at the rarest), never at the whole store. A watch gets what matches now, then the changes; a
/// record that changes so that it no longer matches is reported deleted (the reference says nothing then, and
/// the watcher keeps a stale record).
///
/// With a [`Journal`], what a caller is told has been kept there before, and watchers and Finds see nothing that
/// has not. A Register that cannot be kept fails and changes nothing. An Unregister that cannot be kept fails
/// too; the record is gone from here all the same, and comes back with a restart unless it has expired by then or the
/// Unregister is repeated with success.
///
/// A watcher's queue holds the latest state of each record and no more: a slow one misses states in between,
/// never the last, and holds up nobody. Watchers end when the store is dropped. It answers: nothing may
/// follow it.
#[derive(Debug)]
pub struct Memory<R: Record> {
    store: Arc<Store<R>>,
    kept: Option<Kept<R>>,
}

#[derive(Debug)]
struct Kept<R: Record> {
    journal: Arc<dyn Journal<R>>,
    undead: Arc<Undead>,
}

/// Names that are gone from here, but not from the journal.
#[derive(Debug, Default)]
struct Undead(Mutex<HashSet<Arc<str>>>);

impl Undead {
    fn lock(&self) -> MutexGuard<'_, HashSet<Arc<str>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Record> Memory<R> {
    /// With a journal. What is in it already comes in by Registers marked as [`Restored`].
    #[must_use]
    pub fn kept_in(journal: Arc<dyn Journal<R>>) -> Self {
        Self { store: Arc::default(), kept: Some(Kept { journal, undead: Arc::default() }) }
    }

    /// How many records are stored.
    #[must_use]
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether nothing is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many watchers are being told of changes.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.store.watchers()
    }
}

impl<R: Record> Kept<R> {
    async fn put(&self, store: &Arc<Store<R>>, entry: Entry<R>, record: Arc<R>) -> Result<()> {
        let (store, undead, name) = (Arc::clone(store), Arc::clone(&self.undead), Arc::clone(&entry.name));
        let then = move || {
            undead.lock().remove(&name);
            store.put(record);
        };
        self.journal.append(entry, Box::new(then)).await
    }

    /// Tells whether there was anything to remove.
    async fn remove(&self, store: &Arc<Store<R>>, entry: Entry<R>) -> Result<bool> {
        let name = Arc::clone(&entry.name);
        let known = store.contains(&name) || self.undead.lock().contains(&name);
        if !known && entry.owners.is_empty() {
            return Ok(false);
        }
        let then = {
            let (store, undead, name) = (Arc::clone(store), Arc::clone(&self.undead), Arc::clone(&name));
            move || {
                undead.lock().remove(&name);
                store.remove(&name);
            }
        };
        let result = self.journal.append(entry, Box::new(then)).await;
        if result.is_err() && known {
            store.remove(&name);
            self.undead.lock().insert(name);
        }
        result.map(|()| known)
    }
}

impl<R: Record> Default for Memory<R> {
    fn default() -> Self {
        Self { store: Arc::default(), kept: None }
    }
}

impl<R: Record> Element<Registry<R>> for Memory<R> {
    async fn request(&self, call: Call<Registry<R>>, _: Next<'_, Registry<R>>) -> Result<Call<Registry<R>>> {
        if call.body().name().is_empty() {
            return Err(Error::invalid(format!("the {} has no name", R::WHAT)).hint("set one; it is stored under it"));
        }
        match &self.kept {
            Some(kept) if call.fact::<Restored>().is_none() => {
                kept.put(&self.store, Entry::registered(&call), call.share()).await?;
            }
            _ => self.store.put(call.share()),
        }
        Ok(call)
    }

    async fn close(&self, mut call: Call<Registry<R>>, _: Next<'_, Registry<R>>) -> Result<Call<Registry<R>>> {
        let known = match &self.kept {
            Some(kept) => kept.remove(&self.store, Entry::unregistered(&call)).await?,
            None => self.store.remove(call.body().name()).is_some(),
        };
        if !known {
            call.set_closed(Closed::Unknown);
        }
        Ok(call)
    }

    async fn monitor(&self, watch: Watch<Registry<R>>, _: Next<'_, Registry<R>>) -> Result<EventStream<Registry<R>>> {
        if R::watches(&watch.query) {
            return Ok(self.store.watch(watch.query).boxed());
        }
        let found = self.store.find(&watch.query);
        Ok(stream::iter(found.into_iter().map(|record| Ok(Change { record, deleted: false }))).boxed())
    }

    fn order(&self) -> Order {
        Order::LAST
    }
}

#[cfg(test)]
mod tests;
