//! The registry: elements over its records, and the stacks that serve and use it.
//!
//! A registry is a [`Chain`](nsm_chain::Chain) over [`Registry<R>`](nsm_chain::Registry) for each kind of
//! record: network services and endpoints. Its three verbs are those of every chain: Register is `request`,
//! Unregister is `close`, Find is `monitor`. Elements that do not care which record flows are written once
//! for both.

mod authorize;
mod authorize_server;
mod cache;
mod client_info;
mod default_payload;
mod expire;
mod finder;
mod heal;
mod journal;
mod local_bypass;
mod memory;
mod one_node;
mod open_ahead;
mod owners;
mod recv_fd;
mod refresh;
mod registration_time;
mod resume;
mod send_fd;
pub mod stacks;
#[cfg(test)]
pub(crate) mod testing;
mod update_path;
mod watching;

pub use authorize::AuthorizeRegistry;
pub use authorize_server::AuthorizeRegistryServer;
pub use cache::Cache;
pub use client_info::ClientInfo;
pub use default_payload::DefaultPayload;
pub use expire::Expire;
pub use finder::Finder;
pub use heal::RegistrationHeal;
pub use journal::{Entry, Journal, Journals, Kept, Owned, OwnerChange, Restored, Then};
pub use local_bypass::{LocalBypass, LocalUrls};
pub use memory::Memory;
pub use one_node::OneNode;
pub use open_ahead::OpenAhead;
pub use recv_fd::RecvFd;
pub use refresh::RefreshRegistration;
pub use registration_time::RegistrationTime;
pub use resume::ResumeWatch;
pub use send_fd::SendFd;
pub use update_path::{OwnToken, UpdateRegistryPath};

use std::time::SystemTime;

use nsm_api::registry::{NetworkService, NetworkServiceEndpoint};
use nsm_chain::Registry;

/// The registry of network services.
pub type Services = Registry<NetworkService>;
/// The registry of endpoints.
pub type Endpoints = Registry<NetworkServiceEndpoint>;

/// When an endpoint's registration ends; none: it does not say, or says what no clock can.
fn expiration(endpoint: &NetworkServiceEndpoint) -> Option<SystemTime> {
    SystemTime::try_from(endpoint.expiration_time?).ok()
}
