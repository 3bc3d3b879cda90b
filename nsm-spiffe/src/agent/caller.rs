use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{Stream, stream};
use nsm_sdk::transport::{Listener, RawStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// Who is at the other end of an agent's socket, in the system's words; nothing over TCP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub uid: Option<u32>,
    /// The user's group.
    pub gid: Option<u32>,
    /// The process, as seen from here.
    pub pid: Option<i32>,
}

/// A caller's connection.
pub(super) struct Connection {
    stream: RawStream,
    caller: Caller,
}

/// The connections that come in. One that fails (its peer was gone already) is passed over.
pub(super) fn incoming(listener: Listener) -> impl Stream<Item = io::Result<Connection>> {
    stream::unfold(listener, |mut listener| async move {
        let accepted = listener.accept().await.map(|stream| Connection { caller: Caller::of(&stream), stream });
        Some((accepted, listener))
    })
}

impl Caller {
    fn of(stream: &RawStream) -> Self {
        match stream {
            RawStream::Unix(stream) => stream.peer_cred().map_or_else(
                |_| Self::default(),
                |cred| Self { uid: Some(cred.uid()), gid: Some(cred.gid()), pid: cred.pid() },
            ),
            RawStream::Tcp(_) | RawStream::Memory(_) => Self::default(),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
