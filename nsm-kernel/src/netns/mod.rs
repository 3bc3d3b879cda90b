//! Handles of network namespaces.

mod named;
mod open;
mod seen;
mod worker;

use std::{
    collections::HashMap,
    fmt,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak},
};

pub use named::NamedNetns;
pub(crate) use seen::processes;
pub(crate) use worker::{Here, Lane, work, work_or_undo};

use crate::{Error, Result, detour::Detours, liveness::Sockets, policy::Tables};

/// Identity of a network namespace: device and inode number of its nsfs file.
///
/// Unique as long as the namespace lives; any [`Netns`] keeps it alive. It is what `inode://<dev>/<ino>` URLs
/// of the NSM kernel mechanism name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsId {
    /// `st_dev`.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
}

impl fmt::Display for NetnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.dev, self.ino)
    }
}

/// A network namespace, held by descriptor; cloning is cheap.
///
/// All handles of one namespace in a process share one descriptor and one memory of what we made there
/// (policy tables, sysctls), so opening the same namespace for every connection costs no descriptors. The
/// namespace lives at least as long as a handle does.
///
/// ```no_run
/// # async fn example() -> nsm_kernel::Result<()> {
/// let netns = nsm_kernel::Netns::create().await?;
/// // The socket belongs to the namespace for good, wherever it is used.
/// let socket = netns.run(|| std::net::UdpSocket::bind("127.0.0.1:0")).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Netns(Arc<Inner>);

struct Inner {
    id: NetnsId,
    fd: OwnedFd,
    tables: Mutex<Tables>,
    detours: Mutex<Detours>,
    ping_allowed: OnceLock<()>,
    liveness: tokio::sync::Mutex<Weak<Sockets>>,
}

static KNOWN: LazyLock<Mutex<HashMap<NetnsId, Weak<Inner>>>> = LazyLock::new(Mutex::default);

impl Netns {
    /// Makes an empty namespace with its loopback interface up. It ends with the last handle (and the last
    /// process or mount in it).
    ///
    /// # Errors
    /// [`Error::NoPrivileges`] without CAP_SYS_ADMIN.
    pub async fn create() -> Result<Self> {
        work(Lane::Slow, open::create).await
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::NamespaceGone`] when `/proc` is not there.
    pub fn current() -> Result<Self> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// Opens the namespace a path names (`/proc/<pid>/ns/net`, `/proc/<pid>/fd/<n>`, `/run/netns/<name>`).
    ///
    /// The path may come from a peer: whatever it names is looked at without side effects (`O_PATH`) and
    /// opened only when it is a network namespace.
    ///
    /// # Errors
    /// [`Error::NotANetns`] if it is something else, [`Error::NamespaceGone`] if nothing is there.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        open::open(path.as_ref())
    }

    /// Every namespace that can be seen from here, each once, with a path that led there: those named in `/run/netns`, and
    /// those of running processes. It reads a file of each process: not for a thread of the runtime.
    #[must_use]
    pub fn seen() -> Vec<(PathBuf, Self)> {
        seen::seen()
    }

    /// Takes over a descriptor of a namespace, as received over a unix socket.
    ///
    /// # Errors
    /// [`Error::NotANetns`] if it is a descriptor of anything else.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        open::from_fd(fd)
    }

    /// Identity of the namespace.
    pub fn id(&self) -> NetnsId {
        self.0.id
    }

    /// `/proc/<our pid>/fd/<n>`: valid while a handle lives, also for other processes (`nsenter --net=<path>`).
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.fd.as_raw_fd()).into()
    }

    /// Runs `f` inside the namespace, on a thread kept for that (never on one of the runtime's).
    ///
    /// This is how sockets of a namespace are made: a socket stays in the namespace of the thread that created
    /// it. Keep `f` short: a few threads serve the whole process. Once begun, `f` runs to its end even if the
    /// future is dropped; its result is dropped then.
    ///
    /// # Errors
    /// Those of `f`, or [`Error::NoPrivileges`] if we may not enter.
    pub async fn run<T, E, F>(&self, f: F) -> Result<T>
    where
        F: FnOnce() -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Into<Failure> + Send + 'static,
    {
        let netns = self.clone();
        work(Lane::Quick, move |here| {
            here.enter(&netns)?;
            f().map_err(|e| e.into().0)
        })
        .await
    }

    /// As [`run`](Self::run), for threads outside a runtime: waits for the result.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_blocking<T, E, F>(&self, f: F) -> Result<T>
    where
        F: FnOnce() -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Into<Failure> + Send + 'static,
    {
        let netns = self.clone();
        worker::work_blocking(move |here| {
            here.enter(&netns)?;
            f().map_err(|e| e.into().0)
        })
    }

    pub(crate) fn tables(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.0.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn detours(&self) -> std::sync::MutexGuard<'_, Detours> {
        self.0.detours.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Done once for each namespace: lets every group use ICMP datagram sockets there.
    pub(crate) fn allow_ping(&self, here: &mut Here) -> Result<()> {
        if self.0.ping_allowed.get().is_none() {
            here.enter(self)?;
            crate::sysctl::allow_ping()?;
            let _already_set = self.0.ping_allowed.set(());
        }
        Ok(())
    }

    pub(crate) fn liveness(&self) -> &tokio::sync::Mutex<Weak<Sockets>> {
        &self.0.liveness
    }

    /// The shared handle of the namespace `fd` names, made if there is none yet.
    fn interned(id: NetnsId, fd: OwnedFd) -> Self {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inner) = known.get(&id).and_then(Weak::upgrade) {
            return Self(inner);
        }
        let inner = Arc::new(Inner {
            id,
            fd,
            tables: Mutex::default(),
            detours: Mutex::default(),
            ping_allowed: OnceLock::new(),
            liveness: tokio::sync::Mutex::default(),
        });
        known.insert(id, Arc::downgrade(&inner));
        Self(inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        // A new handle of the same namespace may have taken the place since our last reference went.
        if known.get(&self.id).is_some_and(|weak| weak.strong_count() == 0) {
            known.remove(&self.id);
        }
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl PartialEq for Netns {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Netns {}

impl fmt::Debug for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Netns({})", self.id())
    }
}

/// What a closure given to [`Netns::run`] may fail with: an [`Error`] or an [`std::io::Error`].
#[derive(Debug)]
pub struct Failure(Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(Error::os("in the network namespace", error))
    }
}

impl From<std::convert::Infallible> for Failure {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
