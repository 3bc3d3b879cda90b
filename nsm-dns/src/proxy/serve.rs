//! Questions come in, answers go out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::counters::Counted;
use super::exchange::framed;
use super::{Inner, Over};

/// Questions over UDP that are answered at the same time.
const MOST_DATAGRAMS: usize = 512;
/// Connections over TCP at the same time.
const MOST_STREAMS: usize = 64;
/// How long a connection may say nothing, or take nothing (RFC 7766, 6.2.3).
const IDLE: Duration = Duration::from_secs(10);
/// After an error of a socket, so that one that stays does not take the processor.
const PAUSE: Duration = Duration::from_millis(100);
/// No question is longer, in octets.
const LONGEST: usize = 4096;

/// Answers what comes over UDP.
pub(super) async fn datagrams(proxy: Arc<Inner>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; LONGEST];
    // Ends with this function, and all tasks in it.
    let mut answering = JoinSet::new();
    loop {
        let (length, from) = tokio::select! {
            Some(_) = answering.join_next() => continue,
            came = socket.recv_from(&mut buffer) => match came {
                Ok(came) => came,
                Err(error) => {
                    tracing::debug!(%error, "DNS over UDP");
                    sleep(PAUSE).await;
                    continue;
                }
            },
        };
        if answering.len() >= MOST_DATAGRAMS {
            proxy.asking.counters.count(Counted::Overload);
            continue;
        }
        let (proxy, socket, octets) = (Arc::clone(&proxy), Arc::clone(&socket), buffer[..length].to_vec());
        answering.spawn(async move {
            if let Some(answer) = proxy.reply(&octets, from, Over::Datagrams).await {
                let _gone_meanwhile = socket.send_to(&answer, from).await;
            }
        });
    }
}

/// Answers what comes over TCP.
pub(super) async fn streams(proxy: Arc<Inner>, listener: TcpListener) {
    let mut answering = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = answering.join_next() => {}
            // Others wait in the kernel's queue.
            came = listener.accept(), if answering.len() < MOST_STREAMS => match came {
                Ok((stream, from)) => {
                    let proxy = Arc::clone(&proxy);
                    answering.spawn(async move { drop(stream_from(&proxy, stream, from).await) });
                }
                Err(error) => {
                    tracing::debug!(%error, "DNS over TCP");
                    sleep(PAUSE).await;
                }
            },
        }
    }
}

/// One question after the other, until the program closes it or says nothing more.
async fn stream_from(proxy: &Inner, mut stream: TcpStream, from: SocketAddr) -> io::Result<()> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    loop {
        let reading = async {
            let mut octets = vec![0; stream.read_u16().await?.into()];
            stream.read_exact(&mut octets).await?;
            io::Result::Ok(octets)
        };
        let octets = timeout(IDLE, reading).await.map_err(late)??;
        let Some(answer) = proxy.reply(&octets, from, Over::Stream).await else { return Ok(()) };
        timeout(IDLE, stream.write_all(&framed(&answer)?)).await.map_err(late)??;
    }
}
