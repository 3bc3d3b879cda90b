//! Scenarios, data-plane and interop tests.

pub mod heap;
pub mod mesh;
pub mod reference;
