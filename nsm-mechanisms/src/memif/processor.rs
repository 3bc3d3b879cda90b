use std::sync::Arc;

use nsm_api::Connection;
use nsm_memif::{Closer, Memif};

/// What handles the packets of a MEMIF connection.
///
/// A closure is one: `|memif: Memif, connection: Arc<Connection>| async move { … }`.
///
/// It runs as a task while the interface is up, and once more for each time the peer comes again: after its process was
/// started anew, say. When the connection is closed the interface is closed with it, and the future dropped; threads that
/// work on queues of their own get `Error::Closed` then.
pub trait PacketProcessor: Send + Sync + 'static {
    /// Handles packets until the interface is closed: whether IP packets or Ethernet frames, the connection's payload says.
    fn process(&self, memif: Memif, connection: Arc<Connection>) -> impl Future<Output = ()> + Send;
}

impl<F, Fut> PacketProcessor for F
where
    F: Fn(Memif, Arc<Connection>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send,
{
    fn process(&self, memif: Memif, connection: Arc<Connection>) -> impl Future<Output = ()> + Send {
        self(memif, connection)
    }
}

/// Runs it; the interface ends with this, however it ends.
pub(super) async fn run(processor: &impl PacketProcessor, memif: Memif, connection: &Arc<Connection>) {
    let _closes = Closes(memif.closer());
    tracing::debug!(id = connection.id, peer = ?memif.peer(), "a memif is up");
    processor.process(memif, Arc::clone(connection)).await;
}

struct Closes(Closer);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.close();
    }
}
