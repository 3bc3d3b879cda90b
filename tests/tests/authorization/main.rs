//! Who may do what, over real sockets and mutual TLS.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bad_input;
mod kit;
mod monitor;
mod own;
mod servers;
mod tokens;
