//! What can go wrong, in words that say what to do about it.

use std::io;

use crate::protocol::Mode;

/// Short for a result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an interface could not be made, or is no more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that cannot be.
    #[error("memif setting {setting}: {reason}")]
    InvalidConfig {
        /// Which.
        setting: &'static str,
        /// What is wrong, and what may be.
        reason: String,
    },

    /// The socket's address is too long for the kernel, or none.
    #[error(
        "memif socket {address}: {source}; an address has at most 107 octets: use a shorter path, or an abstract name"
    )]
    InvalidAddress {
        /// As it was given.
        address: String,
        /// The system's answer.
        source: io::Error,
    },

    /// Somebody listens there already.
    #[error("memif socket {address} is in use by another process; stop it, or choose another address")]
    AddressInUse {
        /// The address.
        address: String,
    },

    /// The number is taken on this socket.
    #[error("memif interface {id} is open on this socket already; choose another number")]
    IdInUse {
        /// The number.
        id: u32,
    },

    /// Nobody listens there.
    #[error(
        "memif socket {address}: {source}; is the server running, and in this network namespace if the name is abstract?"
    )]
    Unreachable {
        /// The address.
        address: String,
        /// The system's answer.
        source: io::Error,
    },

    /// The peer said no before the interface was up.
    #[error("the memif peer refused: {reason:?}")]
    Refused {
        /// What it says.
        reason: String,
    },

    /// The peer speaks no version that is spoken here.
    #[error("the memif peer speaks version {min}.{} to {max}.{}, here it is 2.0", min_minor, max_minor)]
    Version {
        /// Major number of its oldest version.
        min: u8,
        /// Minor number of its oldest version.
        min_minor: u8,
        /// Major number of its newest version.
        max: u8,
        /// Minor number of its newest version.
        max_minor: u8,
    },

    /// The peer wants another mode.
    #[error("the memif peer wants {theirs:?} mode, here it is {ours:?}; configure both ends alike")]
    ModeMismatch {
        /// Of this side.
        ours: Mode,
        /// Of the peer.
        theirs: Mode,
    },

    /// The peer's secret is not ours.
    #[error("the memif peer has {}; configure the same at both ends", if *.given { "another secret" } else { "no secret" })]
    WrongSecret {
        /// Whether it gave any.
        given: bool,
    },

    /// The peer did not say what it had to in time.
    #[error(
        "the memif peer said nothing for {millis} ms while {waiting_for} was awaited; it hangs, or is no memif peer"
    )]
    TimedOut {
        /// What was awaited.
        waiting_for: &'static str,
        /// For how long.
        millis: u128,
    },

    /// The client made no queue for it.
    #[error("the memif client made no queue to {verb} by; it says how many there are")]
    NoQueue {
        /// What was to be done.
        verb: &'static str,
    },

    /// A packet that the interface cannot carry.
    #[error("a packet of {length} octets: this interface takes 1 to {max}")]
    PacketLength {
        /// Its length.
        length: usize,
        /// The longest possible.
        max: usize,
    },

    /// The peer broke the protocol. The interface is closed.
    #[error("the memif peer broke the protocol: {0}")]
    Violation(#[from] Violation),

    /// The interface is no more.
    #[error("the memif interface is closed: {0}")]
    Closed(Closed),

    /// The system refused a step.
    #[error("{operation}: {source}")]
    System {
        /// The step.
        operation: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn system(operation: &'static str, source: impl Into<io::Error>) -> Self {
        Self::System { operation, source: source.into() }
    }
}

/// Why an interface is no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Closed {
    /// The peer took its leave.
    #[error("the peer disconnected: {0:?}")]
    ByPeer(String),
    /// The peer's process ended, or closed its socket without a word.
    #[error("the peer is gone")]
    PeerGone,
    /// It was closed here.
    #[error("it was closed on this side")]
    ByUs,
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Violation(Violation),
}

/// How a peer broke the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A control message that is none.
    #[error("a control message of {0}")]
    Message(String),
    /// A control message out of turn.
    #[error("{got} where {expected} was expected")]
    OutOfTurn {
        /// What came.
        got: &'static str,
        /// What should have.
        expected: &'static str,
    },
    /// A region that must not be mapped.
    #[error("region {index}: {reason}")]
    Region {
        /// Its number.
        index: u16,
        /// What is wrong with it.
        reason: String,
    },
    /// A ring that cannot be.
    #[error("ring {index}: {reason}")]
    Ring {
        /// Its number among those of its direction.
        index: u16,
        /// What is wrong with it.
        reason: String,
    },
    /// The peer's index moved further than the ring is long.
    #[error("an index of ring {ring} moved by {distance} where {possible} is possible")]
    RingIndex {
        /// The ring.
        ring: u16,
        /// How far.
        distance: u16,
        /// How far it may.
        possible: u16,
    },
    /// A buffer that is not within its region, or within none.
    #[error(
        "a buffer of ring {ring} at {offset} in region {region}, {length} octets long, is not in the shared memory"
    )]
    Buffer {
        /// The ring.
        ring: u16,
        /// The region it names.
        region: u16,
        /// Where it begins there.
        offset: u32,
        /// How long it says it is.
        length: u32,
    },
    /// A chain of buffers that does not end, or is longer than a packet can be.
    #[error("a chain of buffers in ring {ring} that is longer than a packet, or has no end")]
    Chain {
        /// The ring.
        ring: u16,
    },
}
