//! Sockets of a namespace for the runtime: made inside, used from anywhere.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use crate::{Error, Netns, Result};

impl Netns {
    /// Listens on `address` inside the namespace (port 0: the kernel chooses).
    ///
    /// # Errors
    /// [`Error::Kernel`], such as with `EADDRINUSE` or `EADDRNOTAVAIL`.
    pub async fn tcp_listener(&self, address: SocketAddr) -> Result<TcpListener> {
        let listener = self
            .run(move || {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                std::io::Result::Ok(listener)
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
        let socket = self
            .run(move || {
                if address.is_ipv4() {
                    TcpSocket::new_v4()
                } else {
                    TcpSocket::new_v6()
                }
            })
            .await?;
        socket
            .connect(address)
            .await
            .map_err(|e| self.failed("connect to", address, e))
    }

    /// A UDP socket bound to `address` inside the namespace (port 0: the kernel chooses).
    ///
    /// # Errors
    /// [`Error::Kernel`], such as with `EADDRINUSE` or `EADDRNOTAVAIL`.
    pub async fn udp_socket(&self, address: SocketAddr) -> Result<UdpSocket> {
        let socket = self
            .run(move || {
                let socket = std::net::UdpSocket::bind(address)?;
                socket.set_nonblocking(true)?;
                std::io::Result::Ok(socket)
            })
            .await?;
        UdpSocket::from_std(socket).map_err(|e| self.failed("open", address, e))
    }

    fn failed(&self, step: &str, address: SocketAddr, error: std::io::Error) -> Error {
        Error::os(
            format!("{step} {address} in network namespace {}", self.id()),
            error,
        )
    }
}
