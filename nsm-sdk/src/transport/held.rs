use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use nsm_chain::FileId;

/// A unix socket that this process reaches by descriptor: its file may be in a mount namespace of others.
///
/// While one is held, the address `inode://<device>/<inode>` leads there. Unlike a path through `/proc/self/fd` that name never comes
/// to mean another socket, so what is kept by address (a pooled connection, say) stays right.
#[derive(Clone)]
pub struct HeldSocket {
    id: FileId,
    file: Arc<OwnedFd>,
}

static HELD: LazyLock<Mutex<HashMap<FileId, Weak<OwnedFd>>>> = LazyLock::new(Mutex::default);

impl HeldSocket {
    /// Holds the socket with this identity by this descriptor, or by one that is held of it already.
    #[must_use]
    pub fn hold(id: FileId, file: Arc<OwnedFd>) -> Self {
        let mut table = table();
        let known = table.get(&id).and_then(Weak::upgrade);
        let file = known.unwrap_or_else(|| {
            table.retain(|_, file| file.strong_count() > 0);
            table.insert(id, Arc::downgrade(&file));
            file
        });
        Self { id, file }
    }

    /// The one with this identity, if it is held.
    #[must_use]
    pub fn get(id: FileId) -> Option<Self> {
        let file = table().get(&id).and_then(Weak::upgrade)?;
        Some(Self { id, file })
    }

    /// Which it is.
    #[must_use]
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Its descriptor, to pass it on.
    #[must_use]
    pub fn file(&self) -> &Arc<OwnedFd> {
        &self.file
    }

    /// Where it can be connected to, as long as this lives.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }
}

fn table() -> MutexGuard<'static, HashMap<FileId, Weak<OwnedFd>>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for HeldSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeldSocket({})", self.id)
    }
}
