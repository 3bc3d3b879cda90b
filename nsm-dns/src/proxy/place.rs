//! Where sockets are opened.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use nsm_kernel::Netns;
use tokio::net::TcpSocket;

/// The network namespace in which a proxy listens and from which it asks.
#[derive(Debug, Clone, Default)]
pub enum Place {
    /// That of the process.
    #[default]
    Here,
    /// Another one. It lives at least as long as the proxy.
    In(Netns),
}

/// How often a port that is free for UDP is looked for until it is free for TCP too.
const TRIES: usize = 16;

impl Place {
    async fn open<T: Send + 'static>(&self, open: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        match self {
            Self::Here => open(),
            Self::In(netns) => netns.run(open).await.map_err(io::Error::other),
        }
    }

    /// Sockets that listen there, both on one port.
    pub(crate) async fn listeners(
        &self,
        at: SocketAddr,
    ) -> io::Result<(tokio::net::UdpSocket, tokio::net::TcpListener)> {
        let (udp, tcp) = self.open(move || both(at)).await?;
        Ok((tokio::net::UdpSocket::from_std(udp)?, tokio::net::TcpListener::from_std(tcp)?))
    }

    /// A socket from a port of the kernel's choice, which takes datagrams of this server only.
    pub(crate) async fn datagrams(&self, server: SocketAddr) -> io::Result<tokio::net::UdpSocket> {
        let opened = move || {
            let any: IpAddr =
                if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(server)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        tokio::net::UdpSocket::from_std(self.open(opened).await?)
    }

    /// A stream to this server.
    pub(crate) async fn stream(&self, server: SocketAddr) -> io::Result<tokio::net::TcpStream> {
        let opened = move || if server.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        self.open(opened).await?.connect(server).await
    }
}

fn both(at: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    for left in (0..TRIES).rev() {
        let udp = UdpSocket::bind(at)?;
        match TcpListener::bind(udp.local_addr()?) {
            Ok(tcp) => {
                udp.set_nonblocking(true)?;
                tcp.set_nonblocking(true)?;
                return Ok((udp, tcp));
            }
            Err(error) if at.port() != 0 || left == 0 => return Err(error),
            // Somebody has that port for TCP: another one.
            Err(_) => {}
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}
