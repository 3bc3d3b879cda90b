//! Files by descriptor: network namespaces and sockets of other processes.
//!
//! A path means nothing in another mount namespace. So between processes a message names a file by device and inode
//! (`inode://<device>/<inode>`), and its descriptor travels beside the message, on the same unix socket (the reference does it by
//! grpcfd). Inside a process the descriptor has a path again, `/proc/<pid>/fd/<n>`.
//!
//! | element | towards | request | answer |
//! |---|---|---|---|
//! | [`SendFd`] | the next hop | sends ours | takes the next hop's |
//! | [`RecvFd`] | the caller | takes the caller's | sends ours |
//!
//! For sockets of endpoints the registry has the same two: [`registry::SendFd`](crate::registry::SendFd),
//! [`registry::RecvFd`](crate::registry::RecvFd).

mod files;
mod recv_fd;
mod send_fd;

pub use recv_fd::RecvFd;
pub use send_fd::SendFd;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nsm_chain::{Error, FileId, LinkInfo, Result};
use rustix::fs::{Mode, OFlags};

/// A descriptor was announced and did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing came within {:?}", ARRIVAL)]
pub struct NeverArrived {
    /// Which.
    pub file: FileId,
}

/// How long a descriptor may come after the message that names it. It is sent before the message, so this is long; to wait as long
/// as the caller does would only hide from it why it waits.
const ARRIVAL: Duration = Duration::from_secs(5);

/// Opens a file just to name it and to pass it on (`O_PATH`): that neither blocks nor has effects, whatever it is.
pub(crate) fn open(path: &Path) -> io::Result<(FileId, Arc<OwnedFd>)> {
    let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    Ok((FileId { device: stat.st_dev, inode: stat.st_ino }, Arc::new(file)))
}

/// The descriptor of a file that the other end of this link names.
pub(crate) async fn receive(link: &LinkInfo, file: FileId) -> Result<Arc<OwnedFd>> {
    let Some(port) = &link.descriptors else {
        return Err(Error::invalid(format!("{file} is named by its descriptor, and none can come over this link"))
            .hint("descriptors pass over unix sockets only"));
    };
    match tokio::time::timeout(ARRIVAL, port.receive(file)).await {
        Ok(Some(descriptor)) => Ok(descriptor),
        Ok(None) => Err(Error::unavailable(format!("the link ended before the descriptor of {file} came"))
            .because(NeverArrived { file })),
        Err(_) => Err(Error::precondition(format!("the descriptor of {file} never arrived"))
            .because(NeverArrived { file })
            .hint("its sender must send it on this connection, before the message (SendFd; grpcfd in Go), with no proxy between")),
    }
}

#[cfg(test)]
mod tests;
