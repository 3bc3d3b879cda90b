//! Scenarios, data-plane and interop tests.

pub mod mesh;
pub mod reference;
