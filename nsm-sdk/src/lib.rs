//! Network Service Mesh: elements, identity, transport and stacks.

pub mod identity;
pub mod transport;
