//! The store of a registry, in memory.

mod by_name;
mod queue;
mod store;
mod watchers;

use futures::{StreamExt, stream};
use nsm_chain::{Call, Change, Closed, Element, Error, EventStream, Next, Order, Record, Registry, Result, Watch};

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
/// A watcher's queue holds the latest state of each record and no more: a slow one misses states in between,
/// never the last, and holds up nobody. Watchers end when the store is dropped. It answers: nothing may
/// follow it.
#[derive(Debug)]
pub struct Memory<R: Record>(Store<R>);

impl<R: Record> Memory<R> {
    /// How many records are stored.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many watchers are being told of changes.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.0.watchers()
    }
}

impl<R: Record> Default for Memory<R> {
    fn default() -> Self {
        Self(Store::default())
    }
}

impl<R: Record> Element<Registry<R>> for Memory<R> {
    async fn request(&self, call: Call<Registry<R>>, _: Next<'_, Registry<R>>) -> Result<Call<Registry<R>>> {
        if call.body().name().is_empty() {
            return Err(Error::invalid(format!("the {} has no name", R::WHAT)).hint("set one; it is stored under it"));
        }
        self.0.put(call.share());
        Ok(call)
    }

    async fn close(&self, mut call: Call<Registry<R>>, _: Next<'_, Registry<R>>) -> Result<Call<Registry<R>>> {
        if self.0.remove(call.body().name()).is_none() {
            call.set_closed(Closed::Unknown);
        }
        Ok(call)
    }

    async fn monitor(&self, watch: Watch<Registry<R>>, _: Next<'_, Registry<R>>) -> Result<EventStream<Registry<R>>> {
        if R::watches(&watch.query) {
            return Ok(self.0.watch(watch.query).boxed());
        }
        let found = self.0.find(&watch.query);
        Ok(stream::iter(found.into_iter().map(|record| Ok(Change { record, deleted: false }))).boxed())
    }

    fn order(&self) -> Order {
        Order::LAST
    }
}

#[cfg(test)]
mod tests;
