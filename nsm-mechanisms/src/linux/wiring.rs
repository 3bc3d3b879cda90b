//! The interfaces of one wire, and what is done with them.

use nsm_chain::{Error, Result};
use nsm_kernel::{Error as Kernel, Interface, Netns, NetnsId, Snapshot, VxlanTunnel, delete_link, reconcile};

use super::Inner;
use super::copying::Worker;
use super::error::{Trouble, failed};
use super::interfaces::{self, Parts, adopt, back, create, run, set_route_localnet};
use super::plan::{End, Plan};
use super::trunk::{self, Trunk};
use super::tunnel::Tunnel;
use crate::{Copied, Mended, Programmed, Vni, Wire};

/// A wire that was made or adopted.
#[derive(Debug)]
pub(super) struct Wiring {
    wire: Wire,
    plan: Plan,
    parts: Parts,
    /// Who copies its packets, where one side is shared memory.
    worker: Option<Worker>,
    /// An identifier that the other node issued, claimed here.
    vni: Option<Vni>,
    /// `parts` says what the kernel has.
    sure: bool,
    /// Nobody wants it any more, and it may still be there.
    given_up: bool,
}

/// How often an interface of ours may be in the way of a new wire: once at each end.
const STALE: usize = 2;

impl Wiring {
    /// Makes a wire; or takes up the one that an earlier life of this forwarder left. `vni` is what the connection's
    /// former wire had claimed.
    pub(super) async fn make(wire: &Wire, plan: Plan, linux: &Inner, vni: Option<Vni>) -> Result<(Self, Programmed)> {
        let vni = claimed(&plan, vni)?;
        let what = |error: Trouble| failed(format!("cannot make the wire of connection {}", wire.id), error);
        let mut stale = 0;
        let (parts, programmed) = loop {
            let (name, netns, alias) = match create(&plan).await {
                Ok(parts) => break (parts, Programmed::Made),
                Err(Trouble::Kernel(Kernel::NameTaken { name, netns, alias: Some(alias) })) if stale < STALE => {
                    (name, netns, alias)
                }
                Err(error) => return Err(what(error)),
            };
            stale += 1;
            if let Some(parts) = adopt(&plan).await.map_err(what)? {
                break (parts, Programmed::Adopted);
            }
            let end = plan.ends.iter().find(|end| end.netns.id() == netns);
            let link = (netns, &*name, &*alias);
            let over = linux.mark.names(&wire.id, &alias)
                || (alias.starts_with(linux.mark.prefix())
                    && (linux.supersede(wire, link) || !linux.table.claims(&linux.mark, link)));
            match end {
                // Of a life that is over: this connection's, its client's or another's.
                Some(end) if over => {
                    delete_link(&end.netns, &name, &alias).await.map_err(|error| what(error.into()))?;
                    linux.release(&alias).await.map_err(|error| what(error.into()))?;
                }
                _ => {
                    return Err(what(Kernel::NameTaken { name, netns, alias: Some(alias) }.into()));
                }
            };
        };
        let mut wiring = Self { wire: wire.remembered(), plan, parts, worker: None, vni, sure: true, given_up: false };
        let finished = match wiring.set_route_localnet(&[]).await {
            Ok(_) => wiring.copy(linux).await,
            Err(error) => Err(error),
        };
        match finished {
            Ok(()) => Ok((wiring, programmed)),
            Err(error) => {
                if let Err(stuck) = wiring.remove().await {
                    tracing::warn!(error = %stuck, "could not remove a wire that failed");
                }
                Err(error)
            }
        }
    }

    /// Whether this is exactly what was programmed last.
    pub(super) fn is_for(&self, wire: &Wire) -> bool {
        self.sure && self.wire == *wire
    }

    /// Whether it is known what the kernel has: no change or removal stopped half way.
    pub(super) fn is_sure(&self) -> bool {
        self.sure
    }

    /// Nobody wants it any more: its connection is closed, or has got another one. What is left of it is to be removed.
    pub(super) fn give_up(&mut self) {
        self.given_up = true;
        self.sure = false;
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.given_up
    }

    pub(super) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// What it had claimed, for the wire that takes its place.
    pub(super) fn take_vni(&mut self) -> Option<Vni> {
        self.vni.take()
    }

    /// Whether the interfaces are where the plan wants them, and of the same tunnel (which is in the mark).
    pub(super) fn is_at(&self, plan: &Plan) -> bool {
        self.plan.ends.len() == plan.ends.len()
            && self.plan.ends.iter().zip(&plan.ends).all(|(old, new)| {
                old.netns == new.netns && old.spec.name == new.spec.name && old.spec.alias == new.spec.alias
            })
    }

    pub(super) fn has(&self, (netns, name, alias): (NetnsId, &str, &str)) -> bool {
        if let Some(trunk) = &self.plan.trunk
            && trunk.is((netns, name, alias))
        {
            return true;
        }
        self.plan
            .ends
            .iter()
            .any(|end| end.netns.id() == netns && end.spec.name.as_str() == name && end.spec.alias == alias)
    }

    /// Changes what differs; says how many changes that took. What fails is changed back.
    pub(super) async fn change(&mut self, wire: &Wire, plan: Plan, linux: &Inner) -> Result<usize> {
        let what = |error| failed(format!("cannot change the wire of connection {}", wire.id), error);
        self.sure = false;
        let before: Vec<_> = self.interfaces().iter().map(|interface| interface.spec().clone()).collect();
        let mut writes = 0;
        for (at, end) in plan.ends.iter().enumerate() {
            let Some(interface) = self.parts.interfaces.get_mut(at) else {
                continue;
            };
            match interface.update(&end.spec).await {
                Ok(changes) => writes += changes.writes,
                Err(error) => {
                    self.sure = back(&mut self.parts.interfaces[..at], &before).await;
                    return Err(what(error));
                }
            }
        }
        let old = std::mem::replace(&mut self.plan, plan);
        writes += self
            .rerun(&old)
            .await
            .map_err(|error| failed(format!("cannot change the tunnel of connection {}", self.wire.id), error))?;
        writes += self.set_route_localnet(&old.ends).await?;
        if let (Some(worker), Some(copying)) = (&mut self.worker, &self.plan.copying) {
            writes += worker.follow(wire, copying, &linux.sockets).await?;
        }
        self.wire = wire.remembered();
        self.sure = true;
        Ok(writes)
    }

    /// Has the tunnels that we carry ourselves go on as the plan says now; says how many changes that took.
    async fn rerun(&mut self, former: &Plan) -> Result<usize, nsm_wireguard::Error> {
        let (wanted, running) = (self.plan.peerings().count(), self.parts.running.len());
        if wanted == running && former.peerings().eq(self.plan.peerings()) {
            let ends = self.plan.ends.iter().filter(|end| end.peering().is_some());
            for (running, end) in self.parts.running.iter().zip(ends) {
                running.set_mtu(end.spec.mtu);
            }
            return Ok(0);
        }
        self.stop().await;
        self.parts.running = run(&self.plan, &self.parts.interfaces).await?;
        Ok(wanted)
    }

    /// Ends what carries its packets, where the kernel does not: two of it would be in each other's way.
    pub(super) async fn stop(&mut self) {
        for running in self.parts.running.drain(..) {
            running.close().await;
        }
        self.parts.device = None;
        if let Some(worker) = self.worker.take() {
            worker.close().await;
        }
    }

    /// Begins to copy its packets, if that is for us to do.
    async fn copy(&mut self, linux: &Inner) -> Result<()> {
        if let Some(copying) = &self.plan.copying {
            let device = self.parts.device.take();
            self.worker = Some(Worker::begin(&self.wire, copying, device, &linux.sockets).await?);
        }
        Ok(())
    }

    /// What was copied, if something is.
    pub(super) fn copied(&self) -> Option<Copied> {
        self.worker.as_ref().map(Worker::copied)
    }

    /// Where its interfaces are.
    pub(super) fn places(&self) -> impl Iterator<Item = &Netns> {
        let trunk = self.plan.trunk.iter().map(Trunk::endpoint);
        self.plan.ends.iter().map(|end| &end.netns).chain(trunk)
    }

    pub(super) fn interfaces(&self) -> &[Interface] {
        &self.parts.interfaces
    }

    /// Who carries its packets, where the kernel does not.
    pub(super) fn running(&self) -> &[nsm_wireguard::Tunnel] {
        &self.parts.running
    }

    /// Whether an interface of it in that namespace is missing or not as it should be.
    pub(super) fn differs(&self, snapshot: &Snapshot) -> bool {
        let ends = &mut self.plan.ends.iter();
        ends.any(|end| end.netns.id() == snapshot.netns() && !snapshot.shows(&end.spec))
            || self.plan.trunk.as_ref().is_some_and(|trunk| trunk.differs(snapshot))
    }

    /// Whether one of these tunnels carries it.
    pub(super) fn goes_through(&self, tunnels: &[VxlanTunnel]) -> bool {
        self.plan.ends.iter().any(|end| match &end.tunnel {
            Some(Tunnel::Vxlan { vxlan, .. }) => tunnels.contains(vxlan),
            _ => false,
        })
    }

    /// Makes it what it should be again, whatever somebody else did to it.
    pub(super) async fn mend(&mut self, linux: &Inner) -> Result<Mended> {
        let what = |error| failed(format!("cannot mend the wire of connection {}", self.wire.id), error);
        if self.places().any(|netns| linux.watching.is_deserted(netns.id())) {
            return Ok(Mended::Gone);
        }
        if let Some(trunk) = &self.plan.trunk {
            let _others_wait = trunk::lock().await;
            trunk.make().await.map_err(what)?;
        }
        let mut writes = 0;
        let mut missing = false;
        for end in &self.plan.ends {
            match mend_end(end).await {
                Ok(changed) => writes += changed,
                Err(Kernel::LinkNotFound { .. }) => missing = true,
                Err(error) => return Err(what(error)),
            }
        }
        if !missing {
            return Ok(if writes == 0 { Mended::Whole } else { Mended::Changed { writes } });
        }
        // What is left of it would be in the way.
        self.remove().await?;
        let vni = self.take_vni();
        let (again, _) = Self::make(&self.wire.clone(), self.plan.clone(), linux, vni).await?;
        *self = again;
        Ok(Mended::Remade)
    }

    /// Removes all of it. What is gone already counts as removed.
    pub(super) async fn remove(&mut self) -> Result<()> {
        self.stop().await;
        let mut left = Vec::new();
        for end in &self.plan.ends {
            // The second end of a pair goes with the first; its rules do not.
            if let Err(error) = interfaces::remove(end).await {
                left.push(failed(format!("interface {} in {} is left", end.spec.name, end.netns.id()), error));
            }
        }
        if let Some(trunk) = &self.plan.trunk {
            let _others_wait = trunk::lock().await;
            left.extend(trunk.leave().await.err().map(|error| failed("the trunk is left", error)));
        }
        if left.is_empty() {
            return Ok(());
        }
        self.sure = false;
        Err(Error::all_failed(format!("the wire of connection {} could not be removed", self.wire.id), left))
    }

    /// Makes a wire again that had to go for another one which then failed.
    pub(super) async fn restored(self, linux: &Inner) -> Option<Self> {
        let Self { wire, plan, vni, .. } = self;
        match Self::make(&wire, plan, linux, vni).await {
            Ok((wiring, _)) => Some(wiring),
            Err(error) => {
                tracing::warn!(id = &*wire.id, %error, "the former wire could not be restored");
                None
            }
        }
    }

    async fn set_route_localnet(&self, before: &[End]) -> Result<usize> {
        let mut writes = 0;
        for (at, end) in self.plan.ends.iter().enumerate() {
            let was = before.get(at).is_some_and(|end| end.route_localnet);
            if end.route_localnet != was {
                set_route_localnet(end).await?;
                writes += 1;
            }
        }
        Ok(writes)
    }
}

/// Puts right what differs, and says how many changes that took.
async fn mend_end(end: &End) -> Result<usize, Kernel> {
    let mut writes = 0;
    if !Snapshot::of(&end.netns, &end.spec.name).await?.shows(&end.spec) {
        writes += reconcile(&end.netns, &end.spec).await?.writes;
    }
    if let Some(Tunnel::Vxlan { vxlan, node, .. }) = &end.tunnel {
        writes += usize::from(vxlan.mend(node, (&end.netns, &end.spec)).await?);
    }
    Ok(writes)
}

/// The identifier of the plan's tunnel, if the other node issued it: nobody here may issue it now.
fn claimed(plan: &Plan, held: Option<Vni>) -> Result<Option<Vni>> {
    let foreign = plan.ends.iter().find_map(|end| match &end.tunnel {
        Some(Tunnel::Vxlan { vxlan, foreign, .. }) => Some((vxlan, foreign.as_ref()?)),
        _ => None,
    });
    let Some((vxlan, underlay)) = foreign else {
        return Ok(None);
    };
    if let Some(held) = held.filter(|held| (held.number(), held.peer()) == (vxlan.vni, vxlan.remote)) {
        return Ok(Some(held));
    }
    let claimed = underlay.vnis().claim(vxlan.vni, vxlan.remote);
    let claimed =
        claimed.map_err(|error| Error::taken("the next hop chose a tunnel that cannot be used here").because(error));
    claimed.map(Some)
}
