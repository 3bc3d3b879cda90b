#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

pub mod connect;
pub mod context;
pub mod descriptors;
pub mod discovery;
pub mod files;
mod generations;
pub mod identity;
pub mod interdomain;
pub mod ipam;
pub mod lifecycle;
pub mod lifetime;
pub mod monitor;
pub mod path;
pub mod registry;
pub mod roles;
pub mod security;
pub mod stacks;
pub mod testing;
pub mod transport;

// What an endpoint, a client or an element is written with: one dependency is enough.
pub use {nsm_api, nsm_chain, nsm_kernel, nsm_mechanisms};
