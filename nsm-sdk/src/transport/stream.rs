use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
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
        impl AsyncRead for $type {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                each!(self, $($variant)|+, stream => Pin::new(stream).poll_read(cx, buf))
            }
        }

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
