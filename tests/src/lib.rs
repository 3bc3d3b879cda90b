//! Scenarios, data-plane and interop tests.

pub mod reference;
