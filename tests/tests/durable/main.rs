//! A registry with a store, in a process of its own, that is killed.

mod disk;
mod kill;
mod kit;
mod restart;
