//! Stacks: each role of the mesh as a list of elements.
//!
//! | stack | Request comes from | and goes to |
//! |---|---|---|
//! | [`Client`] | the application | the manager of its node |
//! | [`Manager`] | clients of its node, forwarders of others | a forwarder of its node |
//! | [`Forwarder`] | its manager | the endpoint, or the manager of the endpoint's node |
//! | [`Endpoint`] | forwarders of its node | nowhere: it answers |
//! | [`ManagerProxy`] | forwarders of its domain, manager proxies of others | another domain's manager proxy, or a manager of its domain |
//! | [`Passthrough`] | forwarders of its node | the manager of its node, as a client again |
//!
//! Registries are in [`registry::stacks`](crate::registry::stacks).

mod client;
mod endpoint;
mod forwarder;
mod hop;
mod manager;
mod manager_proxy;
mod passthrough;
mod session;

pub use client::{Client, ClientBuilder};
pub use endpoint::Endpoint;
pub use forwarder::Forwarder;
pub use hop::Hop;
pub use manager::Manager;
pub use manager_proxy::{ManagerProxy, ManagerProxyBuilder};
pub use passthrough::{Onward, Passthrough};
pub use session::Session;
