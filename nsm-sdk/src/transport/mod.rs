//! Links between roles: addresses, mutual TLS over them, shared channels to peers, and the gRPC server.
//!
//! [`Transport`] is the choice of security and holds the tokens; [`Channels`] gives one shared [`Link`] per address; [`Server`]
//! serves gRPC services on several addresses. Unix sockets, TCP and, for tests on a paused clock, memory.

mod accept;
mod address;
mod body;
mod channels;
mod dial;
mod ending;
mod error;
mod held;
mod link;
mod listener;
mod memory;
mod options;
mod parting;
mod port;
mod security;
mod server;
mod services;
mod sockets;
mod stream;
#[cfg(test)]
mod tests;
mod timeout;
mod trunk;
mod witness;

pub use address::{Address, AddressError};
pub use channels::Channels;
pub use error::TransportError;
pub use held::HeldSocket;
pub use link::{Link, ResponseBody};
pub use listener::Listener;
pub use options::{BindOptions, DialOptions, KeepAlive, ServeOptions};
pub use security::{Secured, Transport};
pub use server::{Server, ServerHandle};
pub use services::Services;
pub use sockets::{CurrentNamespace, SocketFactory};
pub use stream::{RawStream, Stream, UnixLink};
