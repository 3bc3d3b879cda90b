//! The chain: elements, calls, per-connection state, and adapters to tower and tonic.

mod peer;
pub mod time;

pub use peer::{Peer, Token, TokenError, Tokens};
