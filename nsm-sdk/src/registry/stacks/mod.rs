//! Stacks: who serves a registry and who uses one, as lists of elements.

mod admission;
mod client;
mod manager;
mod memory;

pub use admission::Admission;
pub use client::{RegistryClient, RegistryClientBuilder};
pub use manager::{ManagerRegistry, ManagerRegistryBuilder};
pub use memory::{MemoryRegistry, MemoryRegistryBuilder};

#[cfg(test)]
mod tests;
