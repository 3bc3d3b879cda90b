//! Whole meshes in one process on a paused clock.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod addresses;
mod basics;
mod edges;
mod expiry;
mod healing;
mod kit;
mod lifecycle;
mod monitor;
mod passthrough;
mod selection;
mod witness;
