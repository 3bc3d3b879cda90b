//! As much of nf_tables as is needed to lead packets to another port (`linux/netfilter/nf_tables.h`).

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::{
    socket::{setsockopt, sockopt},
    time::TimeVal,
};

use crate::{Error, Result, rtnl::parse};

/// The family of tables for IPv4 and IPv6.
const INET: u8 = 1;
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
    DelTable = 2,
    NewChain = 3,
    NewRule = 6,
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
}

impl Nft {
    pub(crate) fn open() -> Result<Self> {
        let opened = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_cap_ack(true)?;
            socket.set_ext_ack(true)?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &SILENCE)?;
            Ok(socket)
        };
        let socket = opened().map_err(|e| Error::os("open a netlink socket to nf_tables", e))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Asks for all of it, or nothing. `what` says in words what it is for.
    pub(crate) fn commit(&mut self, what: &str, requests: &[(Kind, Attributes)]) -> Result<()> {
        let mut datagram = Vec::new();
        self.message(&mut datagram, BATCH_BEGIN, REQUEST, (0, SUBSYSTEM), &Attributes::default());
        for (kind, attributes) in requests {
            let flags = match kind {
                Kind::DelTable => REQUEST | ACK,
                Kind::NewRule => REQUEST | ACK | CREATE | APPEND,
                _ => REQUEST | ACK | CREATE,
            };
            self.message(&mut datagram, (SUBSYSTEM << 8) | *kind as u16, flags, (INET, 0), attributes);
        }
        self.message(&mut datagram, BATCH_END, REQUEST, (0, SUBSYSTEM), &Attributes::default());
        let failed = |e| Error::os(what, e);
        self.socket.send(&datagram, 0).map_err(failed)?;
        let mut answered = 0;
        while answered < requests.len() {
            let buffer = self.receive().map_err(failed)?;
            for reply in parse::messages(&buffer) {
                match reply.acknowledgement() {
                    Some(Ok(())) => answered += 1,
                    Some(Err((errno, detail))) => {
                        return Err(Error::kernel(what.to_owned(), io::Error::from_raw_os_error(errno), detail));
                    }
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// The names of all tables, of whatever family.
    pub(crate) fn tables(&mut self) -> Result<Vec<String>> {
        const GET_TABLE: u16 = (SUBSYSTEM << 8) | 1;
        let failed = |e| Error::os("list the tables of nf_tables", e);
        let mut datagram = Vec::new();
        self.message(&mut datagram, GET_TABLE, REQUEST | DUMP, (0, 0), &Attributes::default());
        self.socket.send(&datagram, 0).map_err(failed)?;
        let mut names = Vec::new();
        loop {
            let buffer = self.receive().map_err(failed)?;
            for reply in parse::messages(&buffer) {
                match reply.acknowledgement() {
                    Some(Ok(())) => return Ok(names),
                    Some(Err((errno, _))) => return Err(failed(io::Error::from_raw_os_error(errno))),
                    // Behind the header of nfnetlink; the name is attribute 1.
                    None => names.extend(reply.attribute(4, 1).map(|name| {
                        let name = name.split(|octet| *octet == 0).next().unwrap_or_default();
                        String::from_utf8_lossy(name).into_owned()
                    })),
                }
            }
        }
    }

    fn message(
        &mut self,
        datagram: &mut Vec<u8>,
        kind: u16,
        flags: u16,
        (family, resource): (u8, u16),
        attributes: &Attributes,
    ) {
        self.sequence += 1;
        datagram.extend(((16 + 4 + attributes.0.len()) as u32).to_ne_bytes());
        datagram.extend(kind.to_ne_bytes());
        datagram.extend(flags.to_ne_bytes());
        datagram.extend(self.sequence.to_ne_bytes());
        datagram.extend(0u32.to_ne_bytes());
        datagram.extend([family, 0]);
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
