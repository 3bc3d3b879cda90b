//! Stacks: each role of the mesh as a list of elements.
//!
//! | stack | Request comes from | and goes to |
//! |---|---|---|
//! | [`Client`] | the application | the manager of its node |
//! | [`Manager`] | clients of its node, forwarders of others | a forwarder of its node |
//! | [`Forwarder`] | its manager | the endpoint, or the manager of the endpoint's node |
//! | [`Endpoint`] | forwarders of its node | nowhere: it answers |
//! | [`Passthrough`] | forwarders of its node | the manager of its node, as a client again |
//!
//! Registries are in [`registry::stacks`](crate::registry::stacks).

mod client;
mod endpoint;
mod forwarder;
mod hop;
mod manager;
mod passthrough;

pub use client::{Client, ClientBuilder};
pub use endpoint::Endpoint;
pub use forwarder::Forwarder;
pub use hop::Hop;
pub use manager::Manager;
pub use passthrough::{Onward, Passthrough};
