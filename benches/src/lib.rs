//! What the benchmarks share: a mesh of five roles in one process, and figures.
//!
//! What each figure means is written in `go-sdk/README.md`, which measures the same on the reference SDK.

#![allow(clippy::expect_used, reason = "a benchmark that cannot go on says where it stopped")]

mod figures;
mod mesh;
pub mod parts;

pub use figures::{Figures, quantile, resident_bytes, tasks};
pub use mesh::{Mesh, Security};
