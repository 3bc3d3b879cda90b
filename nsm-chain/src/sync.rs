//! What the subtle parts lock, wait and spawn with: the standard library's and tokio's.
//!
//! With the feature `shuttle` it is [shuttle](https://docs.rs/shuttle)'s. A model, a test with the name `models`, then runs the very
//! same code on one schedule of its threads after another, chosen by a seed: see `docs/decisions/0010-models.md`.

#[cfg(not(feature = "shuttle"))]
mod real {
    pub use std::sync::{Mutex, MutexGuard};

    pub use ::tokio;
}

#[cfg(feature = "shuttle")]
pub mod models;

#[cfg(not(feature = "shuttle"))]
pub use real::*;

#[cfg(feature = "shuttle")]
pub use models::{Mutex, MutexGuard, tokio};
