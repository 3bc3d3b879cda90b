//! A whole mesh in one process, without sockets, privileges or waiting: for tests of network functions and of the mesh.
//!
//! Every hop is the real stack. What is left out is what a test does not want to depend on: calls cross between hops as
//! copies in memory instead of gRPC, and wires are remembered instead of programmed. On a paused clock
//! (`#[tokio::test(start_paused = true)]`) hours of refreshing and healing take milliseconds and always go the same way.

mod authority;
mod builder;
mod census;
pub mod invariants;
mod journal;
mod mesh;
mod node;
mod running;

pub use builder::MeshBuilder;
pub use census::{Census, HopCensus, Kept};
pub use mesh::Mesh;
pub use node::Node;
pub use running::RunningEndpoint;
