//! Linux networking for Network Service Mesh: namespaces, links, addresses, routes, liveness.
#![deny(missing_docs)]

mod census;
mod error;
mod interface;
mod liveness;
mod netns;
mod plan;
mod policy;
mod privileges;
mod rtnl;
mod sockets;
mod spec;
mod sysctl;
mod underlay;
mod veth;
mod vxlan;

pub use census::{Census, CensusDiff, Item, MarkedLink, links_with_mark};
pub use error::{Error, Result};
pub use interface::{Changes, Interface, apply, delete_link, reconcile};
pub use liveness::{Liveness, Pinger, ProbePair};
pub use netns::{Failure, NamedNetns, Netns, NetnsId};
pub use privileges::{
    Privileges, blocked, in_user_namespace, privileges, reexec_in_user_namespace,
};
pub use spec::{InterfaceName, InterfaceSpec, Neighbour, Policy, Route};
pub use underlay::{Node, Underlay};
pub use veth::{PeerNeighbours, VethWire};
pub use vxlan::VxlanTunnel;
