//! Packets copied between shared memory and what the kernel or a tunnel has: how a MEMIF workload and one of another kind
//! come together.
//!
//! The forwarder is memif's other side. It takes packets in bursts, and waits for an interrupt when there are none. Nothing is
//! kept for a peer that is slow or away: what finds no room is dropped, and counted ([`Copied`]).

mod counts;
mod device;
mod kernel;
mod link;
mod lookout;
mod sealed;

pub use counts::Copied;
pub(crate) use counts::Counts;
pub(crate) use device::{Device, Kind};
pub(crate) use kernel::DeviceCopier;
pub(crate) use link::Ends;
pub(crate) use lookout::{Lookout, Sockets, Way};
pub(crate) use sealed::{Inlet, TunnelCopier};

/// Packets between two looks at anything else.
const BURST: usize = 64;
