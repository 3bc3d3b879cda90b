//! The control messages of memif 2.0.
//!
//! As `src/plugins/memif/memif.h` of VPP 21.06 defines them, and `drivers/net/memif/memif.h` of DPDK: each message is one
//! packet of 128 octets on a unix socket of type `SOCK_SEQPACKET`, packed, in the byte order of the machine. The first two
//! octets say its type; what a type does not use is zero. At most one descriptor goes with a message (`SCM_RIGHTS`): the
//! memory with ADD_REGION, the eventfd with ADD_RING.
//!
//! | from | to | message | is answered by |
//! |---|---|---|---|
//! | server | client | HELLO: limits | INIT |
//! | client | server | INIT: which interface, mode, secret | ACK |
//! | client | server | ADD_REGION: memory, once for each region | ACK |
//! | client | server | ADD_RING: a ring in that memory, once for each | ACK |
//! | client | server | CONNECT: nothing follows | CONNECTED |
//! | either | other | DISCONNECT: why | nothing: both close |
//!
//! Older text says master and slave where this says server and client.

use crate::Violation;

/// Length of every message, in octets.
pub const MESSAGE_LENGTH: usize = 128;
/// Version 2.0, the only one there is here: the major number in the high octet.
pub const VERSION: u16 = 0x0200;
/// What a ring begins with.
pub const COOKIE: u32 = 0x03e3_1f20;

/// What the packets of an interface begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// An Ethernet header.
    #[default]
    Ethernet,
    /// An IPv4 or IPv6 header.
    Ip,
}

/// Which way a ring carries packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the server (S2M in older text).
    ToServer,
    /// From the server to the client (M2S).
    ToClient,
}

/// One control message.
///
/// ```
/// use nsm_memif::protocol::Message;
///
/// let message = Message::Disconnect { code: 0, reason: "the workload ended".to_owned() };
/// assert_eq!(Message::decode(&message.encode())?, message);
/// # Ok::<(), nsm_memif::Violation>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The last message was taken.
    Ack,
    /// The server's limits.
    Hello(Hello),
    /// Which interface the client wants.
    Init(Init),
    /// Memory; its descriptor goes with it.
    AddRegion {
        /// Number of the region: they are added in order, from 0.
        index: u16,
        /// Its size in octets.
        size: u64,
    },
    /// A ring in that memory; its eventfd goes with it.
    AddRing(AddRing),
    /// The client has said everything.
    Connect {
        /// The client's name of the interface.
        interface: String,
    },
    /// The server is ready.
    Connected {
        /// The server's name of the interface.
        interface: String,
    },
    /// It is over.
    Disconnect {
        /// A number that nobody defines; 0.
        code: u32,
        /// Why, for people.
        reason: String,
    },
}

/// A server's limits. Those of rings and regions are the highest number, not the count.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the protocol's own")]
pub struct Hello {
    pub name: String,
    pub min_version: u16,
    pub max_version: u16,
    pub max_region: u16,
    pub max_ring_to_client: u16,
    pub max_ring_to_server: u16,
    pub max_log2_ring_size: u8,
}

/// What a client asks for.
#[derive(Clone, PartialEq, Eq)]
pub struct Init {
    /// [`VERSION`].
    pub version: u16,
    /// Number of the interface on this socket.
    pub id: u32,
    /// What its packets begin with.
    pub mode: Mode,
    /// The secret, followed by zeros; all zeros without one.
    pub secret: [u8; 24],
    /// Name of the client's program.
    pub name: String,
}

/// The secret is not for logs.
impl std::fmt::Debug for Init {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { version, id, mode, name, .. } = self;
        let fields = ("version", "id", "mode", "name");
        f.debug_struct("Init")
            .field(fields.0, version)
            .field(fields.1, id)
            .field(fields.2, mode)
            .field(fields.3, name)
            .finish_non_exhaustive()
    }
}

/// Where a ring is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddRing {
    /// Which way it carries packets.
    pub direction: Direction,
    /// Number of the ring among those of its direction: they are added in order, from 0.
    pub index: u16,
    /// The region it is in.
    pub region: u16,
    /// Where it begins there, in octets.
    pub offset: u32,
    /// Its number of descriptors is two to the power of this.
    pub log2_size: u8,
    /// Octets of private data before each packet; 0.
    pub private_header: u16,
}

impl Message {
    /// The message as it is sent. Texts that are too long are cut.
    #[must_use]
    pub fn encode(&self) -> [u8; MESSAGE_LENGTH] {
        let mut to = Writer { message: [0; MESSAGE_LENGTH], at: 0 };
        to.put(&self.kind().to_ne_bytes());
        match self {
            Self::Ack => {}
            Self::Hello(hello) => {
                to.text::<32>(&hello.name);
                for number in [
                    hello.min_version,
                    hello.max_version,
                    hello.max_region,
                    hello.max_ring_to_client,
                    hello.max_ring_to_server,
                ] {
                    to.put(&number.to_ne_bytes());
                }
                to.put(&[hello.max_log2_ring_size]);
            }
            Self::Init(init) => {
                to.put(&init.version.to_ne_bytes());
                to.put(&init.id.to_ne_bytes());
                to.put(&[match init.mode {
                    Mode::Ethernet => 0,
                    Mode::Ip => 1,
                }]);
                to.put(&init.secret);
                to.text::<32>(&init.name);
            }
            Self::AddRegion { index, size } => {
                to.put(&index.to_ne_bytes());
                to.put(&size.to_ne_bytes());
            }
            Self::AddRing(ring) => {
                to.put(&u16::from(ring.direction == Direction::ToServer).to_ne_bytes());
                to.put(&ring.index.to_ne_bytes());
                to.put(&ring.region.to_ne_bytes());
                to.put(&ring.offset.to_ne_bytes());
                to.put(&[ring.log2_size]);
                to.put(&ring.private_header.to_ne_bytes());
            }
            Self::Connect { interface } | Self::Connected { interface } => to.text::<32>(interface),
            Self::Disconnect { code, reason } => {
                to.put(&code.to_ne_bytes());
                to.text::<96>(reason);
            }
        }
        to.message
    }

    /// Reads a message. Texts that are not UTF-8 are repaired: they are for people only.
    ///
    /// # Errors
    /// [`Violation::Message`] if it is none.
    pub fn decode(message: &[u8; MESSAGE_LENGTH]) -> Result<Self, Violation> {
        let mut from = Reader { message, at: 0 };
        let kind = u16::from_ne_bytes(from.take());
        Ok(match kind {
            1 => Self::Ack,
            2 => Self::Hello(Hello {
                name: from.text::<32>(),
                min_version: from.number(),
                max_version: from.number(),
                max_region: from.number(),
                max_ring_to_client: from.number(),
                max_ring_to_server: from.number(),
                max_log2_ring_size: u8::from_ne_bytes(from.take()),
            }),
            3 => Self::Init(Init {
                version: from.number(),
                id: u32::from_ne_bytes(from.take()),
                mode: match u8::from_ne_bytes(from.take()) {
                    0 => Mode::Ethernet,
                    1 => Mode::Ip,
                    other => {
                        return Err(Violation::Message(format!(
                            "INIT of mode {other}, which is neither Ethernet nor IP"
                        )));
                    }
                },
                secret: from.take(),
                name: from.text::<32>(),
            }),
            4 => Self::AddRegion { index: from.number(), size: u64::from_ne_bytes(from.take()) },
            5 => Self::AddRing(AddRing {
                direction: if from.number() & 1 == 1 { Direction::ToServer } else { Direction::ToClient },
                index: from.number(),
                region: from.number(),
                offset: u32::from_ne_bytes(from.take()),
                log2_size: u8::from_ne_bytes(from.take()),
                private_header: from.number(),
            }),
            6 => Self::Connect { interface: from.text::<32>() },
            7 => Self::Connected { interface: from.text::<32>() },
            8 => Self::Disconnect { code: u32::from_ne_bytes(from.take()), reason: from.text::<96>() },
            other => return Err(Violation::Message(format!("type {other}, which version 2.0 does not have"))),
        })
    }

    /// The name in the protocol's text.
    #[must_use]
    pub fn name(&self) -> &'static str {
        ["ACK", "HELLO", "INIT", "ADD_REGION", "ADD_RING", "CONNECT", "CONNECTED", "DISCONNECT"]
            [usize::from(self.kind() - 1)]
    }

    fn kind(&self) -> u16 {
        match self {
            Self::Ack => 1,
            Self::Hello(_) => 2,
            Self::Init(_) => 3,
            Self::AddRegion { .. } => 4,
            Self::AddRing(_) => 5,
            Self::Connect { .. } => 6,
            Self::Connected { .. } => 7,
            Self::Disconnect { .. } => 8,
        }
    }
}

/// Fields are written one after the other; no message is longer than it may be.
struct Writer {
    message: [u8; MESSAGE_LENGTH],
    at: usize,
}

impl Writer {
    fn put(&mut self, bytes: &[u8]) {
        self.message[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    /// A text and at least one zero behind it, `N` octets together; cut between characters.
    fn text<const N: usize>(&mut self, text: &str) {
        let end = (0..N).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        let mut field = [0; N];
        let text = text.get(..end).unwrap_or(text).as_bytes();
        field[..text.len()].copy_from_slice(text);
        self.put(&field);
    }
}

struct Reader<'a> {
    message: &'a [u8; MESSAGE_LENGTH],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(&self.message[self.at..self.at + N]);
        self.at += N;
        field
    }

    fn number(&mut self) -> u16 {
        u16::from_ne_bytes(self.take())
    }

    fn text<const N: usize>(&mut self) -> String {
        let field: [u8; N] = self.take();
        let text = field.split(|octet| *octet == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_where_the_header_file_has_them() {
        let ring = AddRing {
            direction: Direction::ToServer,
            index: 0x0201,
            region: 0x0403,
            offset: 0x0807_0605,
            log2_size: 9,
            private_header: 0x0b0a,
        };
        let expected: Vec<u8> = [5u16, 1, 0x0201, 0x0403].iter().flat_map(|number| number.to_ne_bytes()).collect();
        let encoded = Message::AddRing(ring).encode();
        assert_eq!(encoded[..8], expected);
        assert_eq!((&encoded[8..12], encoded[12]), (&0x0807_0605u32.to_ne_bytes()[..], 9));
        assert_eq!(encoded[13..15], 0x0b0au16.to_ne_bytes());

        let init = Init { version: VERSION, id: 7, mode: Mode::Ip, secret: [b's'; 24], name: "n".repeat(40) };
        let encoded = Message::Init(init).encode();
        assert_eq!((&encoded[4..8], encoded[8]), (&7u32.to_ne_bytes()[..], 1));
        assert_eq!((&encoded[9..33], &encoded[33..64]), (&[b's'; 24][..], &[b'n'; 31][..]));
        assert_eq!(encoded[64..], [0; 64]);
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_and_read_again_as_the_same(kind in 0u16..10, rest: [[u8; 18]; 7]) {
            let mut message = [0; MESSAGE_LENGTH];
            message[..2].copy_from_slice(&kind.to_ne_bytes());
            message[2..].copy_from_slice(rest.as_flattened());
            if let Ok(read) = Message::decode(&message) {
                let again = Message::decode(&read.encode()).unwrap();
                // A repaired text may be longer than what it repairs, and is cut then.
                prop_assert_eq!(again.encode(), Message::decode(&again.encode()).unwrap().encode());
                prop_assert_eq!(again.name(), read.name());
            }
        }
    }
}
