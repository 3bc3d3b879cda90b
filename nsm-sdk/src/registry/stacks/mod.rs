//! Stacks: who serves a registry and who uses one, as lists of elements.

mod admission;
mod client;
mod manager;
mod memory;
mod proxy;
mod restore;

pub use admission::Admission;
pub use client::{RegistryClient, RegistryClientBuilder};
pub use manager::{ManagerRegistry, ManagerRegistryBuilder};
pub use memory::{MemoryRegistry, MemoryRegistryBuilder};
pub use proxy::{RegistryProxy, RegistryProxyBuilder};
pub use restore::RestoreError;

#[cfg(test)]
mod tests;
