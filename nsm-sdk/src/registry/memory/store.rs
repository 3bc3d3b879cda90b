//! Records indexed by name and by service, and who watches them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::task::{Context, Poll, ready};

use futures::Stream;
use nsm_chain::{Change, Record, Result};

use super::ByName;
use super::queue::Watcher;
use super::watchers::{Asks, Watchers};

/// The records of one kind. Dropping it ends its watchers.
pub(in crate::registry) struct Store<R: Record>(Arc<RwLock<Tables<R>>>);

struct Tables<R: Record> {
    names: HashSet<ByName<R>>,
    services: HashMap<Box<str>, BTreeSet<ByName<R>>>,
    watchers: Watchers<R>,
    ended: bool,
}

impl<R: Record> Store<R> {
    /// Stores a record in place of the one of its name, and tells the watchers.
    pub(in crate::registry) fn put(&self, record: Arc<R>) {
        let mut tables = write(&self.0);
        let before = tables.names.replace(ByName(Arc::clone(&record))).map(|ByName(before)| before);
        // The set holds an equal one by now; indexes of services that stay are replaced in place.
        if let Some(before) = &before {
            for service in before.services().iter().filter(|service| !record.services().contains(service)) {
                tables.leave(service, record.name());
            }
        }
        for service in record.services() {
            tables.join(service, &record);
        }
        tables.watchers.tell(before.as_ref(), Some(&record));
    }

    /// Removes the record of that name, and tells the watchers.
    pub(in crate::registry) fn remove(&self, name: &str) -> Option<Arc<R>> {
        let mut tables = write(&self.0);
        let ByName(record) = tables.names.take(name)?;
        for service in record.services() {
            tables.leave(service, name);
        }
        tables.watchers.tell(Some(&record), None);
        Some(record)
    }

    pub(in crate::registry) fn contains(&self, name: &str) -> bool {
        read(&self.0).names.contains(name)
    }

    /// What answers the query, in order of name.
    pub(in crate::registry) fn find(&self, query: &R::Query) -> Vec<Arc<R>> {
        read(&self.0).find(query)
    }

    /// What answers the query, then how that changes.
    pub(in crate::registry) fn watch(&self, query: R::Query) -> Watching<R> {
        let mut tables = write(&self.0);
        let snapshot = tables.find(&query).into_iter();
        let watcher = Arc::new(Watcher::new(query));
        if tables.ended {
            watcher.end();
        }
        let number = tables.watchers.add(Arc::clone(&watcher));
        Watching { snapshot, watcher, number, tables: Arc::downgrade(&self.0) }
    }

    /// Ends all watches, those that come later too.
    pub(in crate::registry) fn end(&self) {
        let mut tables = write(&self.0);
        tables.ended = true;
        tables.watchers.all().for_each(|watcher| watcher.end());
    }

    pub(in crate::registry) fn len(&self) -> usize {
        read(&self.0).names.len()
    }

    pub(in crate::registry) fn watchers(&self) -> usize {
        read(&self.0).watchers.all().count()
    }
}

impl<R: Record> Default for Store<R> {
    fn default() -> Self {
        let tables =
            Tables { names: HashSet::new(), services: HashMap::new(), watchers: Watchers::default(), ended: false };
        Self(Arc::new(RwLock::new(tables)))
    }
}

impl<R: Record> Drop for Store<R> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<R: Record> fmt::Debug for Store<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({} of {})", self.len(), R::WHAT)
    }
}

impl<R: Record> Tables<R> {
    fn find(&self, query: &R::Query) -> Vec<Arc<R>> {
        let answering = |ByName(record): &ByName<R>| record.answers(query).then(|| Arc::clone(record));
        match Asks::of::<R>(query) {
            Asks::Name(name) => self.names.get(name).and_then(answering).into_iter().collect(),
            Asks::Services(services) => {
                let sets: Option<Vec<_>> = services.iter().map(|service| self.services.get(service.as_str())).collect();
                let rarest = sets.and_then(|sets| sets.into_iter().min_by_key(|set| set.len()));
                rarest.into_iter().flatten().filter_map(answering).collect()
            }
            Asks::Anything => {
                let mut found: Vec<_> = self.names.iter().filter_map(answering).collect();
                found.sort_unstable_by(|one, other| one.name().cmp(other.name()));
                found
            }
        }
    }

    fn join(&mut self, service: &str, record: &Arc<R>) {
        let record = ByName(Arc::clone(record));
        match self.services.get_mut(service) {
            Some(set) => drop(set.replace(record)),
            None => drop(self.services.insert(service.into(), BTreeSet::from([record]))),
        }
    }

    fn leave(&mut self, service: &str, name: &str) {
        if let Some(set) = self.services.get_mut(service) {
            set.remove(name);
            if set.is_empty() {
                self.services.remove(service);
            }
        }
    }
}

/// One watcher's stream: the snapshot, then the changes. Dropping it ends the watch.
pub(in crate::registry) struct Watching<R: Record> {
    snapshot: std::vec::IntoIter<Arc<R>>,
    watcher: Arc<Watcher<R>>,
    number: u64,
    tables: Weak<RwLock<Tables<R>>>,
}

impl<R: Record> Stream for Watching<R> {
    type Item = Result<Change<R>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(record) = self.snapshot.next() {
            return Poll::Ready(Some(Ok(Change { record, deleted: false })));
        }
        Poll::Ready(ready!(self.watcher.poll(cx.waker())).map(Ok))
    }
}

impl<R: Record> Drop for Watching<R> {
    fn drop(&mut self) {
        if let Some(tables) = self.tables.upgrade() {
            write(&tables).watchers.remove(&self.watcher.query, self.number);
        }
    }
}

fn read<R: Record>(tables: &RwLock<Tables<R>>) -> RwLockReadGuard<'_, Tables<R>> {
    tables.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<R: Record>(tables: &RwLock<Tables<R>>) -> RwLockWriteGuard<'_, Tables<R>> {
    tables.write().unwrap_or_else(PoisonError::into_inner)
}
