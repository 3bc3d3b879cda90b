//! WireGuard tunnels of Network Service Mesh.
#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

mod counters;
mod device;
mod entrance;
mod error;
mod key;
mod message;
mod node;
mod peer;
mod peers;
mod receive;
mod send;
mod socket;
mod tunnel;

pub use counters::Reason;
pub use entrance::{Entrance, Takes};
pub use error::{Error, Result};
pub use key::{PrivateKey, PublicKey, Secret};
pub use node::Node;
pub use tunnel::{Peering, Stats, Tunnel};
