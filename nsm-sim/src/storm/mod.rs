//! Storms: a mesh made by a seed, bad things that happen to it, and what must hold once they are over.

mod plan;
mod run;
mod world;

pub use plan::{Client, Fault, Gentle, Plan, Profile, What};
pub use run::{Outcome, Storm};
