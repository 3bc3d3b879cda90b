use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::Stream;

/// Tells when the first bytes have come from the peer, or why none did.
///
/// In TLS 1.3 the dialling side is done before the peer has judged its certificate: only the peer's first bytes, or its alert,
/// say whether the link stands.
#[derive(Debug)]
pub(super) struct Witness {
    stream: Stream,
    first: Option<oneshot::Sender<io::Result<()>>>,
}

impl Witness {
    pub(super) fn new(stream: Stream) -> (Self, oneshot::Receiver<io::Result<()>>) {
        let (first, told) = oneshot::channel();
        (Self { stream, first: Some(first) }, told)
    }
}

impl AsyncRead for Witness {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        let Some(first) = self.first.take() else {
            return Poll::Ready(read);
        };
        let (told, read) = match read {
            Ok(()) => (first_bytes(buf.filled().get(before..).unwrap_or_default()), Ok(())),
            Err(error) => {
                let kind = error.kind();
                (Err(error), Err(kind.into()))
            }
        };
        // Nobody waits any more if the dial timed out.
        drop(first.send(told));
        Poll::Ready(read)
    }
}

impl AsyncWrite for Witness {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
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

/// The first frame of a server is SETTINGS (RFC 9113 §3.4). Its length takes three bytes and is small, so the first of them is zero;
/// a TLS record or text is told by that.
fn first_bytes(bytes: &[u8]) -> io::Result<()> {
    match bytes.first() {
        Some(0) => Ok(()),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak HTTP/2 here")),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
