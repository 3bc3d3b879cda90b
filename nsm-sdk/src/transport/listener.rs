use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{TcpListener, UnixListener, UnixStream};

use super::memory::MemoryListener;
use super::{Address, BindOptions, RawStream, TransportError};

/// A socket that is listened on. Dropping it closes the socket and removes its file.
#[derive(Debug)]
pub struct Listener {
    address: Address,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixListener, #[expect(dead_code, reason = "held for its drop")] SocketFile),
    Tcp(TcpListener),
    Memory(MemoryListener),
}

impl Listener {
    /// Listens on `address`.
    ///
    /// A unix socket's directory is made if missing; a socket file that nobody listens on any more is replaced, any other file is
    /// left alone.
    ///
    /// # Errors
    /// [`TransportError::AddressInUse`], [`TransportError::Bind`], or [`TransportError::NotFound`] for a host name without address.
    pub async fn bind(address: &Address, options: &BindOptions) -> Result<Self, TransportError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => TransportError::AddressInUse { address: address.clone() },
            _ => TransportError::Bind { address: address.clone(), source: Arc::new(error) },
        };
        match address {
            Address::Unix(path) => {
                let (listener, file) = unix(path, options.unix_mode).await.map_err(failed)?;
                Ok(Self { address: address.clone(), socket: Socket::Unix(listener, file) })
            }
            Address::Tcp { host, port } => {
                let listener = tcp(host, *port, options).await.map_err(failed)?;
                let port = listener.local_addr().map_err(failed)?.port();
                let address = Address::Tcp { host: host.clone(), port };
                Ok(Self { address, socket: Socket::Tcp(listener) })
            }
            Address::Memory(name) => {
                let listener = MemoryListener::bind(name).map_err(failed)?;
                Ok(Self { address: address.clone(), socket: Socket::Memory(listener) })
            }
            Address::Held(_) => Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it can only be dialled"))),
        }
    }

    /// Where it listens: the port is the real one, also if any was asked for.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The next connection. Cancel-safe.
    ///
    /// # Errors
    /// What the system says; the listener stays usable (a peer was gone already, descriptors ran out for now).
    pub async fn accept(&mut self) -> io::Result<RawStream> {
        match &mut self.socket {
            Socket::Unix(listener, _) => listener.accept().await.map(|(stream, _)| RawStream::unix(stream)),
            Socket::Tcp(listener) => RawStream::tcp(listener.accept().await?.0),
            Socket::Memory(listener) => listener.accept().await.map(RawStream::Memory),
        }
    }
}

async fn unix(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path).await => {
            fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    let file = SocketFile::new(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok((listener, file))
}

/// A socket file whose listener is gone: its process was killed.
async fn is_stale(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).await.is_err_and(refused)
}

async fn tcp(host: &str, port: u16, options: &BindOptions) -> io::Result<TcpListener> {
    let listener = if host.is_empty() {
        // Both families where there is IPv6.
        let six = options.sockets.tcp_listener(SocketAddr::from(([0_u16; 8], port)));
        six.or_else(|_| options.sockets.tcp_listener(SocketAddr::from(([0_u8; 4], port))))?
    } else {
        let found = tokio::net::lookup_host((host, port)).await?.next();
        options.sockets.tcp_listener(found.ok_or(io::ErrorKind::AddrNotAvailable)?)?
    };
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Removes the file on drop, unless a successor has put its own in the place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let inode = inode(&path)?;
        Ok(Self { path, inode })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|found| found == self.inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket file");
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}
