use std::sync::Arc;

use nsm_chain::{Begin, Chain, Node, OrderError, Service, elements};

use super::Hop;
use crate::connect::{Connect, Links};
use crate::descriptors::SendFd;
use crate::discovery::{Discover, RoundRobin};
use crate::monitor::Monitor;
use crate::registry::Finder;
use crate::security::NoteOrigin;

/// A forwarder: finds the endpoint, and programs the wire between its client and it.
#[derive(Debug, Clone)]
pub struct Forwarder {
    /// Request, Close and Monitor.
    pub chain: Chain,
    /// What is connected now.
    pub connections: Arc<Begin>,
    /// What watchers see.
    pub monitor: Arc<Monitor>,
}

impl Forwarder {
    /// A forwarder that finds endpoints by `finder`, joins mechanisms by `wire` (such as
    /// [`CrossConnect`](nsm_mechanisms::CrossConnect) with its data plane), and reaches what comes next by `links`.
    ///
    /// # Errors
    /// When an element of one's own stands where it may not.
    pub fn new(
        hop: &Hop,
        finder: &Arc<Finder>,
        wire: Vec<Node>,
        links: Arc<dyn Links<Service>>,
    ) -> Result<Self, OrderError> {
        let (connections, monitor) = (Arc::default(), hop.monitor());
        let mut list = hop.head(&connections, &monitor);
        list.extend(elements![
            NoteOrigin,                        // whose it is: who starts over gets the interface of before
            Discover::new(Arc::clone(finder)), // who may serve it
            RoundRobin::default(),             // whose turn it is; the others if that one declines
        ]);
        list.extend(wire); // what both sides speak, and the wire between them
        list.extend(elements![
            SendFd::new(),       // files by descriptor, both ways
            Connect::new(links), // to the endpoint, or to the manager of its node
        ]);
        Ok(Self { chain: Chain::new(Arc::clone(&hop.name), list)?, connections, monitor })
    }
}
