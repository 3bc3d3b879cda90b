//! Facts that more than one crate's elements leave in a call.

use std::sync::Arc;

use nsm_api::registry::{NetworkService, NetworkServiceEndpoint};

/// Where the next hop is: its URL. Left by whoever chose it, read by whoever connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextHop(
    /// `unix:///path`, `tcp://host:port`, `mem://name`.
    pub Arc<str>,
);

impl NextHop {
    /// Whether the next hop is on this node: its URL names a socket file (or a descriptor of one), not an address.
    /// Mechanisms follow from it: local ones here, tunnels there.
    #[must_use]
    pub fn is_local(&self) -> bool {
        ["unix:", "inode:", "mem:"].iter().any(|scheme| self.0.starts_with(scheme))
    }
}

/// The endpoints that may serve a Request, best matches first, each with the weight of its route (at least 1).
#[derive(Debug, Clone)]
pub struct Candidates {
    /// The service asked for.
    pub service: Arc<NetworkService>,
    /// Who may serve it.
    pub endpoints: Vec<(Arc<NetworkServiceEndpoint>, u32)>,
}
