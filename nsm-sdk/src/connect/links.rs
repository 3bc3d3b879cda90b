use nsm_chain::{Node, Protocol, Result};

/// Finds the way to a hop by its URL: over gRPC in a mesh, in memory in a test or simulation.
///
/// What it hands out is an element that answers; asking for the same URL again costs a look-up.
pub trait Links<P: Protocol>: Send + Sync + 'static {
    /// The hop at this URL.
    fn link<'a>(&'a self, url: &'a str) -> futures::future::BoxFuture<'a, Result<Node<P>>>;
}
