//! Which connection has which wire.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nsm_chain::{Error, Result};

use super::wiring::Wiring;

/// By connection id. `None`: somebody works on it right now.
#[derive(Default)]
pub(super) struct Table(Mutex<HashMap<Arc<str>, Option<Wiring>>>);

/// One connection's wire, taken out of the table to be worked on. Goes back when dropped, however that comes about.
pub(super) struct Held<'a> {
    table: &'a Table,
    id: Arc<str>,
    pub(super) wiring: Option<Wiring>,
}

impl Table {
    pub(super) fn take(&self, id: &str) -> Result<Held<'_>> {
        let id: Arc<str> = id.into();
        let mut wires = self.lock();
        let wiring = match wires.get_mut(&id) {
            Some(None) => {
                return Err(
                    Error::unavailable("the wire of this connection is being changed")
                        .hint("ask again"),
                );
            }
            Some(here) => here.take(),
            None => {
                wires.insert(Arc::clone(&id), None);
                None
            }
        };
        drop(wires);
        Ok(Held {
            table: self,
            id,
            wiring,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.lock().values().flatten().count()
    }

    /// Whether an interface belongs to a wire, or may in a moment: its connection is being worked on.
    pub(super) fn claims(&self, prefix: &str, link: (nsm_kernel::NetnsId, &str, &str)) -> bool {
        self.lock().iter().any(|(id, wiring)| match wiring {
            Some(wiring) => wiring.has(link),
            None => link
                .2
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.starts_with(&**id)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Option<Wiring>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut wires = self.table.lock();
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
