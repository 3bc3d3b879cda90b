use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};

use crate::{Error, Result};

/// Where a memif server listens.
///
/// ```
/// use nsm_memif::Address;
///
/// assert_eq!(Address::from("/run/vpp/memif.sock").to_string(), "/run/vpp/memif.sock");
/// // Of the network namespace of whoever binds it.
/// assert_eq!(Address::abstract_name("memif-1").to_string(), "@memif-1");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A socket in the file system.
    Path(PathBuf),
    /// A socket in the abstract name space, which each network namespace has for itself.
    Abstract(OsString),
}

impl Address {
    /// A name in the abstract name space, without the `@` that stands before it in text.
    pub fn abstract_name(name: impl Into<OsString>) -> Self {
        Self::Abstract(name.into())
    }

    /// Listens there. A file that nobody listens at any more is replaced.
    pub(crate) fn listen(&self) -> Result<OwnedFd> {
        let socket = socket()?;
        let address = self.resolve()?;
        match bind(&socket, &address) {
            Err(rustix::io::Errno::ADDRINUSE) if self.is_stale(&address) => {
                self.remove();
                bind(&socket, &address)
            }
            other => other,
        }
        .map_err(|error| match error {
            rustix::io::Errno::ADDRINUSE => Error::AddressInUse { address: self.to_string() },
            other => Error::system("bind a memif socket", other),
        })?;
        listen(&socket, 64).map_err(|error| Error::system("listen at a memif socket", error))?;
        Ok(socket)
    }

    /// Connects to whoever listens there; `None` while its queue is full.
    pub(crate) fn connect(&self) -> Result<Option<OwnedFd>> {
        let socket = socket()?;
        match connect(&socket, &self.resolve()?) {
            Ok(()) => Ok(Some(socket)),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(Error::Unreachable { address: self.to_string(), source: error.into() }),
        }
    }

    /// Removes the file, if it is one.
    pub(crate) fn remove(&self) {
        if let Self::Path(path) = self {
            let _may_be_gone = std::fs::remove_file(path);
        }
    }

    fn is_stale(&self, address: &SocketAddrUnix) -> bool {
        let refused = || Some(connect(&socket().ok()?, address) == Err(rustix::io::Errno::CONNREFUSED));
        matches!(self, Self::Path(_)) && refused() == Some(true)
    }

    fn resolve(&self) -> Result<SocketAddrUnix> {
        match self {
            Self::Path(path) => SocketAddrUnix::new(path),
            Self::Abstract(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()),
        }
        .map_err(|source| Error::InvalidAddress { address: self.to_string(), source: io::Error::from(source) })
    }
}

impl From<&str> for Address {
    /// A path.
    fn from(path: &str) -> Self {
        Self::Path(path.into())
    }
}

impl From<&Path> for Address {
    fn from(path: &Path) -> Self {
        Self::Path(path.into())
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Abstract(name) => write!(f, "@{}", name.display()),
        }
    }
}

fn socket() -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(|error| Error::system("open a unix socket", error))
}
