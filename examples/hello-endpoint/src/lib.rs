//! What an endpoint needs around it to be seen working on one machine: a manager, a forwarder, a client.
//!
//! The endpoint itself is in `main.rs`. It would be the same in a cluster; this would not be there.

#![deny(missing_docs)]

mod neighbourhood;
mod visitor;

pub use neighbourhood::Neighbourhood;
pub use visitor::Visitor;

/// The code of the book, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/first-endpoint.md")]
struct FirstEndpoint;

/// As above.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/request.md")]
struct Request;

/// As above.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/lifecycle.md")]
struct Lifecycle;

/// Any error, for a program that only reports it.
pub type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;
