//! Labs as a person runs them: `nsm up`, `nsm down`, `nsm graph`, `nsm exec`. Skipped, with a printed reason, where the system
//! allows neither network namespaces nor user namespaces.

#![allow(clippy::unwrap_used, reason = "tests may panic, and so may the functions they share")]

mod composition;
mod crashed;
#[path = "../common/echo.rs"]
mod echo;
mod edited;
mod kit;
mod mistaken;
mod names;
mod pictures;
mod shared_memory;
mod unprivileged;
mod working;
