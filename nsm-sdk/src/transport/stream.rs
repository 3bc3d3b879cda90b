use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvAncillaryBuffer, RecvFlags, ReturnFlags, recvmsg};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

/// Bytes between two roles, below TLS.
///
/// Every unix stream of the transport, dialled or accepted, passes through [`RawStream::unix`]: the one place where something that
/// travels beside the bytes (file descriptors) has to be put in.
#[derive(Debug)]
pub enum RawStream {
    /// Over a unix socket.
    Unix(UnixStream),
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

impl RawStream {
    /// A unix stream.
    #[must_use]
    pub fn unix(stream: UnixStream) -> Self {
        Self::Unix(stream)
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
            Self::Unix(stream) => read_unix(stream, cx, buf),
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

/// Reads what is there, and knows when that was all.
///
/// tokio's own `poll_read` takes a read that does not fill the buffer for a sign that the socket is drained, and waits for
/// new data. A unix socket also ends a read where a descriptor came along (unix(7), `SCM_RIGHTS`), with more data behind
/// it: the reference sends such, and we would wait for ever. `recvmsg` tells the two apart: it says that it had no room
/// for something that came along.
fn read_unix(stream: &UnixStream, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let unfilled = buf.initialize_unfilled();
        let room = unfilled.len();
        let mut read = None;
        let outcome = stream.try_io(Interest::READABLE, || {
            let mut nothing = RecvAncillaryBuffer::default();
            let message = recvmsg(stream, &mut [IoSliceMut::new(unfilled)], &mut nothing, RecvFlags::empty())?;
            read = Some(message.bytes);
            let drained = (1..room).contains(&message.bytes) && !message.flags.contains(ReturnFlags::CTRUNC);
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::mem::MaybeUninit;
    use std::os::fd::AsFd;
    use std::time::Duration;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn what_comes_behind_a_descriptor_is_read_too() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut ours, theirs) = (RawStream::unix(ours), theirs.into_std().unwrap());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let fds = [theirs.as_fd()];
        for byte in [b"a", b"b"] {
            let mut beside = SendAncillaryBuffer::new(&mut space);
            assert!(beside.push(SendAncillaryMessage::ScmRights(&fds)));
            sendmsg(&theirs, &[IoSlice::new(byte)], &mut beside, SendFlags::empty()).unwrap();
        }
        rustix::io::write(&theirs, b"cd").unwrap();

        let mut read = [0; 4];
        let all = tokio::time::timeout(Duration::from_secs(5), ours.read_exact(&mut read));
        all.await.expect("everything that was sent").unwrap();
        assert_eq!(&read, b"abcd");
    }
}
