use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
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

    /// A socket connected to whoever listens there, for [`Memif::connect_on`](crate::Memif::connect_on): so that one thread
    /// can connect in another network namespace, say. Does not wait.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if nobody listens there, or its queue is full (`EAGAIN`).
    pub fn dial(&self) -> Result<OwnedFd> {
        let (socket, resolved) = (socket()?, self.resolve()?);
        match connect(&socket, &resolved.address) {
            Ok(()) => Ok(socket),
            Err(error) => Err(Error::Unreachable { address: self.to_string(), source: error.into() }),
        }
    }

    /// Listens there. A file that nobody listens at any more is replaced.
    pub(crate) fn listen(&self) -> Result<OwnedFd> {
        let (socket, resolved) = (socket()?, self.resolve()?);
        match bind(&socket, &resolved.address) {
            Err(rustix::io::Errno::ADDRINUSE) if self.is_stale(&resolved.address) => {
                self.remove();
                bind(&socket, &resolved.address)
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

    /// What the kernel takes. A path longer than its 107 octets leads through a descriptor of the directory.
    fn resolve(&self) -> Result<Resolved> {
        let resolved = match self {
            Self::Path(path) => match (SocketAddrUnix::new(path), path.parent(), path.file_name()) {
                (Err(rustix::io::Errno::NAMETOOLONG), Some(directory), Some(name)) => through(directory, name),
                (address, ..) => address.map(|address| Resolved { address, _directory: None }),
            },
            Self::Abstract(name) => {
                SocketAddrUnix::new_abstract_name(name.as_bytes()).map(|address| Resolved { address, _directory: None })
            }
        };
        resolved.map_err(|source| Error::InvalidAddress { address: self.to_string(), source: io::Error::from(source) })
    }
}

/// An address as the kernel takes it.
struct Resolved {
    address: SocketAddrUnix,
    /// Open as long as the address is used.
    _directory: Option<OwnedFd>,
}

fn through(directory: &Path, name: &OsStr) -> rustix::io::Result<Resolved> {
    let directory = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok(Resolved { address: SocketAddrUnix::new(path)?, _directory: Some(directory) })
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
