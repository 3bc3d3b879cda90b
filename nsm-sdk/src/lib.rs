//! Network Service Mesh: elements, identity, transport and stacks.

pub mod identity;
pub mod transport;
pub mod connect;
pub mod lifetime;
pub mod monitor;
pub mod path;
pub mod registry;
pub mod security;
pub mod ipam;
pub mod discovery;
pub mod stacks;
pub mod testing;
pub mod context;
pub mod roles;
