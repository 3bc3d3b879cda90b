//! The data plane in real network namespaces with real packets.
//!
//! As root the tests run twice: directly, and once more in a user namespace of an unprivileged user
//! (`user_namespace.rs`). As an ordinary user only the latter. What cannot run here prints why.

#![allow(clippy::unwrap_used, reason = "tests may panic, and so may the functions they share")]

mod common;
mod counters;
mod liveness;
mod nat;
mod netns;
mod policy;
mod rate;
mod update;
mod user_namespace;
mod vlan;
mod vxlan;
mod watch;
mod wire;
