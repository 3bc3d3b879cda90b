//! Sockets of a namespace for the runtime: made inside, used from anywhere.

use std::{io, net::SocketAddr};

use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use crate::{Error, Netns, Result};

impl Netns {
    /// Listens on `address` inside the namespace (port 0: the kernel chooses).
    ///
    /// # Errors
    /// [`Error::Kernel`], such as with `EADDRINUSE` or `EADDRNOTAVAIL`.
    pub async fn tcp_listener(&self, address: SocketAddr) -> Result<TcpListener> {
        let listener = self
            .make("listen on", address, move || {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(listener)
            })
            .await?;
        TcpListener::from_std(listener).map_err(|e| self.failed("listen on", address, e))
    }

    /// Connects from inside the namespace to `address`. No time limit but the kernel's: wrap it in
    /// [`tokio::time::timeout`].
    ///
    /// # Errors
    /// [`Error::Kernel`], such as with `ECONNREFUSED` or `ENETUNREACH`.
    pub async fn tcp_connect(&self, address: SocketAddr) -> Result<TcpStream> {
        let new = if address.is_ipv4() { TcpSocket::new_v4 } else { TcpSocket::new_v6 };
        let socket = self.make("connect to", address, new).await?;
        socket.connect(address).await.map_err(|e| self.failed("connect to", address, e))
    }

    /// A UDP socket bound to `address` inside the namespace (port 0: the kernel chooses).
    ///
    /// # Errors
    /// [`Error::Kernel`], such as with `EADDRINUSE` or `EADDRNOTAVAIL`.
    pub async fn udp_socket(&self, address: SocketAddr) -> Result<UdpSocket> {
        let socket = self
            .make("bind a UDP socket to", address, move || {
                let socket = std::net::UdpSocket::bind(address)?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })
            .await?;
        UdpSocket::from_std(socket).map_err(|e| self.failed("bind a UDP socket to", address, e))
    }

    async fn make<T: Send + 'static>(
        &self,
        step: &'static str,
        address: SocketAddr,
        new: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let netns = self.clone();
        self.run(move || new().map_err(|e| netns.failed(step, address, e))).await
    }

    fn failed(&self, step: &str, address: SocketAddr, error: io::Error) -> Error {
        Error::os(format!("{step} {address} in network namespace {}", self.id()), error)
    }
}
