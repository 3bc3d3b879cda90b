//! What carries this forwarder's mark in the kernel, and whose it is.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use nsm_api::Mechanism;
use nsm_chain::Result;
use nsm_kernel::{
    Error as Kernel, InterfaceName, MarkedLink, Netns, NetnsId, Snapshot, VlanPort, VxlanTunnel, delete_link,
};

use tracing::Instrument;

use super::error::failed;
use super::mark::{Carrier, Mark, Side};
use super::table::Held;
use super::{Inner, Linux, trunk, tunnel};
use crate::vni::Reserved;
use crate::{Census, Mended, Reach, Reconciled, Underlay, Vni, Wire};

/// An interface with this forwarder's mark that belongs to no connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stray {
    /// Where it is.
    pub netns: NetnsId,
    /// A path that led there. Nothing is kept open: a workload that ends takes it along.
    pub path: PathBuf,
    /// Its name.
    pub name: String,
    /// Its mark.
    pub mark: String,
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interface {} marked {:?} in {}", self.name, self.mark, self.path.display())
    }
}

/// Tunnel identifiers that are in use in the kernel, by no connection.
#[derive(Default)]
pub(super) struct Occupied {
    /// By strays, by their marks.
    strays: HashMap<String, Reserved>,
    /// By devices of others in the node's namespace.
    foreign: HashMap<u32, Reserved>,
}

impl Reconciled for Linux {
    type Stray = Stray;

    async fn census(&self, reach: Reach) -> Census<Stray> {
        let mut places = self.0.table.places();
        self.0.watching.retain(|id| places.contains_key(&id));
        if reach == Reach::Everywhere {
            let seen = tokio::task::spawn_blocking(Netns::seen).await.unwrap_or_default();
            for (path, netns) in seen {
                places.entry(netns.id()).or_insert((path, netns));
            }
        }
        let (mut strays, mut drifted) = (Vec::new(), HashSet::new());
        let node = self.0.underlay.as_ref().map(|(_, node)| node.clone());
        if let (Reach::Everywhere, Some(node)) = (reach, &node) {
            places.entry(node.id()).or_insert_with(|| (node.path(), node.clone()));
        }
        for (id, (path, netns)) in places {
            let snapshot = match Snapshot::take(&netns).await {
                Ok(snapshot) => snapshot,
                Err(error) => {
                    // Of another user, say: then nothing in it is ours.
                    tracing::debug!(netns = %id, %error, "not looked at");
                    continue;
                }
            };
            if node.as_ref().is_some_and(|node| node.id() == id) {
                self.0.leave_to_others(snapshot.foreign_vnis(self.0.mark.prefix()));
            }
            let links = snapshot.marked(self.0.mark.prefix());
            strays.extend(
                links
                    .filter(|link| !self.0.table.claims(&self.0.mark, (id, &link.name, &link.alias)))
                    .map(|MarkedLink { name, alias, .. }| Stray { netns: id, path: path.clone(), name, mark: alias }),
            );
            drifted.extend(self.0.table.drifted(&snapshot));
        }
        if let Some(node) = &node {
            match VxlanTunnel::lost(node).await {
                Ok(lost) => drifted.extend(self.0.table.through(&lost)),
                Err(error) => tracing::warn!(%error, "it is not known whether all tunnels are whole"),
            }
        }
        // Those that were being worked on when their workload ended.
        drifted.extend(self.0.table.at(&self.0.watching.all_deserted()));
        drifted.extend(self.0.table.given_up());
        self.0.occupy(reach, &strays);
        Census { strays, drifted: drifted.into_iter().collect() }
    }

    async fn remove(&self, stray: &Stray) -> Result<bool> {
        let Some(id) = self.0.mark.id(&stray.mark) else {
            return Ok(false);
        };
        // Whoever asks for that connection now waits until it is gone, or has it already.
        let held = Held::take(self, id).await;
        if held.wiring.as_ref().is_some_and(|wiring| wiring.has((stray.netns, &stray.name, &stray.mark))) {
            return Ok(false);
        }
        let mut others_wait = None;
        if self.0.mark.is_trunk(&stray.mark) {
            others_wait = Some(trunk::lock().await);
            if self.0.table.claims(&self.0.mark, (stray.netns, &stray.name, &stray.mark)) {
                return Ok(false);
            }
        }
        let (path, netns) = (stray.path.clone(), stray.netns);
        // The path may lead elsewhere by now; if the place is still there, the next look everywhere finds another one.
        let Some(netns) = Netns::open(&path).ok().filter(|found| found.id() == netns) else {
            return Ok(false);
        };
        let removed = delete_link(&netns, &stray.name, &stray.mark).await;
        drop(others_wait);
        let removed = removed.map_err(|error| failed(format!("{stray} is left"), error))?;
        if removed {
            let released = self.0.release(&stray.mark).await;
            released.map_err(|error| failed(format!("what was made beside {stray} is left"), error))?;
        }
        self.0.vacate(&stray.mark);
        Ok(removed)
    }

    async fn mend(&self, id: &str) -> Result<Mended> {
        let mut held = Held::take(self, id).await;
        let Some(wiring) = &mut held.wiring else {
            return Ok(Mended::Unknown);
        };
        if wiring.is_given_up() {
            wiring.remove().await?;
            held.wiring = None;
            return Ok(Mended::Gone);
        }
        let mended = wiring.mend(&self.0).await?;
        drop(held);
        if matches!(mended, Mended::Changed { .. } | Mended::Remade) {
            let (linux, id) = (self.clone(), id.to_owned());
            tokio::spawn(async move { linux.announce(&id).await }.in_current_span());
        }
        Ok(mended)
    }

    async fn disturbed(&self) -> Vec<Arc<str>> {
        self.0.watching.disturbed(&self.0.table).await
    }
}

impl Inner {
    /// Keeps the identifiers of the strays' tunnels from new connections.
    fn occupy(&self, reach: Reach, strays: &[Stray]) {
        let Some((underlay, _)) = &self.underlay else { return };
        let found: HashMap<&str, u32> =
            strays.iter().filter_map(|stray| Some((&*stray.mark, Mark::tunnel(&stray.mark)?.vni))).collect();
        let mut occupied = self.occupied.lock().unwrap_or_else(PoisonError::into_inner);
        if reach == Reach::Everywhere {
            occupied.strays.retain(|mark, _| found.contains_key(&**mark));
        }
        for (mark, vni) in found {
            occupied.strays.entry(mark.to_owned()).or_insert_with(|| underlay.vnis().reserve(vni));
        }
    }

    /// Issues no identifier that a device of somebody else on this node has.
    fn leave_to_others(&self, found: impl Iterator<Item = u32>) {
        let Some((underlay, _)) = &self.underlay else { return };
        let found: HashSet<u32> = found.collect();
        let mut occupied = self.occupied.lock().unwrap_or_else(PoisonError::into_inner);
        occupied.foreign.retain(|vni, _| found.contains(vni));
        for vni in found {
            occupied.foreign.entry(vni).or_insert_with(|| underlay.vnis().reserve(vni));
        }
    }

    /// The identifier of the tunnel that an earlier life made for this connection, to the node that asks now: both ends of it
    /// may still be there, though both forwarders were restarted.
    pub(super) fn former(&self, id: &str, mechanism: &Mechanism, underlay: &Underlay) -> Option<Arc<Vni>> {
        let vxlan = mechanism.as_vxlan()?;
        let (remote, port) = (vxlan.src_ip().ok()??, vxlan.src_port().ok()?);
        let to_there = |vni| {
            let tunnel = tunnel::vxlan(underlay, vni, (remote, port));
            self.mark.of(id, Some(Carrier::Vxlan(&tunnel))).ok()
        };
        let found = {
            let occupied = self.occupied.lock().unwrap_or_else(PoisonError::into_inner);
            let of_this = occupied.strays.keys().filter(|mark| self.mark.names(id, mark));
            let mut vnis = of_this.filter_map(|mark| Some((mark, Mark::tunnel(mark)?.vni)));
            vnis.find(|(mark, vni)| to_there(*vni).as_ref() == Some(mark)).map(|(_, vni)| vni)
        };
        underlay.vnis().claim(found?, remote).ok().map(Arc::new)
    }

    /// Gives up the wire that has this interface if it is in the way of a client that starts over, and has its connection
    /// closed.
    pub(super) fn supersede(&self, wire: &Wire, link: (NetnsId, &str, &str)) -> bool {
        let superseded = self.table.supersede(wire, &self.mark, link);
        if superseded {
            self.watching.tell_given_up();
        }
        superseded
    }

    /// Gives up what was made beside an interface with this mark, which is gone.
    pub(super) async fn release(&self, mark: &str) -> Result<(), Kernel> {
        if let (Some((_, node)), Some(tunnel)) = (&self.underlay, Mark::tunnel(mark)) {
            return tunnel.release(node).await;
        }
        // A way into a VLAN goes with the other end of its pair, whose mark does not tell of it.
        let (Some(vlans), Some(id)) = (self.vlans.get(), self.mark.id(mark)) else { return Ok(()) };
        let port: InterfaceName = self.mark.name(id, Side::Endpoint).parse()?;
        for uplink in vlans.uplinks() {
            VlanPort::release(uplink, vlans.node(), &port).await?;
        }
        Ok(())
    }

    fn vacate(&self, mark: &str) {
        self.occupied.lock().unwrap_or_else(PoisonError::into_inner).strays.remove(mark);
    }
}
