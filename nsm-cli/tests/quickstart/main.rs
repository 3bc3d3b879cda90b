//! `nsm quickstart` as a person or a script runs it. Skipped, with a printed reason, where the system allows neither
//! network namespaces nor user namespaces.

#![allow(clippy::unwrap_used, reason = "tests may panic, and so may the functions they share")]

mod failing;
mod interrupted;
mod kit;
mod options;
mod unprivileged;
mod working;
