use std::io;
use std::net::SocketAddr;

/// What failed, and why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The interface or the socket could not be made.
    #[error(transparent)]
    Kernel(#[from] nsm_kernel::Error),

    /// Not a public key.
    #[error("a text of {length} octets is no WireGuard key; it must be 32 octets in base64, 44 characters")]
    InvalidKey {
        /// Octets of the text; the text itself is not repeated, it may be a secret in the wrong place.
        length: usize,
    },

    /// A public key with which nothing would be secret, for every agreement with it gives zero (RFC 7748, section 6.1).
    #[error("the peer's public key is of low order; it must make a new pair of keys")]
    WeakKey,

    /// The peer has the same key as we.
    #[error("the peer's public key is our own; each end needs a pair of its own")]
    OwnKey,

    /// The peer's address is of another family than the node's socket, or no host's.
    #[error("no tunnel from {local} to {peer}: use addresses of single hosts, of one family, with a port")]
    Unreachable {
        /// The node's.
        local: SocketAddr,
        /// The peer's.
        peer: SocketAddr,
    },

    /// The node has as many tunnels as indices can tell apart.
    #[error("the node has {0} tunnels, the most that it can tell apart; close connections")]
    Exhausted(usize),

    /// The system gives no random numbers.
    #[error("the system gives no random numbers to make a key of")]
    NoRandom,

    /// The node's socket cannot be prepared for WireGuard.
    #[error("the UDP socket {address} cannot be used: {source}")]
    Socket {
        /// Its address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },

    /// The TUN device of an interface cannot be used.
    #[error("the TUN device {name} cannot be opened: {source}; is another process using it?")]
    Device {
        /// The interface's name.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
