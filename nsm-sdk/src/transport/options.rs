use std::sync::Arc;
use std::time::Duration;

use super::sockets::{CurrentNamespace, SocketFactory};

/// How a socket is listened on.
#[derive(Debug, Clone)]
pub struct BindOptions {
    /// Makes the TCP sockets; by default in the network namespace of the process.
    pub sockets: Arc<dyn SocketFactory>,
    /// Mode of a unix socket's file. The reference's 0777 by default: identity is checked by TLS, not by file rights.
    pub unix_mode: u32,
}

impl Default for BindOptions {
    fn default() -> Self {
        Self { sockets: Arc::new(CurrentNamespace), unix_mode: 0o777 }
    }
}

/// How links are opened and kept.
#[derive(Debug, Clone)]
pub struct DialOptions {
    /// Makes the TCP connections; by default in the network namespace of the process.
    pub sockets: Arc<dyn SocketFactory>,
    /// The longest time from the first packet to a link that is ready for calls.
    pub timeout: Duration,
    /// How long a link that nobody holds stays open.
    pub idle: Duration,
    /// Pings on a silent link; none by default, as in the reference.
    pub keep_alive: Option<KeepAlive>,
}

impl Default for DialOptions {
    fn default() -> Self {
        Self {
            sockets: Arc::new(CurrentNamespace),
            timeout: Duration::from_secs(15),
            idle: Duration::from_secs(30),
            keep_alive: None,
        }
    }
}

/// How a server treats its connections.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// A peer that has not finished its TLS handshake by then is dropped.
    pub handshake_timeout: Duration,
    /// How many handshakes may be under way at once; further peers wait in the system's queue.
    pub handshakes: usize,
    /// How long a shutdown waits for calls in flight.
    pub grace: Duration,
    /// Pings on a silent connection.
    pub keep_alive: Option<KeepAlive>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            handshakes: 256,
            grace: Duration::from_secs(10),
            keep_alive: None,
        }
    }
}

/// HTTP/2 pings (RFC 9113 §6.7) that find out whether the other end is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// A ping after this much silence.
    pub interval: Duration,
    /// Without an answer for this long the connection is dead.
    pub timeout: Duration,
}

/// Window of one stream: a Find of some thousand endpoints without a pause.
pub(super) const STREAM_WINDOW: u32 = 1 << 20;
/// Window of all streams of a connection together.
pub(super) const CONNECTION_WINDOW: u32 = 8 << 20;
/// Bound of a call's headers, in bytes; a registry path of a dozen tokens fits well.
pub(super) const HEADERS: u32 = 64 << 10;
/// Calls and streams at once on one connection. The reference sets no bound.
pub(super) const STREAMS: u32 = 1 << 20;
