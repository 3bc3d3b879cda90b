//! Linux networking for Network Service Mesh: namespaces, links, addresses, routes, liveness.
//!
//! Knows nothing of chains or of the NSM wire. A caller describes an interface ([`InterfaceSpec`]) and gets it:
//! a local wire is a [`VethWire`] made directly in both namespaces, a remote one a [`VxlanTunnel`] whose device
//! stands in the workload's namespace while its tunnel runs in the node's. Later changes are differences
//! ([`Interface::update`], [`apply`]); after a restart the actual state is read and put right
//! ([`Interface::adopt`], [`reconcile`]). What is ours carries a mark, the link alias; what does not carry it is
//! never touched. Whatever fails leaves what was there before.
//!
//! ```no_run
//! use std::time::Duration;
//! use nsm_kernel::{Census, InterfaceSpec, Netns, PeerNeighbours, Pinger, VethWire};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let (client, endpoint) = (Netns::create().await?, Netns::create().await?);
//! let before = Census::take(&client).await?;
//!
//! let near = InterfaceSpec::new("nsm-1", "nsm:42")?
//!     .with_address("10.0.0.1/32".parse()?)
//!     .with_route("10.0.0.0/32".parse()?, None);
//! let far = InterfaceSpec::new("nsm-42", "nsm:42")?
//!     .with_address("10.0.0.0/32".parse()?)
//!     .with_route("10.0.0.1/32".parse()?, None);
//! let mut wire = VethWire::create((&client, &near), (&endpoint, &far), PeerNeighbours::Permanent).await?;
//!
//! let pinger = Pinger::new(&client).await?;
//! let rtt = pinger.ping("10.0.0.1".parse()?, "10.0.0.0".parse()?, Duration::from_secs(1)).await?;
//! println!("answered within {rtt:?}");
//!
//! // A refresh that changes nothing touches nothing.
//! assert_eq!(wire.update(&near, &far).await?.writes, 0);
//!
//! wire.delete().await?;
//! println!("{}", before.diff(&Census::take(&client).await?));
//! # Ok(())
//! # }
//! ```
//!
//! All kernel work is synchronous rtnetlink on a few threads of our own (`netns/worker.rs` says why); a
//! namespace that is only held costs one descriptor, no socket and no task. It works as root and in a user
//! namespace ([`reexec_in_user_namespace`]); [`privileges`] tells which.

#![deny(missing_docs)]

mod announce;
mod bpf;
mod census;
mod converge;
mod counters;
mod detour;
pub mod discovery;
mod error;
mod events;
mod filter;
mod holders;
mod interface;
mod liveness;
mod made;
mod nat;
mod netns;
mod nft;
mod plan;
mod policy;
mod privileges;
mod rate;
mod rtnl;
mod snapshot;
mod sockets;
mod spec;
mod sysctl;
mod transit;
mod underlay;
mod veth;
mod vlan;
mod vxlan;
mod wakes;

pub use census::{Census, CensusDiff, Item, MarkedLink, links_with_mark};
pub use counters::{Counters, Traffic};
pub use error::{Error, Result};
pub use events::{Event, Events, LinkState};
pub use filter::{Filter, FilterError};
pub use holders::Holders;
pub use interface::{Changes, Interface, apply, delete_link, reconcile};
pub use liveness::{Liveness, Pinger, ProbePair};
pub use nat::{NatError, NatRules};
pub use netns::{Failure, NamedNetns, Netns, NetnsId};
pub use privileges::{Privileges, blocked, in_user_namespace, privileges, reexec_in_user_namespace};
pub use rate::{Rate, RateError};
pub use snapshot::Snapshot;
pub use spec::{InterfaceName, InterfaceSpec, Neighbour, Policy, Route};
pub use underlay::{Node, Underlay};
pub use veth::{PeerNeighbours, VethWire};
pub use vlan::VlanPort;
pub use vxlan::VxlanTunnel;
