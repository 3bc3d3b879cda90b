//! The Linux kernel as a data plane: no packet passes a process of ours, but those of WireGuard, and those from or to shared
//! memory (MEMIF with anything but MEMIF, [`WithMemif`](crate::WithMemif)).
//!
//! | caller ↔ next hop | wire |
//! |---|---|
//! | KERNEL ↔ KERNEL | one veth pair, each end made directly in its workload's namespace |
//! | KERNEL ↔ VXLAN, VXLAN ↔ KERNEL | one VXLAN device in the workload's namespace; its tunnel runs in the node's |
//! | VXLAN ↔ VXLAN | two VXLAN devices in the node's namespace, each passing on what the other gets |
//! | KERNEL ↔ MEMIF, MEMIF ↔ KERNEL | one TUN (IP) or TAP (ETHERNET) device in the workload's namespace; this process copies |
//! | MEMIF ↔ VXLAN, VXLAN ↔ MEMIF | a VXLAN device in the node's namespace, joined to a TAP device there; this process copies |
//! | MEMIF ↔ WIREGUARD, WIREGUARD ↔ MEMIF | no interface; this process copies, seals and opens |
//! | KERNEL, VXLAN → KERNEL with a VLAN | a port at the endpoint's one interface for several clients |
//! | KERNEL → VLAN | one veth pair, whose other end is in the node's namespace, and is a way into a VLAN of a network outside |
//! | KERNEL ↔ WIREGUARD, WIREGUARD ↔ KERNEL | one TUN device in the workload's namespace; this process seals and opens its packets |
//!
//! Every interface carries a mark (its link alias), `nsm:<forwarder>:<connection id>`, and a tunnel's also says which
//! tunnel it is. By it a forwarder that was restarted finds its wires again: a Request for a connection that it does not
//! remember adopts the interfaces that are there, so packets flow on. What nobody asks for in time is removed by
//! [`Reconcile`](crate::Reconcile), which also mends what somebody else damaged; what carries no mark of this forwarder is
//! never touched.

mod context;
mod copying;
mod error;
mod interfaces;
mod mark;
mod nat;
mod plan;
mod strays;
mod table;
mod traffic;
mod trunk;
mod tunnel;
mod watching;
mod wiring;

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use nsm_api::mechanism::{KERNEL, VLAN, VXLAN, WIREGUARD};
use nsm_api::{Connection, Mechanism, payload};
use nsm_chain::{Error, Result};
use nsm_kernel::{Netns, VlanPort};
use tokio::sync::oneshot;
use tracing::Instrument;

use crate::memif::copying::Sockets;
use crate::{Class, Copied, Dataplane, Programmed, RateLimit, Underlay, Vlans, Vni, Wire, Wireguard};
use mark::Mark;
use plan::{Plan, Ways};
use strays::Occupied;
use table::{Held, Table};
use watching::Watching;
use wiring::Wiring;

pub use strays::Stray;

/// The kernel's data plane for one forwarder. Cloning is cheap; every copy sees the same wires.
#[derive(Clone)]
pub struct Linux(Arc<Inner>);

struct Inner {
    mark: Mark,
    /// Our place in the network between nodes, and the namespace that has it.
    underlay: Option<(Underlay, Netns)>,
    wireguard: OnceLock<Wireguard>,
    vlans: OnceLock<Vlans>,
    /// Where endpoints' interfaces are joined that several connections share.
    trunks: OnceLock<Netns>,
    /// Of connections that say nothing of a limit.
    limit: OnceLock<RateLimit>,
    /// Where clients with shared memory come to.
    sockets: Sockets,
    table: Table,
    /// What strays keep from new connections.
    occupied: Mutex<Occupied>,
    watching: Watching,
}

impl Linux {
    /// For the forwarder of this name, which must be the same after a restart and no other's on this machine. Next hops
    /// on other nodes are out of reach.
    ///
    /// # Errors
    /// When the name cannot be part of a mark: it is empty, longer than 100 octets or contains a colon.
    pub fn new(forwarder: &str) -> Result<Self> {
        Self::made(forwarder, None)
    }

    /// As [`new`](Self::new), and reaches other nodes by VXLAN over an underlay; `node` is the namespace that has its
    /// address.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_underlay(forwarder: &str, underlay: Underlay, node: Netns) -> Result<Self> {
        Self::made(forwarder, Some((underlay, node)))
    }

    /// Has IP connections to other nodes offered WireGuard too, behind VXLAN, and accepts it from them. It goes through this
    /// process: packets are encrypted, and stop while it does not run. What was set before stays.
    #[must_use]
    pub fn with_wireguard(self, wireguard: Wireguard) -> Self {
        self.0.wireguard.get_or_init(|| wireguard);
        self
    }

    /// Has workloads put into VLANs of these networks, where an endpoint says so. What was set before stays.
    #[must_use]
    pub fn with_vlans(self, vlans: Vlans) -> Self {
        self.0.vlans.get_or_init(|| vlans);
        self
    }

    /// Lets endpoints have one interface for several connections, told apart by VLANs, each client's in one of its own
    /// ([`KernelAccept::trunk`](crate::KernelAccept::trunk)). `node` is the namespace in which they are joined. What was set before
    /// stays.
    ///
    /// # Errors
    /// If this process may not load BPF programs.
    pub fn with_trunks(self, node: Netns) -> Result<Self> {
        VlanPort::allowed().map_err(|error| error::failed("no interface of an endpoint can be shared", error))?;
        self.0.trunks.get_or_init(|| node);
        Ok(self)
    }

    /// Limits connections that say nothing of it ([`RateLimit`]). What was set before stays.
    #[must_use]
    pub fn with_rate_limit(self, limit: RateLimit) -> Self {
        self.0.limit.get_or_init(|| limit);
        self
    }

    /// Tells those on the link, at both ends of a wire, which hardware addresses are now behind its addresses, so that
    /// nobody goes on sending to the interface of before. Once more a second later: an endpoint may only then have joined
    /// its end to a bridge, and what is lost is not asked for again.
    async fn announce(&self, id: &str) {
        for pause in [Duration::ZERO, Duration::from_secs(1)] {
            tokio::time::sleep(pause).await;
            // Not kept meanwhile: they may go.
            for interface in self.0.table.interfaces(id) {
                // There is no link behind a TUN device, and nobody on it.
                if interface.mac() == [0; 6] {
                    continue;
                }
                if let Err(error) = interface.announce().await {
                    tracing::debug!(interface = %interface.spec().name, %error, "its addresses are not announced");
                }
            }
        }
    }

    fn made(forwarder: &str, underlay: Option<(Underlay, Netns)>) -> Result<Self> {
        let mark = Mark::new(forwarder)?;
        let watching = Watching::new(underlay.as_ref().map(|(_, node)| node.id()));
        Ok(Self(Arc::new(Inner {
            mark,
            underlay,
            wireguard: OnceLock::new(),
            vlans: OnceLock::new(),
            trunks: OnceLock::new(),
            limit: OnceLock::new(),
            sockets: Sockets::default(),
            table: Table::default(),
            occupied: Mutex::default(),
            watching,
        })))
    }

    /// What was copied so far for this connection, if one of its sides is MEMIF and the other is not.
    #[must_use]
    pub fn copied(&self, id: &str) -> Option<Copied> {
        self.0.table.copied(id)
    }

    /// How many connections have a wire.
    #[must_use]
    pub fn wires(&self) -> usize {
        self.0.table.len()
    }
}

impl Dataplane for Linux {
    type Lease = Option<Arc<Vni>>;

    fn accepts(&self, payload: &str) -> Vec<&'static str> {
        let vxlan = self.0.underlay.as_ref().map(|_| VXLAN);
        let wireguard = self.0.wireguard_for(payload).map(|_| WIREGUARD);
        std::iter::once(KERNEL).chain(vxlan).chain(wireguard).collect()
    }

    fn offers(&self, id: &str, class: Class, payload: &str) -> Vec<Mechanism> {
        if class == Class::Local {
            let mut offer = Mechanism::kernel();
            if let (Some(_), Some(mut kernel)) = (self.0.trunks.get(), offer.as_kernel_mut()) {
                kernel.set_supports_vlan(true);
            }
            return vec![offer];
        }
        // The kernel's tunnel first: it is faster, and outlives this process.
        let vxlan = self.0.underlay.iter().map(|(underlay, _)| underlay.offer());
        let wireguard = self.0.wireguard_for(payload).map(|wireguard| wireguard.offer(id));
        vxlan.chain(wireguard).chain(self.0.vlans.get().map(|_| Mechanism::vlan())).collect()
    }

    fn accept(&self, id: &str, mechanism: &mut Mechanism, held: Option<&Self::Lease>) -> Result<Self::Lease> {
        if let (true, Some(wireguard)) = (mechanism.is(WIREGUARD), self.0.wireguard.get()) {
            return wireguard.accept(id, mechanism).map(|()| None);
        }
        match (&self.0.underlay, mechanism.as_kernel()) {
            (_, Some(kernel)) => plan::check_kernel(kernel).map(|_| None),
            (Some((underlay, _)), None) => {
                let held = held.and_then(Option::as_ref);
                let former = if held.is_none() { self.0.former(id, mechanism, underlay) } else { None };
                underlay.accept(mechanism, held.or(former.as_ref())).map(Some)
            }
            (None, None) => Err(Error::unsupported(format!("{} cannot be used here", mechanism.r#type))),
        }
    }

    fn joins(&self, caller: &Mechanism, next: &Mechanism) -> bool {
        plan::joins(caller, next)
    }

    fn complete(&self, connection: &Connection, caller: &mut Mechanism, next: &mut Mechanism) -> Result<()> {
        if let Some(mut memif) = caller.as_memif_mut() {
            memif.set_socket(&self.0.sockets.place(&connection.id, &connection.payload)?);
        }
        match self.0.vlans.get().filter(|_| next.is(VLAN)) {
            Some(vlans) => vlans.complete(connection, next),
            None => Ok(()),
        }
    }

    /// Once begun it runs to its end, even if the future is dropped; a new wire that nobody waits for any more is
    /// removed again.
    async fn connect(&self, wire: &Wire) -> Result<Programmed> {
        let limited = self.0.limit.get().map(|limit| {
            let mut wire = wire.clone();
            limit.fill(&mut wire.context);
            wire
        });
        let wire = limited.as_ref().unwrap_or(wire);
        let mut held = Held::take(self, &wire.id).await;
        if held.wiring.as_ref().is_some_and(|wiring| wiring.is_for(wire)) {
            return Ok(Programmed::Unchanged);
        }
        let (linux, wire) = (self.clone(), wire.clone());
        let (answer, reply) = oneshot::channel();
        let work = async move {
            let outcome = converge(&mut held.wiring, &wire, &linux.0).await;
            if answer.is_closed() {
                abandon(&mut held.wiring, &outcome, &linux.0).await;
            }
            let places = held.wiring.as_ref().map(|wiring| wiring.places().cloned().collect::<Vec<_>>());
            let changed = outcome.as_ref().is_ok_and(|how| *how != (Programmed::Changed { writes: 0 }));
            // Back in the table before anybody hears of it.
            drop(held);
            let _nobody_waits = answer.send(outcome);
            linux.0.watching.add(&places.unwrap_or_default()).await;
            if changed && !plan::introduces(&wire) {
                linux.announce(&wire.id).await;
            }
        };
        tokio::spawn(work.in_current_span());
        reply.await.unwrap_or_else(|_| Err(Error::internal("programming the wire ended without an outcome")))
    }

    /// Once begun it runs to its end, even if the future is dropped.
    async fn disconnect(&self, id: &str) -> Result<()> {
        let mut held = Held::take(self, id).await;
        let Some(mut wiring) = held.wiring.take() else {
            return Ok(());
        };
        let linux = self.clone();
        let work = async move {
            let outcome = wiring.remove().await;
            if outcome.is_err() {
                wiring.give_up();
                held.wiring = Some(wiring);
            }
            drop(held);
            if outcome.is_err() {
                linux.0.watching.tell_given_up();
            }
            outcome
        };
        let removed = tokio::spawn(work.in_current_span()).await;
        removed
            .unwrap_or_else(|error| Err(Error::internal("removing the wire ended without an outcome").because(error)))
    }
}

impl Inner {
    /// WireGuard carries IP packets only.
    fn wireguard_for(&self, payload: &str) -> Option<&Wireguard> {
        self.wireguard.get().filter(|_| payload != payload::ETHERNET)
    }
}

/// Makes, changes or moves a connection's wire.
async fn converge(here: &mut Option<Wiring>, wire: &Wire, linux: &Inner) -> Result<Programmed> {
    let ways = Ways {
        underlay: linux.underlay.as_ref(),
        wireguard: linux.wireguard.get(),
        vlans: linux.vlans.get(),
        trunks: linux.trunks.get(),
    };
    let plan = Plan::of(wire, &linux.mark, ways)?;
    let Some(wiring) = here else {
        let (wiring, programmed) = Wiring::make(wire, plan, linux, None).await?;
        *here = Some(wiring);
        return Ok(programmed);
    };
    if wiring.is_at(&plan) && wiring.is_sure() {
        let writes = wiring.change(wire, plan, linux).await?;
        return Ok(Programmed::Changed { writes });
    }
    if wiring.is_at(&plan) {
        // It is not known what is there: making finds out.
        wiring.stop().await;
        let vni = wiring.take_vni();
        let (wiring, programmed) = Wiring::make(wire, plan, linux, vni).await?;
        *here = Some(wiring);
        return Ok(programmed);
    }
    // The old one goes first: they may share a name, or a tunnel.
    match wiring.remove().await {
        // What is left of it is nobody's now: a census finds it.
        Err(error) if wiring.is_given_up() => tracing::warn!(%error, "a former wire is left for now"),
        removed => removed?,
    }
    let vni = wiring.take_vni();
    let old = here.take().filter(|old| !old.is_given_up());
    match Wiring::make(wire, plan, linux, vni).await {
        Ok((wiring, _)) => {
            *here = Some(wiring);
            Ok(Programmed::Moved)
        }
        Err(error) => {
            if let Some(old) = old {
                *here = old.restored(linux).await;
            }
            Err(error)
        }
    }
}

/// Whoever asked is gone and will not ask for a Close.
async fn abandon(here: &mut Option<Wiring>, outcome: &Result<Programmed>, linux: &Inner) {
    match outcome {
        Ok(Programmed::Made) => {
            if let Some(wiring) = here
                && let Err(error) = wiring.remove().await
            {
                tracing::warn!(%error, "could not remove a wire nobody waited for");
                wiring.give_up();
                linux.watching.tell_given_up();
            } else {
                *here = None;
            }
        }
        // As it was: an orphan.
        Ok(Programmed::Adopted) => *here = None,
        _ => {}
    }
}

impl fmt::Debug for Linux {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Linux({} wires)", self.wires())
    }
}
