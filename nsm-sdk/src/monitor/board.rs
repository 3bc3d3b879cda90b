//! The connections of a hop as its watchers see them, and the watchers, found by segment id.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use nsm_api::SpiffeId;
use nsm_api::connection::{Connection, MonitorScopeSelector};
use nsm_chain::sync::tokio::sync::Notify;
use nsm_chain::sync::{Mutex, MutexGuard};

use super::watcher::Pending;

/// All that is known, behind one lock that is never held across an await.
#[derive(Default)]
pub(super) struct Board {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    next: u64,
    connections: HashMap<Arc<str>, Entry>,
    /// Ids of the segment before ours: what a caller selects by.
    callers: HashMap<Arc<str>, Arc<str>>,
    watchers: HashMap<u64, Arc<Watcher>>,
    by_id: HashMap<Arc<str>, HashSet<u64>>,
    of_all: HashSet<u64>,
}

struct Entry {
    connection: Arc<Connection>,
    owner: Option<SpiffeId>,
    caller: Option<Arc<str>>,
}

pub(super) struct Watcher {
    selector: MonitorScopeSelector,
    /// Only connections of this identity; none: all.
    owner: Option<SpiffeId>,
    pub(super) pending: Mutex<Pending>,
    pub(super) wake: Notify,
}

impl Watcher {
    fn sees(&self, connection: &Connection, owner: Option<&SpiffeId>) -> bool {
        self.owner.as_ref().is_none_or(|mine| owner == Some(mine)) && self.selector.matches(connection)
    }

    fn tell(&self, connection: Arc<Connection>, deleted: bool) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).put(connection, deleted);
        self.wake.notify_one();
    }

    /// The id by which this watcher can be found; none: it must be asked about everything.
    fn id(&self) -> Option<&str> {
        self.selector.path_segments.iter().map(|segment| segment.id.as_str()).find(|id| !id.is_empty())
    }
}

fn ids(connection: &Connection) -> impl Iterator<Item = &str> {
    connection.path.iter().flat_map(|path| &path.path_segments).map(|segment| segment.id.as_str())
}

impl Board {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the connection and tells who wants to know.
    pub(super) fn update(&self, connection: Arc<Connection>, owner: Option<&SpiffeId>) {
        let mut known = self.known();
        let caller = connection.prev_segment().map(|segment| segment.id.as_str());
        match known.connections.get_mut(connection.id.as_str()) {
            Some(entry) if entry.caller.as_deref() == caller => {
                entry.connection = Arc::clone(&connection);
                if owner.is_some() {
                    entry.owner = owner.cloned();
                }
            }
            _ => known.put(&connection, owner),
        }
        let owner = known.connections.get(connection.id.as_str()).and_then(|entry| entry.owner.clone());
        known.tell(&connection, owner.as_ref(), false);
    }

    /// Replaces a connection that is still there, as it is now, by what `change` makes of it, if anything.
    pub(super) fn change(&self, id: &str, change: impl FnOnce(&Connection) -> Option<Arc<Connection>>) {
        let mut known = self.known();
        let Some(entry) = known.connections.get_mut(id) else {
            return;
        };
        let Some(connection) = change(&entry.connection) else {
            return;
        };
        entry.connection = Arc::clone(&connection);
        let owner = entry.owner.clone();
        known.tell(&connection, owner.as_ref(), false);
    }

    /// Forgets the connection and tells who wants to know.
    pub(super) fn delete(&self, connection: Arc<Connection>) {
        let mut known = self.known();
        let (owner, last) = match known.take(&connection.id) {
            Some(entry) => (entry.owner, entry.connection),
            None => (None, connection),
        };
        known.tell(&last, owner.as_ref(), true);
    }

    /// A new watcher, with everything it sees now waiting for it as one initial transfer.
    pub(super) fn watch(self: &Arc<Self>, selector: MonitorScopeSelector, owner: Option<SpiffeId>) -> Watching {
        let watcher = Arc::new(Watcher { selector, owner, pending: Mutex::default(), wake: Notify::new() });
        let mut known = self.known();
        let key = known.next;
        known.next += 1;
        let seen = known.seen(&watcher);
        watcher.pending.lock().unwrap_or_else(PoisonError::into_inner).begin(seen);
        match watcher.id() {
            Some(id) => {
                let id: Arc<str> = id.into();
                known.by_id.entry(id).or_default().insert(key);
            }
            None => {
                known.of_all.insert(key);
            }
        }
        known.watchers.insert(key, Arc::clone(&watcher));
        Watching { board: Arc::clone(self), key, watcher }
    }

    /// Whether this identity asked for the connection whose segment before ours has this id.
    pub(super) fn is_asked_for_by(&self, identity: &SpiffeId, id: &str) -> bool {
        let known = self.known();
        let entry = known.callers.get(id).and_then(|own| known.connections.get(own));
        entry.is_some_and(|entry| entry.owner.as_ref() == Some(identity))
    }

    /// The ids of the segments before ours, by the identity that asked for the connection.
    pub(super) fn asked_for(&self) -> BTreeMap<String, Vec<String>> {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in self.known().connections.values() {
            if let (Some(owner), Some(caller)) = (&entry.owner, &entry.caller) {
                all.entry(owner.to_string()).or_default().push((**caller).to_owned());
            }
        }
        all
    }

    pub(super) fn counts(&self) -> (usize, usize) {
        let known = self.known();
        (known.connections.len(), known.watchers.len())
    }
}

impl Known {
    /// Keeps a connection that is new, or comes by another hop than before: its caller chose another one.
    fn put(&mut self, connection: &Arc<Connection>, owner: Option<&SpiffeId>) {
        let before = self.take(&connection.id).and_then(|before| before.owner);
        let id: Arc<str> = connection.id.as_str().into();
        let caller: Option<Arc<str>> = connection.prev_segment().map(|segment| segment.id.as_str().into());
        if let Some(caller) = &caller {
            self.callers.insert(Arc::clone(caller), Arc::clone(&id));
        }
        let entry = Entry { connection: Arc::clone(connection), owner: owner.cloned().or(before), caller };
        self.connections.insert(id, entry);
    }

    fn take(&mut self, id: &str) -> Option<Entry> {
        let entry = self.connections.remove(id)?;
        if let Some(caller) = &entry.caller
            && self.callers.get(caller).is_some_and(|own| **own == *id)
        {
            self.callers.remove(caller);
        }
        Some(entry)
    }

    fn tell(&self, connection: &Arc<Connection>, owner: Option<&SpiffeId>, deleted: bool) {
        let found = ids(connection).filter_map(|id| self.by_id.get(id)).flatten();
        let keys: HashSet<u64> = found.chain(&self.of_all).copied().collect();
        for watcher in keys.iter().filter_map(|key| self.watchers.get(key)) {
            if watcher.sees(connection, owner) {
                watcher.tell(Arc::clone(connection), deleted);
            }
        }
    }

    /// What a watcher sees now. Its id is mostly ours or our caller's: then nothing is searched.
    fn seen(&self, watcher: &Watcher) -> Vec<Arc<Connection>> {
        let direct = watcher.id().and_then(|id| {
            let id = self.callers.get(id).map_or(id, |own| own);
            self.connections.get(id)
        });
        let all = |entry: &&Entry| watcher.sees(&entry.connection, entry.owner.as_ref());
        match direct {
            Some(entry) => std::iter::once(entry).filter(all).map(|entry| Arc::clone(&entry.connection)).collect(),
            None => self.connections.values().filter(all).map(|entry| Arc::clone(&entry.connection)).collect(),
        }
    }
}

/// A watcher in its board; dropping it takes it out.
pub(super) struct Watching {
    board: Arc<Board>,
    key: u64,
    pub(super) watcher: Arc<Watcher>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut known = self.board.known();
        known.watchers.remove(&self.key);
        known.of_all.remove(&self.key);
        if let Some(id) = self.watcher.id()
            && let Some(keys) = known.by_id.get_mut(id)
        {
            keys.remove(&self.key);
            if keys.is_empty() {
                known.by_id.remove(id);
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests {
    use nsm_api::connection::{Path, PathSegment};

    use super::*;

    /// A connection of ours, which came by the hop whose segment has this id.
    fn by(caller: &str) -> Arc<Connection> {
        let segment = |id: &str| PathSegment { id: id.into(), ..Default::default() };
        let path = Path { index: 1, path_segments: vec![segment(caller), segment("own")] };
        Arc::new(Connection { id: "own".into(), path: Some(path), ..Default::default() })
    }

    #[test]
    fn a_connection_belongs_to_whom_it_came_from_last() {
        let board = Board::default();
        let [one, two] = ["one", "two"].map(|name| SpiffeId::new(&format!("spiffe://example.org/{name}")).unwrap());
        let belongs = |id: &str| (board.is_asked_for_by(&one, id), board.is_asked_for_by(&two, id));
        board.update(by("a"), Some(&one));
        assert_eq!((belongs("a"), belongs("own"), belongs("b")), ((true, false), (false, false), (false, false)));
        board.update(by("b"), Some(&two));
        assert_eq!((belongs("a"), belongs("b")), ((false, false), (false, true)));
        assert_eq!(board.asked_for(), BTreeMap::from([(two.to_string(), vec!["b".to_owned()])]));
        board.delete(by("b"));
        assert_eq!((belongs("b"), board.counts(), board.known().callers.len()), ((false, false), (0, 0), 0));
    }
}
