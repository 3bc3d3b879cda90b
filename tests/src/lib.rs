//! Scenarios, data-plane and interop tests.
