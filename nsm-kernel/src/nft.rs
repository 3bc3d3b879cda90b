//! As much of nf_tables as is needed to lead packets to another port, and to translate addresses
//! (`linux/netfilter/nf_tables.h`).

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::{
    socket::{setsockopt, sockopt},
    time::TimeVal,
};

use crate::{Error, Result, rtnl::parse};

/// Of which packets a table is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Family {
    Any = 0,
    /// IPv4 and IPv6.
    Inet = 1,
    Ipv4 = 2,
}

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// What a table, a chain or a rule is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    NewTable = 0,
    GetTable = 1,
    DelTable = 2,
    NewChain = 3,
    NewRule = 6,
    GetRule = 7,
}

/// The kernel answers before it returns from the request; one that never does must not hold a thread.
const SILENCE: TimeVal = TimeVal::new(10, 0);

/// Attributes, one after the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(((value.len() + 4) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    pub(crate) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    pub(crate) fn nested(self, kind: u16, value: &Self) -> Self {
        const NESTED: u16 = 0x8000;
        self.bytes(kind | NESTED, &value.0)
    }
}

/// A socket to nf_tables of the namespace in which it was opened.
pub(crate) struct Nft {
    socket: Socket,
    sequence: u32,
    family: Family,
}

/// A transaction is one datagram.
const DATAGRAM: usize = 1 << 20;

impl Nft {
    pub(crate) fn open() -> Result<Self> {
        Self::of(Family::Inet)
    }

    /// One to tables of this family.
    pub(crate) fn of(family: Family) -> Result<Self> {
        let opened = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_cap_ack(true)?;
            socket.set_ext_ack(true)?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &SILENCE)?;
            setsockopt(&socket, sockopt::SndBuf, &DATAGRAM)?;
            Ok(socket)
        };
        let socket = opened().map_err(|e| Error::os("open a netlink socket to nf_tables", e))?;
        Ok(Self { socket, sequence: 0, family })
    }

    /// Asks for all of it, or nothing. `what` says in words what it is for.
    pub(crate) fn commit(&mut self, what: &str, requests: &[(Kind, Attributes)]) -> Result<()> {
        let mut datagram = Vec::new();
        let family = self.family;
        self.message(&mut datagram, BATCH_BEGIN, REQUEST, (Family::Any, SUBSYSTEM), &Attributes::default());
        let first = self.sequence;
        for (at, (kind, attributes)) in requests.iter().enumerate() {
            // Errors are told of each; that all is well, only with the last: so many answers might find no room.
            let ack = if at + 1 == requests.len() { ACK } else { 0 };
            let flags = match kind {
                Kind::NewTable | Kind::NewChain => CREATE,
                Kind::NewRule => CREATE | APPEND,
                Kind::DelTable | Kind::GetTable | Kind::GetRule => 0,
            };
            self.message(&mut datagram, of_subsystem(*kind), REQUEST | ack | flags, (family, 0), attributes);
        }
        let last = self.sequence;
        self.message(&mut datagram, BATCH_END, REQUEST, (Family::Any, SUBSYSTEM), &Attributes::default());
        let failed = |e| Error::os(what, e);
        self.socket.send(&datagram, 0).map_err(failed)?;
        loop {
            let buffer = self.receive().map_err(failed)?;
            for reply in parse::messages(&buffer) {
                match reply.acknowledgement() {
                    Some(Ok(())) if (first..=last).contains(&reply.sequence) => return Ok(()),
                    Some(Err((errno, detail))) => {
                        return Err(Error::kernel(what.to_owned(), io::Error::from_raw_os_error(errno), detail));
                    }
                    _ => {}
                }
            }
        }
    }

    /// The names of all tables, of whatever family.
    pub(crate) fn tables(&mut self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        self.query(Family::Any, (Kind::GetTable, true), &Attributes::default(), |reply| names.extend(reply.text(1)))?;
        Ok(names)
    }

    /// Has each object read that is there: all of a kind, or the one that the attributes name.
    pub(crate) fn ask(
        &mut self,
        what: (Kind, bool),
        attributes: &Attributes,
        read: impl FnMut(&Found<'_, '_>),
    ) -> Result<()> {
        self.query(self.family, what, attributes, read)
    }

    fn query(
        &mut self,
        family: Family,
        (kind, all): (Kind, bool),
        attributes: &Attributes,
        mut read: impl FnMut(&Found<'_, '_>),
    ) -> Result<()> {
        let failed = |e| Error::os("list what nf_tables has", e);
        let mut datagram = Vec::new();
        let flags = REQUEST | if all { DUMP } else { ACK };
        self.message(&mut datagram, of_subsystem(kind), flags, (family, 0), attributes);
        self.socket.send(&datagram, 0).map_err(failed)?;
        loop {
            let buffer = self.receive().map_err(failed)?;
            for reply in parse::messages(&buffer) {
                match reply.acknowledgement() {
                    Some(Ok(())) => return Ok(()),
                    Some(Err((errno, _))) => return Err(failed(io::Error::from_raw_os_error(errno))),
                    None => read(&Found(&reply)),
                }
            }
        }
    }

    fn message(
        &mut self,
        datagram: &mut Vec<u8>,
        kind: u16,
        flags: u16,
        (family, resource): (Family, u16),
        attributes: &Attributes,
    ) {
        self.sequence += 1;
        datagram.extend(((16 + 4 + attributes.0.len()) as u32).to_ne_bytes());
        datagram.extend(kind.to_ne_bytes());
        datagram.extend(flags.to_ne_bytes());
        datagram.extend(self.sequence.to_ne_bytes());
        datagram.extend(0u32.to_ne_bytes());
        datagram.extend([family as u8, 0]);
        datagram.extend(resource.to_be_bytes());
        datagram.extend(&attributes.0);
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = Vec::with_capacity(32 * 1024);
        loop {
            match self.socket.recv(&mut buffer, 0) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(|_| buffer),
            }
        }
    }
}

fn of_subsystem(kind: Kind) -> u16 {
    (SUBSYSTEM << 8) | kind as u16
}

/// An object that nf_tables has.
pub(crate) struct Found<'a, 'b>(&'a parse::Reply<'b>);

impl Found<'_, '_> {
    /// An attribute; they stand behind the header of nfnetlink.
    pub(crate) fn bytes(&self, kind: u16) -> Option<&[u8]> {
        self.0.attribute(4, kind)
    }

    /// An attribute that is a text.
    pub(crate) fn text(&self, kind: u16) -> Option<String> {
        let text = self.bytes(kind)?.split(|octet| *octet == 0).next().unwrap_or_default();
        Some(String::from_utf8_lossy(text).into_owned())
    }
}
