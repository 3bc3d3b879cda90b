//! Several domains, each with roles of its own on loopback, a trust domain of its own, and a real DNS server to find each
//! other by.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod failing;
mod floating;
mod healing;
mod kit;
mod passthrough;
mod two_domains;
