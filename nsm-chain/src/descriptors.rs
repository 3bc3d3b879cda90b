//! File descriptors that travel beside calls.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use futures::future::BoxFuture;

/// Which file a descriptor is of: what messages name it by (`inode://<device>/<inode>`) while the descriptor travels beside them.
///
/// It means the same in every process of a machine, and stays true as long as anybody has the file open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino` on that device.
    pub inode: u64,
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inode://{}/{}", self.device, self.inode)
    }
}

/// The descriptors of one link, in both directions. A transport that passes them puts this into its [`LinkInfo`](crate::LinkInfo).
pub trait Descriptors: fmt::Debug + Send + Sync + 'static {
    /// Sends these before whatever is written next.
    ///
    /// # Errors
    /// [`Congested`], if the peer does not take what was sent before.
    fn send(&self, files: &[Arc<OwnedFd>]) -> Result<(), Congested>;

    /// Takes a descriptor if it has come. One that came several times can be taken as often, and after that as long as another
    /// taker keeps it.
    fn take(&self, file: FileId) -> Option<Arc<OwnedFd>>;

    /// A connection that had this file has ended: what its Close brought of it is closed soon. Not at once, and not counted as taken:
    /// it may as well be another call's, and a Close may come without.
    fn release(self: Arc<Self>, file: FileId);

    /// As [`take`](Self::take), and waits for it; none: the link ended first. Cancel-safe.
    fn receive(&self, file: FileId) -> BoxFuture<'_, Option<Arc<OwnedFd>>>;
}

/// More descriptors wait to be sent on one link than any honest peer lets pile up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{waiting} descriptors wait on this link already; the peer does not read")]
pub struct Congested {
    /// How many.
    pub waiting: usize,
}

/// A fact: descriptors that must travel with this call. An element leaves it; the link that the call goes out on sends them
/// before the call, again if it has to send the call again.
#[derive(Debug, Clone)]
pub struct SendBeside(
    /// In the order of sending.
    pub Arc<[Arc<OwnedFd>]>,
);
