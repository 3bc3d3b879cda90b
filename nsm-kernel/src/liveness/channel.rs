//! One ICMP socket and the requests that wait on it.

use std::{
    collections::HashMap,
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::{
    libc,
    sys::socket::{
        AddressFamily, ControlMessage, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recvfrom, sendmsg,
        socket,
    },
};
use tokio::{io::Interest, net::UdpSocket, sync::Notify, time::Instant};

use super::{
    ProbePair,
    packet::{Echo, LENGTH},
};
use crate::{Error, Netns, Result};

/// Requests that may wait at once on one socket.
const WAITING: usize = 16_384;
/// Requests sent between two looks at the answers: they come at once on one machine, and the socket's receive
/// buffer (212992 bytes by default) holds only some 130.
const UNREAD: usize = 64;

#[derive(Debug)]
pub(super) struct Channel {
    // An ICMP datagram socket; to the runtime all datagram sockets are alike.
    socket: UdpSocket,
    v4: bool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    by_sequence: HashMap<u16, Slot>,
    sequence: u16,
    nonce: u64,
}

#[derive(Debug)]
struct Slot {
    dst: IpAddr,
    nonce: u64,
    sent: Instant,
    answered: Option<Duration>,
    notify: Arc<Notify>,
}

impl Channel {
    pub(super) async fn open(netns: &Netns, v4: bool) -> Result<Self> {
        let socket = netns.run(move || icmp_socket(v4)).await?;
        let socket =
            UdpSocket::from_std(socket).map_err(|e| Error::os("register an ICMP socket with the runtime", e))?;
        Ok(Self { socket, v4, waiting: Mutex::default() })
    }

    /// Sends a request for each pair and waits until all are answered or `deadline`.
    pub(super) async fn round(&self, pairs: &[ProbePair], deadline: Instant) -> Result<Vec<Result<Option<Duration>>>> {
        let notify = Arc::new(Notify::new());
        let mut round = Round { channel: self, asked: Vec::with_capacity(pairs.len()) };
        for (position, pair) in pairs.iter().enumerate() {
            let asked = self.ask(*pair, &notify).await;
            round.asked.push(asked);
            if position % UNREAD == UNREAD - 1 {
                self.read_available()?;
            }
        }
        loop {
            // Taken before looking, so that no answer between looking and waiting is missed.
            let answered = notify.notified();
            if !round.is_waiting() {
                break;
            }
            tokio::select! {
                () = answered => {}
                result = self.read() => result?,
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        Ok(round.outcomes())
    }

    async fn ask(&self, pair: ProbePair, notify: &Arc<Notify>) -> Result<u16> {
        let echo = self.waiting().take(pair.dst, notify)?;
        let message = echo.request(self.v4);
        let sent = self.socket.async_io(Interest::WRITABLE, || send(&self.socket, pair, &message)).await;
        if let Err(error) = sent {
            self.waiting().by_sequence.remove(&echo.sequence);
            return Err(Error::os(format!("ping {} from {}", pair.dst, pair.src), error));
        }
        Ok(echo.sequence)
    }

    /// Waits for packets and hands all that are there to whom they concern.
    async fn read(&self) -> Result<()> {
        self.socket.readable().await.map_err(|e| Error::os("read an ICMP socket", e))?;
        self.drain(|| self.socket.try_io(Interest::READABLE, || receive(&self.socket, self.v4)))
    }

    /// As [`read`](Self::read) without waiting, and without asking the runtime, which learns of packets only
    /// when this task yields.
    fn read_available(&self) -> Result<()> {
        self.drain(|| receive(&self.socket, self.v4))
    }

    fn drain(&self, receive: impl Fn() -> io::Result<Option<(Echo, IpAddr)>>) -> Result<()> {
        loop {
            match receive() {
                Ok(Some((echo, from))) => self.waiting().answer(echo, from),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(Error::os("read an ICMP socket", error)),
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn take(&mut self, dst: IpAddr, notify: &Arc<Notify>) -> Result<Echo> {
        if self.by_sequence.len() >= WAITING {
            let busy = io::Error::from_raw_os_error(libc::ENOBUFS);
            return Err(Error::os(format!("ping {dst}: {WAITING} requests are waiting"), busy));
        }
        // Ends, since fewer than 65536 are taken.
        loop {
            self.sequence = self.sequence.wrapping_add(1);
            if !self.by_sequence.contains_key(&self.sequence) {
                break;
            }
        }
        self.nonce = self.nonce.wrapping_add(1);
        let echo = Echo { sequence: self.sequence, nonce: self.nonce };
        let slot = Slot { dst, nonce: self.nonce, sent: Instant::now(), answered: None, notify: Arc::clone(notify) };
        self.by_sequence.insert(self.sequence, slot);
        Ok(echo)
    }

    fn answer(&mut self, echo: Echo, from: IpAddr) {
        if let Some(slot) = self.by_sequence.get_mut(&echo.sequence)
            && slot.nonce == echo.nonce
            && slot.dst == from
            && slot.answered.is_none()
        {
            slot.answered = Some(slot.sent.elapsed());
            slot.notify.notify_one();
        }
    }
}

/// The requests of one round; gives their sequence numbers back when dropped.
struct Round<'a> {
    channel: &'a Channel,
    asked: Vec<Result<u16>>,
}

impl Round<'_> {
    fn is_waiting(&self) -> bool {
        let waiting = self.channel.waiting();
        let mut slots = self.asked.iter().flatten().filter_map(|seq| waiting.by_sequence.get(seq));
        slots.any(|slot| slot.answered.is_none())
    }

    fn outcomes(mut self) -> Vec<Result<Option<Duration>>> {
        let asked = std::mem::take(&mut self.asked);
        let mut waiting = self.channel.waiting();
        let mut outcome = |sequence| waiting.by_sequence.remove(&sequence).and_then(|slot| slot.answered);
        asked.into_iter().map(|asked| asked.map(&mut outcome)).collect()
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        let mut waiting = self.channel.waiting();
        for sequence in self.asked.iter().flatten() {
            waiting.by_sequence.remove(sequence);
        }
    }
}

fn icmp_socket(v4: bool) -> io::Result<std::net::UdpSocket> {
    let (family, protocol) =
        if v4 { (AddressFamily::Inet, SockProtocol::Icmp) } else { (AddressFamily::Inet6, SockProtocol::IcmpV6) };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(family, SockType::Datagram, flags, protocol)?.into())
}

/// One packet; `None` if it is not an echo reply.
fn receive(socket: &UdpSocket, v4: bool) -> io::Result<Option<(Echo, IpAddr)>> {
    // One byte more than an answer has: longer messages are none of ours.
    let mut message = [0; LENGTH + 1];
    let (length, from) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), &mut message)?;
    let from = from.and_then(|from| {
        let v4 = from.as_sockaddr_in().map(|from| IpAddr::V4(from.ip()));
        v4.or_else(|| from.as_sockaddr_in6().map(|from| IpAddr::V6(from.ip())))
    });
    let echo = message.get(..length).and_then(|message| Echo::reply(message, v4));
    Ok(echo.zip(from))
}

fn send(socket: &UdpSocket, pair: ProbePair, message: &[u8]) -> io::Result<()> {
    let to = SockaddrStorage::from(SocketAddr::new(pair.dst, 0));
    let fd = socket.as_raw_fd();
    let message = [IoSlice::new(message)];
    let flags = MsgFlags::empty();
    match pair.src {
        src if src.is_unspecified() => sendmsg(fd, &message, &[], flags, Some(&to)),
        IpAddr::V4(src) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from(src).to_be() },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            sendmsg(fd, &message, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&to))
        }
        IpAddr::V6(src) => {
            let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: src.octets() }, ipi6_ifindex: 0 };
            sendmsg(fd, &message, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&to))
        }
    }?;
    Ok(())
}
