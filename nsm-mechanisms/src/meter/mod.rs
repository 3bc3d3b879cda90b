//! What passes the wires of a forwarder, told along the path and to whoever reads it.

mod element;
mod exposition;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::Dataplane;

pub use element::{Meter, Readings};

/// A data plane that counts what passes its wires: what [`Meter`] works with.
///
/// Counters are read when somebody asks. Reading changes nothing.
pub trait Metered: Dataplane {
    /// What has passed the wire of a connection; `None` if there is none, or its packets pass by uncounted.
    fn traffic(&self, id: &str) -> impl Future<Output = Option<Traffic>> + Send;

    /// That of all wires, by connection.
    fn all_traffic(&self) -> impl Future<Output = HashMap<Arc<str>, Traffic>> + Send;

    /// How many packets were dropped, and why, before it was known to which wire they belong.
    fn strange(&self) -> BTreeMap<&'static str, u64> {
        BTreeMap::new()
    }
}

/// What has passed a wire since it was made. It may begin anew when the wire is made again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traffic {
    /// At the side of the caller.
    pub caller: Passed,
    /// At the side of the next hop.
    pub next: Passed,
    /// What is known of why packets were dropped, by names of the kind that metrics have; each counts drops of either side.
    pub reasons: BTreeMap<&'static str, u64>,
}

/// What has passed one side of a wire, seen from the forwarder as the reference counts it: "received" came from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// Octets received, link layer headers included.
    pub rx_bytes: u64,
    /// Octets sent.
    pub tx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets dropped, in either direction.
    pub drops: u64,
    /// Packets that were damaged or could not be sent, in either direction.
    pub errors: u64,
}

impl Passed {
    /// With names of counters as the reference has them; errors, which it does not count, are not among them.
    fn named(self) -> [(&'static str, u64); 5] {
        [
            ("rx_bytes", self.rx_bytes),
            ("tx_bytes", self.tx_bytes),
            ("rx_packets", self.rx_packets),
            ("tx_packets", self.tx_packets),
            ("drops", self.drops),
        ]
    }
}

/// The side of the caller and that of the next hop, as the reference names them.
const SIDES: [&str; 2] = ["server", "client"];

#[cfg(test)]
mod tests;
