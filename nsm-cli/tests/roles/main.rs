//! `nsm registry`, `manager`, `forwarder`, `endpoint`, `client` as processes of their own, started as a person or a cluster
//! starts them. What needs network namespaces is skipped, with a printed reason, where the system does not allow them.

#![allow(clippy::unwrap_used, reason = "tests may panic, and so may the functions they share")]

mod configuring;
mod counters;
#[path = "../common/echo.rs"]
mod echo;
mod healing;
mod identity;
mod kit;
mod mesh;
mod names;
mod passing;
mod shared_memory;
mod tunnels;
mod vlans;
mod working;
