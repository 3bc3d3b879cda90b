//! Which connection has which wire.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nsm_chain::{Error, Result};
use nsm_kernel::NetnsId;

use super::Linux;
use super::mark::Mark;
use super::wiring::Wiring;

/// By connection id. `None`: somebody works on it right now.
#[derive(Default)]
pub(super) struct Table(Mutex<HashMap<Arc<str>, Option<Wiring>>>);

/// One connection's wire, taken out of the table to be worked on. Goes back when dropped, however that comes about.
pub(super) struct Held {
    linux: Linux,
    id: Arc<str>,
    pub(super) wiring: Option<Wiring>,
}

impl Held {
    /// # Errors
    /// Somebody holds it.
    pub(super) fn take(linux: &Linux, id: &str) -> Result<Self> {
        let id: Arc<str> = id.into();
        let wiring = match linux.0.table.lock().entry(Arc::clone(&id)) {
            Entry::Occupied(mut entry) => match entry.get_mut().take() {
                Some(wiring) => Some(wiring),
                None => {
                    return Err(
                        Error::unavailable("the wire of this connection is being changed")
                            .hint("ask again"),
                    );
                }
            },
            Entry::Vacant(entry) => {
                entry.insert(None);
                None
            }
        };
        Ok(Self {
            linux: linux.clone(),
            id,
            wiring,
        })
    }
}

impl Table {
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut wires = self.linux.0.table.lock();
        match self.wiring.take() {
            Some(wiring) => {
                wires.insert(Arc::clone(&self.id), Some(wiring));
            }
            None => {
                wires.remove(&self.id);
            }
        }
    }
}
