//! The descriptors of one unix stream.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use nsm_chain::{Congested, Descriptors, FileId};
use rustix::process::{Resource, getrlimit};
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// The descriptors that come and go beside the bytes of one unix stream, as grpcfd sends and receives them: each rides on one
/// byte of the stream (`SCM_RIGHTS`), below TLS, and is known by device and inode of its file.
///
/// It belongs to its connection: with it goes whatever was not sent, and soon after whatever nobody took. What comes again is merged with
/// what is here, so a peer that sends the same file with each call costs one descriptor; and when all calls that brought a file
/// have taken it, only they keep it open. (The reference keeps the first of each file as long as the connection, and sends it
/// again with each call: with both, a file is here when it is asked for.)
#[derive(Default)]
pub(super) struct Port {
    table: Mutex<Table>,
    /// Whether something waits to be sent. Every write looks here, so that it need not lock.
    waits: AtomicBool,
    arrived: Notify,
}

#[derive(Default)]
struct Table {
    outgoing: VecDeque<Arc<OwnedFd>>,
    /// What came, the last one last.
    incoming: Vec<Incoming>,
    closed: bool,
}

struct Incoming {
    id: FileId,
    file: Weak<OwnedFd>,
    /// Kept for takers to come.
    kept: Option<Kept>,
    /// How many more may take it: as many as it came times.
    claims: usize,
    /// How many times it came in all.
    arrivals: u64,
}

/// So many files are kept for one connection; a peer that sends more loses the oldest. It is more than calls of different
/// workloads that are on their way into a process at the same time, over one link.
const MOST_KEPT: usize = 512;
/// So many wait to be sent.
const MOST_WAITING: usize = 1024;
/// How long a call may still take what it brought after its connection has ended, or another connection of the same file has.
const GRACE: Duration = Duration::from_secs(2);

impl Port {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next one to be sent.
    pub(super) fn outgoing(&self) -> Option<Arc<OwnedFd>> {
        if !self.waits.load(Ordering::Acquire) {
            return None;
        }
        self.table().outgoing.front().cloned()
    }

    /// The one that [`outgoing`](Self::outgoing) gave is on its way, or cannot be sent.
    pub(super) fn sent(&self) {
        let mut table = self.table();
        table.outgoing.pop_front();
        self.waits.store(!table.outgoing.is_empty(), Ordering::Release);
    }

    /// Some came.
    pub(super) fn arrive(&self, files: impl Iterator<Item = OwnedFd>) {
        let mut any = false;
        for file in files {
            match rustix::fs::fstat(&file) {
                Ok(stat) => {
                    any = true;
                    self.table().arrive(FileId { device: stat.st_dev, inode: stat.st_ino }, file);
                }
                Err(error) => tracing::debug!(%error, "a descriptor came that cannot be looked at"),
            }
        }
        if any {
            self.arrived.notify_waiters();
        }
    }

    /// The connection ended. What came is there a while longer: the last call or answer may be read, and not yet looked at.
    pub(super) fn close(self: &Arc<Self>) {
        let mut table = self.table();
        table.closed = true;
        table.outgoing.clear();
        self.waits.store(false, Ordering::Release);
        let left = !table.incoming.is_empty();
        drop(table);
        self.arrived.notify_waiters();
        if left {
            self.later(|table| table.incoming.clear());
        }
    }

    fn later(self: &Arc<Self>, work: impl FnOnce(&mut Table) + Send + 'static) {
        let port = Arc::downgrade(self);
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                tokio::time::sleep(GRACE).await;
                if let Some(port) = port.upgrade() {
                    work(&mut port.table());
                }
            })),
            Err(_) => work(&mut self.table()),
        }
    }
}

impl Table {
    fn arrive(&mut self, id: FileId, file: OwnedFd) {
        self.incoming.retain(|one| one.kept.is_some() || one.file.strong_count() > 0);
        let known = self.incoming.iter().position(|one| one.id == id).map(|at| self.incoming.remove(at));
        let (known, claims, arrivals) =
            known.map_or((None, 0, 0), |one| (one.file.upgrade(), one.claims, one.arrivals));
        let file = known.unwrap_or_else(|| Arc::new(file));
        let kept = Some(Kept::new(Arc::clone(&file)));
        let file = Arc::downgrade(&file);
        self.incoming.push(Incoming { id, file, kept, claims: claims + 1, arrivals: arrivals + 1 });
        if self.incoming.len() > MOST_KEPT || Kept::too_many() {
            tracing::debug!("a peer sends descriptors that nobody takes; the oldest is closed");
            self.incoming.remove(0);
        }
    }

    fn take(&mut self, id: FileId) -> Option<Arc<OwnedFd>> {
        let one = self.find(id)?;
        let file = one.file.upgrade();
        one.claims = one.claims.saturating_sub(1);
        if one.claims == 0 {
            one.kept = None;
        }
        file
    }

    fn find(&mut self, id: FileId) -> Option<&mut Incoming> {
        self.incoming.iter_mut().find(|one| one.id == id)
    }

    /// Closes a file that has not come again since it had come so many times.
    fn release(&mut self, id: FileId, arrivals: u64) {
        if let Some(one) = self.find(id)
            && one.arrivals == arrivals
        {
            one.claims = 0;
            one.kept = None;
        }
    }
}

impl Descriptors for Port {
    fn send(&self, files: &[Arc<OwnedFd>]) -> Result<(), Congested> {
        let mut table = self.table();
        if table.closed || files.is_empty() {
            // Whatever goes out beside them fails by itself.
            return Ok(());
        }
        if table.outgoing.len() + files.len() > MOST_WAITING {
            return Err(Congested { waiting: table.outgoing.len() });
        }
        table.outgoing.extend(files.iter().cloned());
        self.waits.store(true, Ordering::Release);
        Ok(())
    }

    fn take(&self, file: FileId) -> Option<Arc<OwnedFd>> {
        self.table().take(file)
    }

    fn release(self: Arc<Self>, file: FileId) {
        let arrivals = self.table().find(file).filter(|one| one.kept.is_some()).map(|one| one.arrivals);
        if let Some(arrivals) = arrivals {
            self.later(move |table| table.release(file, arrivals));
        }
    }

    fn receive(&self, file: FileId) -> BoxFuture<'_, Option<Arc<OwnedFd>>> {
        async move {
            loop {
                let mut arrived = std::pin::pin!(self.arrived.notified());
                // From here on no arrival is missed.
                arrived.as_mut().enable();
                {
                    let mut table = self.table();
                    let taken = table.take(file);
                    if taken.is_some() || table.closed {
                        return taken;
                    }
                }
                arrived.await;
            }
        }
        .boxed()
    }
}

/// A descriptor that the table keeps open, counted for the whole process: many connections, each within its bound, must not use
/// up the process's descriptors either.
struct Kept(#[expect(dead_code, reason = "held for its drop")] Arc<OwnedFd>);

static KEPT: AtomicUsize = AtomicUsize::new(0);

/// Half of what the process may open.
static MOST: LazyLock<usize> = LazyLock::new(|| {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit / 2).unwrap_or(usize::MAX)
});

impl Kept {
    fn new(file: Arc<OwnedFd>) -> Self {
        KEPT.fetch_add(1, Ordering::Relaxed);
        Self(file)
    }

    fn too_many() -> bool {
        KEPT.load(Ordering::Relaxed) > *MOST
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.table();
        write!(f, "Port({} to send, {} came)", table.outgoing.len(), table.incoming.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (OwnedFd, FileId) {
        let file: OwnedFd = std::io::pipe().unwrap().1.into();
        let stat = rustix::fs::fstat(&file).unwrap();
        (file, FileId { device: stat.st_dev, inode: stat.st_ino })
    }

    fn again(file: &OwnedFd) -> std::iter::Once<OwnedFd> {
        std::iter::once(file.try_clone().unwrap())
    }

    #[test]
    fn what_nobody_takes_pushes_out_the_oldest() {
        let port = Port::default();
        let ids: Vec<_> = (0..MOST_KEPT + 10)
            .map(|_| {
                let (file, id) = file();
                port.arrive(std::iter::once(file));
                id
            })
            .collect();
        assert_eq!(port.table().incoming.len(), MOST_KEPT);
        let there: Vec<_> = ids.iter().map(|id| port.take(*id).is_some()).collect();
        assert!(there[..10].iter().all(|there| !there) && there[10..].iter().all(|there| *there));
    }

    #[test]
    fn each_call_that_brought_a_file_may_take_it_and_then_it_goes() {
        let port = Port::default();
        let (file, id) = file();
        port.arrive(again(&file));
        port.arrive(again(&file));
        let first = port.take(id).unwrap();
        let number = Arc::as_ptr(&first);
        // It may be over before the second begins.
        drop(first);
        let second = port.take(id).unwrap();
        assert_eq!(Arc::as_ptr(&second), number, "one descriptor for both");
        // A peer that sends once and names it twice.
        assert!(port.take(id).is_some());
        drop(second);
        assert!(port.take(id).is_none());
        port.arrive(again(&file));
        assert!(port.take(id).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_takes_nothing_from_other_calls_and_leaves_nothing() {
        let port = Arc::new(Port::default());
        let (file, id) = file();
        // Two connections of one file: one closes, with or without a descriptor, while the other is asked for.
        port.arrive(again(&file));
        Arc::clone(&port).release(id);
        assert!(port.take(id).is_some());
        port.arrive(again(&file));
        port.arrive(again(&file));
        Arc::clone(&port).release(id);
        tokio::time::sleep(GRACE / 2).await;
        assert!(port.take(id).is_some());
        tokio::time::sleep(GRACE).await;
        assert!(port.take(id).is_none());
        // One that came later is not its business.
        port.arrive(again(&file));
        Arc::clone(&port).release(id);
        port.arrive(again(&file));
        tokio::time::sleep(GRACE * 2).await;
        assert!(port.take(id).is_some());
    }

    #[test]
    fn a_peer_that_does_not_read_cannot_make_the_queue_grow() {
        let port = Port::default();
        let file = Arc::new(file().0);
        for _ in 0..MOST_WAITING {
            port.send(&[Arc::clone(&file)]).unwrap();
        }
        assert_eq!(port.send(&[Arc::clone(&file)]), Err(Congested { waiting: MOST_WAITING }));
        while port.outgoing().is_some() {
            port.sent();
        }
        port.send(&[file]).unwrap();
    }

    #[test]
    fn a_connection_without_descriptors_pays_next_to_nothing() {
        assert!(size_of::<Port>() <= 128, "{} octets", size_of::<Port>());
    }
}
