//! Which connection has which wire.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nsm_kernel::NetnsId;
use tokio::sync::Notify;

use super::Linux;
use super::mark::Mark;
use super::wiring::Wiring;

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
        self.lock().values().flatten().count()
    }

    /// Whether an interface belongs to a wire, or may in a moment: its connection is being worked on.
    pub(super) fn claims(&self, mark: &Mark, link: (NetnsId, &str, &str)) -> bool {
        self.lock().iter().any(|(id, wiring)| match wiring {
            Some(wiring) => wiring.has(link),
            None => mark.names(id, link.2),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Option<Wiring>>> {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
