use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use nsm_chain::{Call, Element, Handle, Next, Order, Result, Slot};
use tokio::task::JoinHandle;
use tracing::Instrument;

use super::Reconciled;
use super::round::Rounds;

/// Keeps a data plane as its connections own it: for a forwarder, beside [`CrossConnect`](crate::CrossConnect) with the
/// same data plane.
///
/// At start, and again every now and then, it counts what carries this forwarder's mark. What a live connection owns and
/// is missing or changed is mended in place; so it is at once where the data plane tells of it. What nobody owns is left
/// to be taken up for a grace period, then removed. What carries no mark of ours is not touched.
///
/// *Request*: notes the connection. *Close*: –. A connection whose workload is gone from the node is closed, which tells
/// its client as any Close at this hop does.
pub struct Reconcile<D: Reconciled> {
    connections: Arc<Connections>,
    noted: Slot<Noted>,
    task: JoinHandle<()>,
    dataplane: D,
}

/// How often, and how patiently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between two looks at where wires are; a quarter more or less, so that forwarders do not look in step.
    pub every: Duration,
    /// How many such looks pass until one goes everywhere.
    pub everywhere: u32,
    /// How long what nobody owns may wait to be taken up: as long as the clients of an earlier life may take to ask
    /// again, the lifetime of a token.
    pub grace: Duration,
}

impl Default for Pace {
    /// Every 30 s, everywhere every 10 min, a grace of 10 min.
    fn default() -> Self {
        Self { every: Duration::from_secs(30), everywhere: 20, grace: Duration::from_secs(600) }
    }
}

impl<D: Reconciled + Clone> Reconcile<D> {
    /// Takes the first census, and goes on until this is dropped. To be called before the first Request, so that
    /// identifiers which an earlier life's tunnels occupy are known.
    pub async fn start(dataplane: D, pace: Pace) -> Self {
        let connections = Arc::<Connections>::default();
        let mut rounds = Rounds::new(dataplane.clone(), Arc::clone(&connections), pace);
        rounds.first().await;
        let task = tokio::spawn(async move { rounds.run().await }.in_current_span());
        Self { connections, noted: Slot::new(), task, dataplane }
    }
}

impl<D: Reconciled> Drop for Reconcile<D> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<D: Reconciled> Element for Reconcile<D> {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        if let Some(handle) = call.handle() {
            let state = call.state()?;
            if self.noted.with(state, |noted| noted.is_none()) {
                self.noted.set(state, self.connections.note(handle.clone()));
            }
        }
        next.request(call).await
    }

    fn order(&self) -> Order {
        Order { after: &["Begin"], before: &["Connect"], last: false }
    }
}

impl<D: Reconciled + fmt::Debug> fmt::Debug for Reconcile<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reconcile").field(&self.dataplane).finish()
    }
}

/// The connections of the chain, by id: to close one.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<HashMap<Arc<str>, Handle>>);

/// Keeps a connection in the list as long as it lives.
struct Noted {
    connections: Weak<Connections>,
    id: Arc<str>,
}

impl Connections {
    pub(super) fn get(&self, id: &str) -> Option<Handle> {
        self.lock().get(id).cloned()
    }

    fn note(self: &Arc<Self>, handle: Handle) -> Noted {
        let id = Arc::clone(handle.key());
        self.lock().insert(Arc::clone(&id), handle);
        Noted { connections: Arc::downgrade(self), id }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Handle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        if let Some(connections) = self.connections.upgrade() {
            connections.lock().remove(&self.id);
        }
    }
}
