use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use nsm_chain::{Record, Result};

use crate::registry::{Entry, Journal, Journals, Kept, Then};

/// A registry's disk, without the disk. It is never slow.
pub(super) struct MemoryJournal<R>(Mutex<Disk<R>>);

struct Disk<R> {
    records: BTreeMap<Arc<str>, Arc<R>>,
    owners: BTreeMap<Arc<str>, Arc<str>>,
}

/// Empty journals of a registry.
pub(super) fn journals() -> Journals {
    Journals { services: Arc::new(MemoryJournal::default()), endpoints: Arc::new(MemoryJournal::default()) }
}

impl<R> MemoryJournal<R> {
    fn lock(&self) -> MutexGuard<'_, Disk<R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Record> Journal<R> for MemoryJournal<R> {
    fn load(&self) -> BoxFuture<'_, Result<Kept<R>>> {
        let kept = self.lock();
        let records = kept.records.values().cloned().collect();
        let owners = kept.owners.iter().map(|(name, owner)| (Arc::clone(name), Arc::clone(owner))).collect();
        std::future::ready(Ok(Kept { records, owners })).boxed()
    }

    fn append(&self, entry: Entry<R>, then: Then) -> BoxFuture<'_, Result<()>> {
        let mut kept = self.lock();
        match entry.record {
            Some(record) => drop(kept.records.insert(entry.name, record)),
            None => drop(kept.records.remove(&entry.name)),
        }
        for (name, owner) in entry.owners {
            match owner {
                Some(owner) => drop(kept.owners.insert(name, owner)),
                None => drop(kept.owners.remove(&name)),
            }
        }
        drop(kept);
        then();
        std::future::ready(Ok(())).boxed()
    }
}

impl<R> Default for MemoryJournal<R> {
    fn default() -> Self {
        Self(Mutex::new(Disk { records: BTreeMap::new(), owners: BTreeMap::new() }))
    }
}

impl<R> fmt::Debug for MemoryJournal<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryJournal({} records)", self.lock().records.len())
    }
}
