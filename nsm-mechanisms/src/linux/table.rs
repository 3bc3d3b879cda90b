//! Which connection has which wire.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nsm_kernel::{Event, Interface, Netns, NetnsId, Snapshot, VxlanTunnel};
use tokio::sync::Notify;

use super::Linux;
use super::mark::Mark;
use super::traffic::Counted;
use super::watching::suspects;
use super::wiring::Wiring;
use crate::{Copied, Wire};

/// By connection id.
#[derive(Default)]
pub(super) struct Table {
    /// `None`: somebody works on it right now.
    wires: Mutex<HashMap<Arc<str>, Option<Wiring>>>,
    /// Told when somebody is done.
    done: Notify,
}

/// One connection's wire, taken out of the table to be worked on. Goes back when dropped, however that comes about.
pub(super) struct Held {
    linux: Linux,
    id: Arc<str>,
    pub(super) wiring: Option<Wiring>,
}

impl Held {
    /// Waits for whoever holds it: work that somebody gave up waiting for goes on to its end.
    pub(super) async fn take(linux: &Linux, id: &str) -> Self {
        let id: Arc<str> = id.into();
        loop {
            let done = linux.0.table.done.notified();
            if let Some(wiring) = linux.0.table.take(&id) {
                return Self { linux: linux.clone(), id, wiring };
            }
            done.await;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let table = &self.linux.0.table;
        match self.wiring.take() {
            Some(wiring) => table.lock().insert(Arc::clone(&self.id), Some(wiring)),
            None => table.lock().remove(&self.id),
        };
        table.done.notify_waiters();
    }
}

impl Table {
    /// What the connection has, if nobody works on it.
    fn take(&self, id: &Arc<str>) -> Option<Option<Wiring>> {
        match self.lock().entry(Arc::clone(id)) {
            Entry::Occupied(mut entry) => entry.get_mut().take().map(Some),
            Entry::Vacant(entry) => {
                entry.insert(None);
                Some(None)
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lock().values().flatten().filter(|wiring| !wiring.is_given_up()).count()
    }

    /// Whether an interface belongs to a wire, or may in a moment: its connection is being worked on.
    pub(super) fn claims(&self, mark: &Mark, link: (NetnsId, &str, &str)) -> bool {
        let wires = self.lock();
        if mark.is_trunk(link.2) {
            return wires.values().any(|wiring| wiring.as_ref().is_none_or(|wiring| wiring.has(link)));
        }
        let found = mark.id(link.2).and_then(|id| wires.get(id));
        found.is_some_and(|wiring| wiring.as_ref().is_none_or(|wiring| !wiring.is_given_up() && wiring.has(link)))
    }

    /// Gives up the wire that has this interface, if `wire` is the same connection to a client that starts over.
    pub(super) fn supersede(&self, wire: &Wire, mark: &Mark, link: (NetnsId, &str, &str)) -> bool {
        let mut wires = self.lock();
        let found = mark.id(link.2).and_then(|id| wires.get_mut(id)?.as_mut());
        let former = found.filter(|wiring| wiring.has(link) && wire.supersedes(wiring.wire()));
        former.map(Wiring::give_up).is_some()
    }

    /// Connections whose wire is given up.
    pub(super) fn given_up(&self) -> Vec<Arc<str>> {
        self.whose(Wiring::is_given_up)
    }

    /// Where connections have interfaces, each place once, with a path that leads there.
    pub(super) fn places(&self) -> HashMap<NetnsId, (PathBuf, Netns)> {
        let wires = self.lock();
        let ends = wires.values().flatten().flat_map(Wiring::places);
        ends.map(|netns| (netns.id(), (netns.path(), netns.clone()))).collect()
    }

    /// The interfaces of a connection; none while it is being worked on.
    pub(super) fn interfaces(&self, id: &str) -> Vec<Interface> {
        let wires = self.lock();
        wires.get(id).and_then(Option::as_ref).map(|wiring| wiring.interfaces().to_vec()).unwrap_or_default()
    }

    /// What is to be counted of a connection; none while it is being worked on.
    pub(super) fn counted(&self, id: &str) -> Option<Counted> {
        self.lock().get(id).and_then(Option::as_ref).map(Counted::of)
    }

    /// What is to be counted, by connection, but for those that are being worked on.
    pub(super) fn all_counted(&self) -> Vec<(Arc<str>, Counted)> {
        let wires = self.lock();
        wires.iter().filter_map(|(id, wiring)| Some((Arc::clone(id), Counted::of(wiring.as_ref()?)))).collect()
    }

    /// What was copied for a connection; nothing while it is being worked on.
    pub(super) fn copied(&self, id: &str) -> Option<Copied> {
        self.lock().get(id)?.as_ref()?.copied()
    }

    /// Connections with an interface in one of these namespaces.
    pub(super) fn at(&self, places: &[NetnsId]) -> Vec<Arc<str>> {
        self.whose(|wiring| wiring.places().any(|netns| places.contains(&netns.id())))
    }

    /// Connections with an interface that these events say has changed.
    pub(super) fn touched(&self, events: &[Event]) -> Vec<Arc<str>> {
        let suspect = suspects(events);
        self.whose(|wiring| wiring.interfaces().iter().any(&suspect))
    }

    /// Connections with an interface in that namespace which is not as it should be.
    pub(super) fn drifted(&self, snapshot: &Snapshot) -> Vec<Arc<str>> {
        self.whose(|wiring| !wiring.is_given_up() && wiring.differs(snapshot))
    }

    /// Connections whose wire goes through one of these tunnels.
    pub(super) fn through(&self, tunnels: &[VxlanTunnel]) -> Vec<Arc<str>> {
        self.whose(|wiring| !wiring.is_given_up() && wiring.goes_through(tunnels))
    }

    /// Connections with such a wire, that are not being worked on.
    fn whose(&self, is_it: impl Fn(&Wiring) -> bool) -> Vec<Arc<str>> {
        let wires = self.lock();
        let found = wires.iter().filter(|(_, wiring)| wiring.as_ref().is_some_and(&is_it));
        found.map(|(id, _)| Arc::clone(id)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Option<Wiring>>> {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
