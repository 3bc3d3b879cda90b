use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nsm_chain::{Descriptors, LinkInfo, Peer, Tokens};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, Interest, ReadBuf};
use tokio::net::unix::UCred;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

use super::port::Port;

/// Bytes between two roles, below TLS.
///
/// Every unix stream of the transport, dialled or accepted, passes through [`RawStream::unix`]: there file descriptors travel beside
/// the bytes.
#[derive(Debug)]
pub enum RawStream {
    /// Over a unix socket.
    Unix(UnixLink),
    /// Over TCP.
    Tcp(TcpStream),
    /// Inside the process.
    Memory(DuplexStream),
}

/// Bytes between two roles, as gRPC reads and writes them.
#[derive(Debug)]
pub enum Stream {
    /// Without TLS.
    Plain(RawStream),
    /// Under mutual TLS.
    Tls(Box<TlsStream<RawStream>>),
}

/// A unix socket with descriptors beside its bytes.
#[derive(Debug)]
pub struct UnixLink {
    stream: UnixStream,
    port: Arc<Port>,
}

impl Stream {
    /// What can be said of the link between these two by how its bytes travel.
    pub(super) fn link(&self, peer: Option<Arc<Peer>>, shown: Option<Arc<dyn Tokens>>) -> LinkInfo {
        let raw = match self {
            Self::Plain(raw) => raw,
            Self::Tls(tls) => tls.get_ref().0,
        };
        let descriptors = match raw {
            RawStream::Unix(link) => Some(Arc::clone(&link.port) as Arc<dyn Descriptors>),
            RawStream::Tcp(_) | RawStream::Memory(_) => None,
        };
        LinkInfo { peer, shown, descriptors, in_process: matches!(raw, RawStream::Memory(_)) }
    }
}

impl RawStream {
    /// A unix stream.
    #[must_use]
    pub fn unix(stream: UnixStream) -> Self {
        Self::Unix(UnixLink { stream, port: Arc::default() })
    }

    /// A TCP stream, without Nagle's delay.
    ///
    /// # Errors
    /// What the system says, for a connection that is gone already.
    pub fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }
}

/// Passes each call on to the variant at hand.
macro_rules! each {
    ($self:ident, $($variant:ident)|+, $stream:ident => $call:expr) => {
        match $self.get_mut() { $(Self::$variant($stream) => $call),+ }
    };
}

macro_rules! bytes {
    ($type:ident: $($variant:ident)|+) => {
        impl AsyncWrite for $type {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                each!(self, $($variant)|+, stream => Pin::new(stream).poll_write(cx, buf))
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                each!(self, $($variant)|+, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
            }

            fn is_write_vectored(&self) -> bool {
                match self { $(Self::$variant(stream) => stream.is_write_vectored()),+ }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                each!(self, $($variant)|+, stream => Pin::new(stream).poll_flush(cx))
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                each!(self, $($variant)|+, stream => Pin::new(stream).poll_shutdown(cx))
            }
        }
    };
}

bytes!(RawStream: Unix | Tcp | Memory);
bytes!(Stream: Plain | Tls);

impl AsyncRead for RawStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(link) => link.poll_read(cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Memory(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, Plain | Tls, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl UnixLink {
    /// The process at the other end, as the system has it (unix(7), `SO_PEERCRED`).
    ///
    /// # Errors
    /// What the system says, for a connection that is gone already.
    pub fn peer_cred(&self) -> io::Result<UCred> {
        self.stream.peer_cred()
    }

    /// Reads what is there, and knows when that was all.
    ///
    /// tokio's own `poll_read` takes a read that does not fill the buffer for a sign that the socket is drained, and waits for
    /// new data. A unix socket also ends a read where a descriptor came along (unix(7), `SCM_RIGHTS`), with more data behind
    /// it. `recvmsg` tells the two apart.
    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let unfilled = buf.initialize_unfilled();
            let room = unfilled.len();
            let mut read = None;
            let outcome = self.stream.try_io(Interest::READABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_AT_ONCE))];
                // What is not taken out of it is closed.
                let mut beside = RecvAncillaryBuffer::new(&mut space);
                let into = &mut [IoSliceMut::new(unfilled)];
                let message = recvmsg(&self.stream, into, &mut beside, RecvFlags::CMSG_CLOEXEC)?;
                read = Some(message.bytes);
                // More than there was room for: the system has closed the rest.
                let mut came_along = message.flags.contains(ReturnFlags::CTRUNC);
                for message in beside.drain() {
                    came_along = true;
                    if let RecvAncillaryMessage::ScmRights(files) = message {
                        self.port.arrive(files);
                    }
                }
                let drained = (1..room).contains(&message.bytes) && !came_along;
                // Not an error: so tokio waits for new data before the next read.
                if drained { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match (read, outcome) {
                (Some(bytes), _) => {
                    buf.advance(bytes);
                    return Poll::Ready(Ok(()));
                }
                (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
                (None, _) => {}
            }
        }
    }

    /// Sends one descriptor, if one waits, on the first byte of what is to be written. The writer comes again for the rest.
    fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<Option<usize>>> {
        while let Some(first) = bytes.get(..1) {
            let Some(file) = self.port.outgoing() else {
                break;
            };
            ready!(self.stream.poll_write_ready(cx))?;
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                let (files, mut space) = ([file.as_fd()], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))]);
                let mut beside = SendAncillaryBuffer::new(&mut space);
                beside.push(SendAncillaryMessage::ScmRights(&files));
                Ok(sendmsg(&self.stream, &[IoSlice::new(first)], &mut beside, SendFlags::NOSIGNAL)?)
            });
            match sent {
                Ok(sent) => {
                    self.port.sent();
                    return Poll::Ready(Ok(Some(sent)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // If it is the stream that is broken, the write that follows tells.
                Err(error) => {
                    tracing::warn!(%error, "a descriptor cannot be sent");
                    self.port.sent();
                }
            }
        }
        Poll::Ready(Ok(None))
    }
}

impl AsyncWrite for UnixLink {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let link = self.get_mut();
        match ready!(link.poll_send(cx, buf))? {
            Some(sent) => Poll::Ready(Ok(sent)),
            None => Pin::new(&mut link.stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let link = self.get_mut();
        let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
        match ready!(link.poll_send(cx, first))? {
            Some(sent) => Poll::Ready(Ok(sent)),
            None => Pin::new(&mut link.stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for UnixLink {
    fn drop(&mut self) {
        self.port.close();
    }
}

/// The reference sends at most so many with one write.
const MOST_AT_ONCE: usize = 64;

#[cfg(test)]
mod tests;
