//! The node's UDP socket: many datagrams a system call, both ways.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;

use nsm_kernel::Netns;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use rustix::net::sockopt::{set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::{Error, Result};

/// Octets that may wait in the kernel each way: some 5 ms of 10 Gbit/s, and two bursts of as many segments as UDP takes at once
/// from each of 32 tunnels.
const BUFFER: usize = 7 << 20;
/// The most that one receive or send can have: an IP packet less its shortest headers (RFC 768, RFC 791).
pub(crate) const LARGEST: usize = 65_535 - 28;

pub(crate) struct Socket {
    socket: UdpSocket,
    offload: UdpSocketState,
    address: SocketAddr,
}

impl Socket {
    pub(crate) async fn bind(netns: &Netns, address: SocketAddr) -> Result<Self> {
        let socket = netns.udp_socket(address).await?;
        let failed = |source| Error::Socket { address, source };
        let offload = UdpSocketState::new((&socket).into()).map_err(failed)?;
        // Without the privilege the system's limits stay.
        for set in [set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force] {
            if let Err(error) = set(&socket, BUFFER) {
                tracing::debug!(%address, %error, "the socket's buffers stay as they are");
            }
        }
        // From here on the runtime knows that there is room, which `try_send` does not wait to learn.
        socket.writable().await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, offload, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many datagrams of one length the kernel takes at once.
    pub(crate) fn segments(&self) -> usize {
        self.offload.max_gso_segments()
    }

    /// Sends these octets, as datagrams of `segment` octets, the last of which may be shorter. Waits while the kernel has no
    /// room.
    pub(crate) async fn send(&self, to: SocketAddr, contents: &[u8], segment: usize) -> io::Result<()> {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents,
            segment_size: (segment < contents.len()).then_some(segment),
            src_ip: None,
        };
        let send = || self.offload.try_send((&self.socket).into(), &transmit);
        self.socket.async_io(Interest::WRITABLE, send).await
    }

    /// Sends one datagram if the kernel has room for it.
    pub(crate) fn try_send(&self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        self.socket.try_send_to(datagram, to).map(drop)
    }

    /// Waits for datagrams.
    pub(crate) async fn receive(&self, into: &mut Inbox) -> io::Result<()> {
        into.received = 0;
        let Inbox { buffers, meta, received } = into;
        let receive = || {
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] = {
                let mut buffers = buffers.iter_mut();
                std::array::from_fn(|_| IoSliceMut::new(buffers.next().map_or(&mut [], |buffer| &mut buffer[..])))
            };
            self.offload.recv((&self.socket).into(), &mut slices, meta)
        };
        *received = self.socket.async_io(Interest::READABLE, receive).await?;
        Ok(())
    }
}

/// What one receive gave.
pub(crate) struct Inbox {
    buffers: Vec<Vec<u8>>,
    meta: [RecvMeta; BATCH_SIZE],
    received: usize,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self {
            buffers: (0..BATCH_SIZE).map(|_| vec![0; LARGEST]).collect(),
            meta: [RecvMeta::default(); BATCH_SIZE],
            received: 0,
        }
    }

    /// Its datagrams by sender, in the order in which they came.
    pub(crate) fn bursts(&self) -> impl Iterator<Item = (SocketAddr, std::slice::Chunks<'_, u8>)> {
        self.buffers.iter().zip(&self.meta).take(self.received).map(|(buffer, meta)| {
            let octets = buffer.get(..meta.len).unwrap_or(buffer);
            (meta.addr, octets.chunks(meta.stride.max(1)))
        })
    }
}
