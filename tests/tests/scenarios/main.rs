//! Whole meshes in one process on a paused clock.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod basics;
mod expiry;
mod healing;
mod kit;
mod passthrough;
mod selection;
