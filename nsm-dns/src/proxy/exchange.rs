//! One question to one server.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;

use super::counters::{Counted, Counters};
use super::place::Place;
use super::question::Question;

/// After how long without an answer it is asked again over UDP, each time; after the last it is given up.
const PATIENCE: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(2)];

/// More than we say that we take, in octets: not every server listens.
const BUFFER: usize = 4096;

/// Sockets by which servers are asked at the same time: the process has other uses for its descriptors. More wait.
pub(super) const MOST_SOCKETS: usize = 256;

/// Asks servers from one place.
#[derive(Debug)]
pub(super) struct Asking {
    place: Place,
    pub(super) counters: Counters,
    sockets: Semaphore,
    /// From where we ask at this moment: a question from there is our own.
    from: Mutex<HashSet<SocketAddr>>,
}

/// Why a server says nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Silence {
    #[error("it does not answer")]
    Late,
    #[error("{0}")]
    Unreachable(#[from] io::Error),
    #[error("its answer over TCP is not one to the question")]
    Stray,
}

impl Asking {
    pub(super) fn from(place: Place) -> Self {
        let sockets = Semaphore::new(MOST_SOCKETS);
        Self { place, counters: Counters::default(), sockets, from: Mutex::default() }
    }

    /// Whether it is from there that we ask.
    pub(super) fn is_ours(&self, from: SocketAddr) -> bool {
        self.from.lock().unwrap_or_else(PoisonError::into_inner).contains(&from)
    }

    /// By how many sockets servers are being asked.
    #[cfg(test)]
    pub(super) fn sockets(&self) -> usize {
        self.from.lock().unwrap().len()
    }

    /// What this server says.
    pub(super) async fn ask(&self, server: SocketAddr, question: &Question) -> Result<Message, Silence> {
        let answer = self.exchange(server, question, question.has_edns()).await?;
        let puzzled = matches!(answer.metadata.response_code, ResponseCode::FormErr | ResponseCode::NotImp);
        if question.has_edns() && puzzled {
            // It may be too old for EDNS (RFC 6891, 6.2.2).
            return self.exchange(server, question, false).await;
        }
        Ok(answer)
    }

    async fn exchange(&self, server: SocketAddr, question: &Question, edns: bool) -> Result<Message, Silence> {
        let message = question.message(edns);
        let octets = message.to_vec().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let id = message.metadata.id;
        // An error would say that it was closed, which it never is.
        let _socket = self.sockets.acquire().await;
        let answer = self.by_datagram(server, question, id, &octets).await?;
        if answer.metadata.truncation {
            self.counters.count(Counted::Stream);
            return self.by_stream(server, question, id, &octets).await;
        }
        Ok(answer)
    }

    async fn by_datagram(
        &self,
        server: SocketAddr,
        question: &Question,
        id: u16,
        octets: &[u8],
    ) -> Result<Message, Silence> {
        let socket = self.place.datagrams(server).await?;
        let _ours = Ours::noted(&self.from, socket.local_addr()?);
        for patience in PATIENCE {
            socket.send(octets).await?;
            // An answer to the first try, come late, is as good: it is the same socket and the same id.
            if let Ok(answer) = tokio::time::timeout(patience, self.answer(&socket, question, id)).await {
                return Ok(answer?);
            }
        }
        Err(Silence::Late)
    }

    /// The first datagram that answers; others are passed over.
    async fn answer(&self, socket: &UdpSocket, question: &Question, id: u16) -> io::Result<Message> {
        let mut buffer = [0; BUFFER];
        loop {
            let length = socket.recv(&mut buffer).await?;
            let octets = buffer.get(..length).unwrap_or_default();
            match Message::from_vec(octets) {
                Ok(answer) if question.is_answered_by(&answer, id) => return Ok(answer),
                _ => self.counters.count(Counted::Stray),
            }
        }
    }

    async fn by_stream(
        &self,
        server: SocketAddr,
        question: &Question,
        id: u16,
        octets: &[u8],
    ) -> Result<Message, Silence> {
        let mut stream = self.place.stream(server).await?;
        let _ours = Ours::noted(&self.from, stream.local_addr()?);
        stream.write_all(&framed(octets)?).await?;
        let mut buffer = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut buffer).await?;
        let answer = Message::from_vec(&buffer).ok().filter(|answer| question.is_answered_by(answer, id));
        answer.ok_or_else(|| {
            self.counters.count(Counted::Stray);
            Silence::Stray
        })
    }
}

/// A message as it goes over TCP: after its length (RFC 1035, 4.2.2).
pub(super) fn framed(octets: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(octets.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok([&length.to_be_bytes(), octets].concat())
}

/// An address from which we ask, while we do.
struct Ours<'a> {
    all: &'a Mutex<HashSet<SocketAddr>>,
    address: SocketAddr,
}

impl<'a> Ours<'a> {
    fn noted(all: &'a Mutex<HashSet<SocketAddr>>, address: SocketAddr) -> Self {
        all.lock().unwrap_or_else(PoisonError::into_inner).insert(address);
        Self { all, address }
    }
}

impl Drop for Ours<'_> {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.address);
    }
}
