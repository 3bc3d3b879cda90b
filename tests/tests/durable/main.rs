//! A registry with a store, in a process of its own, that is killed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

mod disk;
mod kill;
mod kit;
mod restart;
