//! A synchronous rtnetlink socket.
//!
//! One is opened for each piece of work, in the namespace the worker thread stands in, and closed after it:
//! measured at about 5 µs, so an idle namespace owns neither a socket nor a task. Requests are sent many in
//! one datagram, which the kernel works through in order, acknowledging each.

pub(crate) mod address;
pub(crate) mod describe;
pub(crate) mod filter;
pub(crate) mod link;
pub(crate) mod neighbour;
pub(crate) mod parse;
pub(crate) mod qdisc;
pub(crate) mod redirect;
pub(crate) mod route;
pub(crate) mod rule;
pub(crate) mod stats;

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::{
    libc,
    sys::{
        socket::{setsockopt, sockopt},
        time::TimeVal,
    },
};

use crate::{Error, Result};

/// One change asked of the kernel.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) message: RouteNetlinkMessage,
    flags: u16,
    /// Error numbers that mean the wanted state is there already.
    pub(crate) content_with: &'static [i32],
}

impl Request {
    /// Make it; fail if it is there.
    pub(crate) fn create(message: RouteNetlinkMessage) -> Self {
        Self { message, flags: NLM_F_CREATE | NLM_F_EXCL, content_with: &[] }
    }

    /// Make it beside what is there, before it; content if exactly this is there.
    pub(crate) fn add(message: RouteNetlinkMessage) -> Self {
        Self { message, flags: NLM_F_CREATE, content_with: &[libc::EEXIST] }
    }

    /// Make it or overwrite what is there.
    pub(crate) fn put(message: RouteNetlinkMessage) -> Self {
        Self { message, flags: NLM_F_CREATE | NLM_F_REPLACE, content_with: &[] }
    }

    /// Change what is there.
    pub(crate) fn change(message: RouteNetlinkMessage) -> Self {
        Self { message, flags: 0, content_with: &[] }
    }

    /// Take it away; content if it is gone.
    pub(crate) fn remove(message: RouteNetlinkMessage) -> Self {
        Self { message, flags: 0, content_with: &[libc::ENOENT, libc::ESRCH, libc::ENODEV, libc::EADDRNOTAVAIL] }
    }
}

/// The socket.
#[derive(Debug)]
pub(crate) struct Rtnl {
    socket: Socket,
    sequence: u32,
    sent: usize,
    buffer: Vec<u8>,
}

/// What the kernel has of something.
#[derive(Debug, Default)]
struct List {
    objects: Vec<RouteNetlinkMessage>,
    interrupted: bool,
}

/// Why a question was not answered.
struct Refusal {
    source: io::Error,
    detail: Option<String>,
}

impl Refusal {
    fn is(&self, errnos: &[i32]) -> bool {
        self.source.raw_os_error().is_some_and(|errno| errnos.contains(&errno))
    }

    fn of(self, message: &RouteNetlinkMessage) -> Error {
        Error::kernel(describe::step(message), self.source, self.detail)
    }
}

impl From<io::Error> for Refusal {
    fn from(source: io::Error) -> Self {
        Self { source, detail: None }
    }
}

/// Attempts to get a list during which nothing changed, beyond the first.
const DUMPS: usize = 8;
/// The kernel answers before it returns from the request; one that never does must not hold a thread.
const SILENCE: TimeVal = TimeVal::new(10, 0);
/// Requests in one datagram: their acknowledgements must fit the socket's receive buffer.
const BATCH: usize = 64;
/// The kernel's own upper bound for one datagram of a dump.
const RECEIVE: usize = 32 * 1024;

impl Rtnl {
    /// Opens a socket in the namespace of the calling thread.
    pub(crate) fn open() -> Result<Self> {
        Self::opened().map_err(|e| Error::os("open an rtnetlink socket", e))
    }

    fn opened() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Acknowledgements without a copy of the request, with a text where it failed.
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &SILENCE)?;
        // Dumps honour the filters we give; older kernels than 4.20 do not know it and are filtered here anyway.
        socket.set_netlink_get_strict_chk(true)?;
        Ok(Self { socket, sequence: 0, sent: 0, buffer: Vec::with_capacity(RECEIVE) })
    }

    /// How many changes were asked of the kernel through this socket.
    pub(crate) fn writes(&self) -> usize {
        self.sent
    }

    /// Asks for all changes, in order, and fails with the first that failed. The kernel carries out the
    /// others of the same batch regardless: callers undo or converge.
    pub(crate) fn apply(&mut self, requests: Vec<Request>) -> Result<()> {
        let mut requests = requests;
        while !requests.is_empty() {
            let rest = requests.split_off(requests.len().min(BATCH));
            self.apply_batch(requests)?;
            requests = rest;
        }
        Ok(())
    }

    fn apply_batch(&mut self, requests: Vec<Request>) -> Result<()> {
        let first = self.sequence.wrapping_add(1);
        let count = requests.len();
        let mut datagram = Vec::with_capacity(count * 128);
        let mut judged = Vec::with_capacity(count);
        for request in requests {
            let message = self.encode(&mut datagram, request.message, NLM_F_ACK | request.flags);
            judged.push((message, request.content_with));
        }
        self.sent += count;
        let io = |e| Error::os("talk to the kernel over rtnetlink", e);
        self.send(&datagram).map_err(io)?;

        let mut failure = None;
        let mut answered = 0;
        while answered < count {
            self.receive().map_err(io)?;
            for reply in parse::messages(&self.buffer) {
                let position = reply.sequence.wrapping_sub(first) as usize;
                let Some((message, content_with)) = judged.get(position) else {
                    continue;
                };
                let Some(outcome) = reply.acknowledgement() else {
                    continue;
                };
                answered += 1;
                if let Err((errno, detail)) = outcome
                    && !content_with.contains(&errno)
                    && failure.is_none()
                {
                    let source = io::Error::from_raw_os_error(errno);
                    failure = Some(Error::kernel(describe::step(message), source, detail));
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Asks for one object; `None` if the kernel has none.
    pub(crate) fn get(&mut self, message: RouteNetlinkMessage) -> Result<Option<RouteNetlinkMessage>> {
        let (message, answer) = self.query(message, 0);
        match answer {
            Ok(list) => Ok(list.objects.into_iter().next()),
            Err(refusal) if refusal.is(&[libc::ENODEV, libc::ENOENT]) => Ok(None),
            Err(refusal) => Err(refusal.of(&message)),
        }
    }

    /// Lists objects; again if something changed meanwhile.
    pub(crate) fn dump(&mut self, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
        let (mut message, mut answer) = self.query(message, NLM_F_DUMP);
        for _ in 0..DUMPS {
            if !answer.as_ref().is_ok_and(|list| list.interrupted) {
                break;
            }
            (message, answer) = self.query(message, NLM_F_DUMP);
        }
        match answer {
            Ok(list) => Ok(list.objects),
            // A list of what the kernel has no table or protocol for is an empty one.
            Err(refusal) if refusal.is(&[libc::ENOENT]) => Ok(Vec::new()),
            Err(refusal) => Err(refusal.of(&message)),
        }
    }

    fn query(&mut self, message: RouteNetlinkMessage, flags: u16) -> (RouteNetlinkMessage, Result<List, Refusal>) {
        let mut datagram = Vec::with_capacity(128);
        let message = self.encode(&mut datagram, message, flags);
        (message, self.answer_to(&datagram))
    }

    fn answer_to(&mut self, datagram: &[u8]) -> Result<List, Refusal> {
        self.send(datagram)?;
        let mut list = List::default();
        loop {
            self.receive()?;
            for reply in parse::messages(&self.buffer).filter(|r| r.sequence == self.sequence) {
                list.interrupted |= reply.interrupted;
                match reply.acknowledgement() {
                    Some(Ok(())) => return Ok(list),
                    Some(Err((errno, detail))) => {
                        return Err(Refusal { source: io::Error::from_raw_os_error(errno), detail });
                    }
                    None => {}
                }
                // An object this version cannot read is none of ours: skipped, not fatal.
                match reply.decode() {
                    Ok(object) => list.objects.push(object),
                    Err(error) => tracing::debug!(%error, "skipped an unreadable rtnetlink object"),
                }
                if !reply.multipart {
                    return Ok(list);
                }
            }
        }
    }

    /// Appends the message to `datagram`, numbered, and hands it back for error texts.
    fn encode(&mut self, datagram: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) -> RouteNetlinkMessage {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let start = datagram.len();
        datagram.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut datagram[start..]);
        match message.payload {
            NetlinkPayload::InnerMessage(message) => message,
            _ => unreachable!("made from an inner message above"),
        }
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        loop {
            match self.socket.send(datagram, 0) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(drop),
            }
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(drop),
            }
        }
    }
}
