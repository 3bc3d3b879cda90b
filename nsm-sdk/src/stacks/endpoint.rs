use std::sync::Arc;

use nsm_chain::{Begin, Chain, Node, OrderError};

use super::Hop;
use crate::monitor::Monitor;

/// An endpoint (NSE): answers Requests for its network service.
///
/// ```
/// use nsm_chain::{elements, Call, Element, Next, Result};
/// use nsm_sdk::identity::HmacTokens;
/// use nsm_sdk::stacks::{Endpoint, Hop};
/// use std::sync::Arc;
///
/// /// What makes this endpoint the one it is.
/// struct Greet;
/// impl Element for Greet {
///     async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
///         call.body_mut().labels.insert("greeting".into(), "hello".into());
///         next.request(call).await
///     }
/// }
///
/// let tokens = HmacTokens::new(&"spiffe://example.org/nse-1".parse().unwrap());
/// let endpoint = Endpoint::new(&Hop::new("nse-1", Arc::new(tokens)), elements![Greet]).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Request, Close and Monitor.
    pub chain: Chain,
    /// What is connected now.
    pub connections: Arc<Begin>,
    /// What watchers see.
    pub monitor: Arc<Monitor>,
}

impl Endpoint {
    /// An endpoint that does what these elements do, in order: choose a mechanism, assign addresses, and whatever
    /// makes it the network function it is.
    ///
    /// # Errors
    /// When an element stands where it may not.
    pub fn new(hop: &Hop, elements: Vec<Node>) -> Result<Self, OrderError> {
        let (connections, monitor) = (Arc::default(), hop.monitor());
        let mut list = hop.head(&connections, &monitor);
        list.extend(elements);
        Ok(Self { chain: Chain::new(Arc::clone(&hop.name), list)?, connections, monitor })
    }
}
