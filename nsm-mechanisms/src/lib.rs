//! Mechanisms and forwarder adapters of Network Service Mesh.
#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

mod class;
mod client_mac;
mod cross_connect;
mod dataplane;
mod filter_mechanisms;
mod kernel;
pub mod linux;
mod mechanism_priority;
mod mechanism_translation;
mod mechanisms;
mod memif;
pub mod memory;
mod meter;
mod metrics;
mod mtu;
mod noop;
mod random;
mod rate_limit;
mod reconcile;
mod select;
mod underlay;
mod vlan_accept;
mod vlans;
mod vni;
mod wireguard;

pub use class::Class;
pub use client_mac::ClientMac;
pub use cross_connect::CrossConnect;
pub use dataplane::{Dataplane, Origin, Programmed, Wire, Wired};
pub use filter_mechanisms::FilterMechanisms;
pub use kernel::{KernelAccept, KernelLiveness, KernelOffer, KernelTransit, Workload};
pub use linux::Linux;
pub use mechanism_priority::MechanismPriority;
pub use mechanism_translation::MechanismTranslation;
pub use mechanisms::Mechanisms;
pub use memif::{Copied, MemifAccept, MemifOffer, PacketProcessor, WithMemif};
pub use meter::{Meter, Metered, Passed, Readings, Traffic};
pub use mtu::Mtu;
pub use noop::Noop;
pub use random::Random;
pub use rate_limit::RateLimit;
pub use reconcile::{Census, Mended, Pace, Reach, Reconcile, Reconciled};
pub use underlay::Underlay;
pub use vlan_accept::VlanAccept;
pub use vlans::Vlans;
pub use vni::{Reserved, Vni, VniError, Vnis};
pub use wireguard::Wireguard;
