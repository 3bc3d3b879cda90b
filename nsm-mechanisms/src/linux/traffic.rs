//! What has passed wires.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::future::join_all;
use nsm_api::mechanism::{KERNEL, MEMIF, VLAN};
use nsm_kernel::{Counters, Interface};
use nsm_wireguard::Reason;

use super::Linux;
use super::wiring::Wiring;
use crate::{Metered, Passed, Traffic, Wireguard};

/// What is counted of a wire: taken out of the table, so that nobody waits for the kernel there.
pub(super) struct Counted {
    /// One for each side that is an interface here, the caller's first.
    interfaces: Vec<Interface>,
    /// Whether the sides of the caller and of the next hop are interfaces here, or the other end of one; what is not is a tunnel.
    here: [bool; 2],
    /// Packets that a tunnel of our own dropped.
    dropped: BTreeMap<&'static str, u64>,
}

impl Counted {
    pub(super) fn of(wiring: &Wiring) -> Self {
        let wire = wiring.wire();
        let mut dropped = BTreeMap::new();
        for tunnel in wiring.running() {
            for reason in Reason::ALL {
                *dropped.entry(reason.name()).or_default() += tunnel.dropped(*reason);
            }
        }
        let mut interfaces = wiring.interfaces().to_vec();
        // Of shared memory and a tunnel of the kernel's the latter is made first.
        if wire.caller.is(MEMIF) {
            interfaces.reverse();
        }
        Self {
            interfaces,
            here: [&wire.caller, &wire.next].map(|mechanism| mechanism.is(KERNEL) || mechanism.is(VLAN)),
            dropped,
        }
    }

    /// `None` if an interface is gone.
    fn traffic(self, counters: &[Option<Counters>]) -> Option<Traffic> {
        let ends: Vec<Counters> = counters.iter().copied().collect::<Option<_>>()?;
        let side = |at: usize| {
            // A tunnel is the same device as the interface in front of it, seen from its other end.
            let end = *ends.get(at).or(ends.first())?;
            Some(if self.here[at] { from_within(end) } else { from_outside(end) })
        };
        let (mut caller, mut next) = (side(0)?, side(1)?);
        let tunnel = if self.here[1] { &mut caller } else { &mut next };
        tunnel.drops += self.dropped.values().sum::<u64>();
        let mut reasons = self.dropped;
        for end in &ends {
            let known = [
                ("interface_received", end.received.drops),
                ("interface_sent", end.sent.drops),
                ("rate_limit", end.limited),
            ];
            for (reason, count) in known.into_iter().filter(|(_, count)| *count > 0) {
                *reasons.entry(reason).or_default() += count;
            }
        }
        Some(Traffic { caller, next, reasons })
    }
}

/// Of an interface that a workload has: what it sends we receive.
fn from_within(end: Counters) -> Passed {
    let Counters { received, sent, .. } = end;
    from_outside(Counters { received: sent, sent: received, ..end })
}

/// Of a tunnel.
fn from_outside(end: Counters) -> Passed {
    let Counters { received, sent, limited, .. } = end;
    Passed {
        rx_bytes: received.bytes,
        tx_bytes: sent.bytes,
        rx_packets: received.packets,
        tx_packets: sent.packets,
        drops: received.drops + sent.drops + limited,
        errors: received.errors + sent.errors,
    }
}

impl Metered for Linux {
    async fn traffic(&self, id: &str) -> Option<Traffic> {
        let counted = self.0.table.counted(id)?;
        match Counters::of(&counted.interfaces).await {
            Ok(counters) => counted.traffic(&counters),
            Err(error) => {
                tracing::debug!(id, %error, "the counters of a wire cannot be read");
                None
            }
        }
    }

    async fn all_traffic(&self) -> HashMap<Arc<str>, Traffic> {
        let counted = self.0.table.all_counted();
        let places: HashMap<_, _> =
            counted.iter().flat_map(|(_, one)| &one.interfaces).map(|end| (end.netns().id(), end.netns())).collect();
        let lists = places.into_iter().map(async |(id, netns)| match Counters::all(netns).await {
            Ok(list) => Some((id, list)),
            Err(error) => {
                tracing::debug!(netns = %id, %error, "counters cannot be read there");
                None
            }
        });
        let found: HashMap<_, _> = join_all(lists).await.into_iter().flatten().collect();
        let told = counted.into_iter().filter_map(|(id, counted)| {
            let of = |end: &Interface| found.get(&end.netns().id())?.get(&end.index()).copied();
            let counters: Vec<_> = counted.interfaces.iter().map(of).collect();
            Some((id, counted.traffic(&counters)?))
        });
        told.collect()
    }
    fn strange(&self) -> BTreeMap<&'static str, u64> {
        let node = self.0.wireguard.get().map(Wireguard::node);
        let drops = node.map(|node| Reason::ALL.iter().map(|reason| (reason.name(), node.dropped(*reason))));
        drops.into_iter().flatten().collect()
    }
}
