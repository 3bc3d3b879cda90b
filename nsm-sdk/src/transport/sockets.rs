use std::fmt;
use std::io;
use std::net::SocketAddr;

use futures::future::{BoxFuture, FutureExt};
use tokio::net::TcpStream;

/// Makes TCP sockets: the seam for those that belong to another network namespace.
///
/// A socket belongs to the namespace of the thread that creates it, and works from any thread then. Unix sockets are files and need
/// no such seam.
pub trait SocketFactory: fmt::Debug + Send + Sync + 'static {
    /// A socket that listens on `address`.
    ///
    /// # Errors
    /// What the system says.
    fn tcp_listener(&self, address: SocketAddr) -> io::Result<std::net::TcpListener>;

    /// A connection to `address`.
    ///
    /// # Errors
    /// What the system says.
    fn tcp_connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>>;
}

/// Sockets in the network namespace of the process.
#[derive(Debug, Clone, Copy, Default)]
pub struct CurrentNamespace;

impl SocketFactory for CurrentNamespace {
    fn tcp_listener(&self, address: SocketAddr) -> io::Result<std::net::TcpListener> {
        std::net::TcpListener::bind(address)
    }

    fn tcp_connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> {
        TcpStream::connect(address).boxed()
    }
}
