use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::Stream;

/// The serving side of a connection, which lets the peer hang up first.
///
/// A peer may send calls before it has read that we are leaving (GOAWAY, RFC 9113 §6.8). If the socket were closed at once,
/// its writing would fail before it reads which of its calls we never touched, and it could not send them elsewhere. So
/// what it sends after our goodbye is read and thrown away until it closes, for a while.
#[derive(Debug)]
pub(super) struct Parting {
    stream: Stream,
    /// Set once we have said goodbye.
    until: Option<Pin<Box<Sleep>>>,
}

impl Parting {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, until: None }
    }
}

impl AsyncRead for Parting {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Parting {
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

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let until = match &mut this.until {
            Some(until) => until,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                this.until.insert(Box::pin(tokio::time::sleep(PATIENCE)))
            }
        };
        let mut ignored = [0; 1024];
        while until.as_mut().poll(cx).is_pending() {
            let mut read = ReadBuf::new(&mut ignored);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read)) {
                Ok(()) if !read.filled().is_empty() => {}
                // It has closed, or is gone.
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A peer that has read the goodbye closes at once.
const PATIENCE: Duration = Duration::from_secs(2);
