//! A chain behind a gRPC server, and a gRPC channel as the end of a chain.
//!
//! Headers and codes as the reference has them: `nsm-client-token`, `nsm-client-token-expires` and, for the registry,
//! `path`. Where and why something failed travels beside the status, in headers that others ignore.

mod client;
pub mod headers;
mod server;
mod status;

pub use client::{Channel, GrpcLink};
pub use server::Server;
