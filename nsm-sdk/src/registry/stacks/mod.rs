//! Stacks: who serves a registry and who uses one, as lists of elements.

mod admission;
mod memory;

pub use admission::Admission;
pub use memory::{MemoryRegistry, MemoryRegistryBuilder};
