//! Addresses for connections: pools, and the elements that hand out of them.
//!
//! A [`Pool`] knows what is free, a [`Lease`] is one address taken out of it and gives it back when dropped. An
//! element keeps the leases of a connection in that connection's state, so that a failed first Request, a Close and
//! an expiry all give them back the same way: nothing has to remember to.
//!
//! | element | what a connection gets |
//! |---|---|
//! | [`PointToPoint`] | one host address for each side, and host routes to each other |
//! | [`SinglePoint`] | one address for the client, with the length of its prefix |
//! | [`Group`] | something of each of several, as of an IPv4 and an IPv6 pool |
//!
//! ```
//! use nsm_sdk::ipam::{Group, PointToPoint, Pool};
//!
//! let v4 = Pool::new(["172.16.1.0/24".parse()?])?;
//! let v6 = Pool::new(["fd00:172:16::/64".parse()?])?;
//! let dual_stack = Group::new([PointToPoint::new(v4).into(), PointToPoint::new(v6).into()])?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod assign;
mod context;
mod exclusions;
mod group;
pub(crate) mod intervals;
mod lease;
mod point_to_point;
mod pool;
mod single_point;
#[cfg(test)]
mod testing;

pub use exclusions::{ExclusionError, Exclusions};
pub use group::{Group, Source};
pub use lease::{Lease, LeaseError};
pub use point_to_point::PointToPoint;
pub use pool::{Pool, PoolError};
pub use single_point::SinglePoint;
