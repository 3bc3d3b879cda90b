//! What waits for one watcher: the latest of each connection, so that a slow one never holds up others and never
//! makes a queue grow past the connections there are.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};

use futures::stream::{BoxStream, StreamExt};
use nsm_api::connection::{Connection, ConnectionEvent, ConnectionEventType};
use nsm_chain::Result;

use super::board::Watching;

/// As many connections as one message carries at most; a mesh's connections stay far under gRPC's 4 MiB.
const BATCH: usize = 256;

#[derive(Default)]
pub(super) struct Pending {
    initial: Option<Vec<Arc<Connection>>>,
    next: u64,
    order: BTreeMap<u64, (Arc<Connection>, bool)>,
    places: HashMap<String, u64>,
}

impl Pending {
    pub(super) fn begin(&mut self, seen: Vec<Arc<Connection>>) {
        self.initial = Some(seen);
    }

    /// Takes the place of what waited for the same connection, at the end of the queue.
    pub(super) fn put(&mut self, connection: Arc<Connection>, deleted: bool) {
        let place = self.next;
        self.next += 1;
        if let Some(former) = self.places.insert(connection.id.clone(), place) {
            self.order.remove(&former);
        }
        self.order.insert(place, (connection, deleted));
    }

    /// The next message: the initial transfer first, then runs of updates or of deletions in order.
    fn take(&mut self) -> Option<ConnectionEvent> {
        if let Some(seen) = self.initial.take() {
            return Some(event(ConnectionEventType::InitialStateTransfer, seen));
        }
        let deleted = self.order.first_key_value()?.1.1;
        let mut run = Vec::new();
        while run.len() < BATCH
            && let Some(entry) = self.order.first_entry()
            && entry.get().1 == deleted
        {
            let (connection, _) = entry.remove();
            self.places.remove(&connection.id);
            run.push(connection);
        }
        Some(event(if deleted { ConnectionEventType::Delete } else { ConnectionEventType::Update }, run))
    }
}

fn event(kind: ConnectionEventType, connections: Vec<Arc<Connection>>) -> ConnectionEvent {
    let connections = connections.into_iter().map(|c| (c.id.clone(), Arc::unwrap_or_clone(c))).collect();
    ConnectionEvent { r#type: kind.into(), connections }
}

/// The watcher's stream: exactly one initial transfer, then changes. Dropping it ends the watch.
pub(super) fn stream(watching: Watching) -> BoxStream<'static, Result<Arc<ConnectionEvent>>> {
    futures::stream::unfold(watching, |watching| async move {
        let event = next(&watching).await;
        Some((Ok(Arc::new(event)), watching))
    })
    .boxed()
}

async fn next(watching: &Watching) -> ConnectionEvent {
    loop {
        let wake = watching.watcher.wake.notified();
        let event = watching.watcher.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
        match event {
            Some(event) => return event,
            None => wake.await,
        }
    }
}
