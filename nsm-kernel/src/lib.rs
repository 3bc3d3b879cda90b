//! Linux networking for Network Service Mesh: namespaces, links, addresses, routes, liveness.
#![deny(missing_docs)]

mod error;
mod interface;
mod liveness;
mod netns;
mod plan;
mod policy;
mod rtnl;
mod sockets;
mod spec;
mod sysctl;
mod veth;

pub use error::{Error, Result};
pub use interface::{Changes, Interface, apply, delete_link, reconcile};
pub use liveness::{Liveness, Pinger, ProbePair};
pub use netns::{Failure, NamedNetns, Netns, NetnsId};
pub use spec::{InterfaceName, InterfaceSpec, Neighbour, Policy, Route};
pub use veth::{PeerNeighbours, VethWire};
