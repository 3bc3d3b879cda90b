//! A whole mesh in one thread, by one seed.
#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

mod random;
mod simulation;
pub mod storm;

pub use random::Random;
pub use simulation::Simulation;
