use std::sync::Arc;

use nsm_chain::{Begin, Chain, Node, OrderError, Service, elements};

use super::Hop;
use crate::connect::{Connect, Links};
use crate::context::ClientInfo;
use crate::descriptors::SendFd;
use crate::discovery::{DiscoverForwarder, NetworkServiceWatch};
use crate::monitor::Monitor;
use crate::registry::Finder;

/// The manager of a node (NSMgr): hands its clients' Requests to a forwarder of the node.
///
/// Its registry half is [`registry::stacks`](crate::registry::stacks)`::ManagerRegistry`.
#[derive(Debug, Clone)]
pub struct Manager {
    /// Request, Close and Monitor.
    pub chain: Chain,
    /// What is connected now.
    pub connections: Arc<Begin>,
    /// What watchers see.
    pub monitor: Arc<Monitor>,
}

impl Manager {
    /// A manager with this URL, which finds services and the forwarders that register under the network service
    /// `forwarders` by `finder`, and reaches forwarders by `links`.
    /// `elements` of one's own stand before the choice of a forwarder: excluded prefixes, labels, limits.
    ///
    /// # Errors
    /// When an element of one's own stands where it may not.
    pub fn new(
        hop: &Hop,
        url: &str,
        forwarders: &str,
        finder: &Arc<Finder>,
        links: Arc<dyn Links<Service>>,
        elements: Vec<Node>,
    ) -> Result<Self, OrderError> {
        let (connections, monitor) = (Arc::default(), hop.monitor());
        let mut list = hop.head(&connections, &monitor);
        list.extend(elements![
            ClientInfo::from_env(),                       // where the client runs, for matches
            NetworkServiceWatch::new(Arc::clone(finder)), // moves clients when their service changes
        ]);
        list.extend(elements);
        list.extend(elements![
            DiscoverForwarder::new(Arc::clone(finder), url).with_service(forwarders), // one after the other until one accepts
            SendFd::new(),                                                            // files by descriptor, both ways
            Connect::new(links),                                                      // to that forwarder
        ]);
        Ok(Self { chain: Chain::new(Arc::clone(&hop.name), list)?, connections, monitor })
    }
}
