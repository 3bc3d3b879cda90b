use std::sync::Arc;

use nsm_api::Mechanism;
use nsm_api::mechanism::{KERNEL, MEMIF, VXLAN, keys};
use nsm_chain::{Error, Result};

use super::{Fabric, Fault, Interface};
use crate::{Class, Dataplane, Programmed, Underlay, Vni, Wire};

/// The data plane of one life of a simulated forwarder: KERNEL on the node, VXLAN between nodes.
#[derive(Debug, Clone)]
pub struct Memory {
    pub(super) name: Arc<str>,
    pub(super) life: u64,
    pub(super) fabric: Fabric,
    pub(super) underlay: Option<Underlay>,
}

impl Memory {
    pub(super) fn new(name: Arc<str>, life: u64, fabric: Fabric, underlay: Option<Underlay>) -> Self {
        Self { name, life, fabric, underlay }
    }

    /// On this node, with which it loses what it has programmed ([`Fabric::lose_node`]).
    #[must_use]
    pub fn on_node(self, node: impl Into<Arc<str>>) -> Self {
        if let Some(forwarder) = self.fabric.lock().forwarders.get_mut(&self.name) {
            forwarder.node = node.into();
        }
        self
    }

    /// Whose data plane it is.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The identifier of the tunnel that an earlier life made for this connection, to the node that asks now.
    fn former(&self, id: &str, mechanism: &Mechanism, underlay: &Underlay) -> Option<Arc<Vni>> {
        let remote = mechanism.as_vxlan()?.src_ip().ok()??;
        let found = {
            let inner = self.fabric.lock();
            let mut of_this =
                inner.wires.values().filter(|s| s.forwarder == self.name && !self.made(s) && *s.wire.id == *id);
            of_this.find_map(|s| s.place.tunnel.as_ref().filter(|t| t.remote == remote).map(|tunnel| tunnel.vni))
        };
        underlay.vnis().claim(found?, remote).ok().map(Arc::new)
    }

    /// A drawn identifier that a wire on this node has is one that the next tunnel cannot get.
    fn check_issued(&self, vni: &Vni) {
        let mut inner = self.fabric.lock();
        let node = |name: &Arc<str>| inner.forwarders.get(name).map(|f| Arc::clone(&f.node));
        let here = node(&self.name);
        let uses = inner.wires.values().find(|standing| {
            standing.place.tunnel.as_ref().is_some_and(|t| t.vni == vni.number()) && node(&standing.forwarder) == here
        });
        if let Some(id) = uses.map(|standing| Arc::clone(&standing.wire.id)) {
            inner.faults.push(Fault::IssuedTwice { forwarder: Arc::clone(&self.name), vni: vni.number(), id });
        }
    }
}

impl Dataplane for Memory {
    type Lease = Option<Arc<Vni>>;

    fn accepts(&self, _payload: &str) -> Vec<&'static str> {
        let remote = self.underlay.as_ref().map(|_| VXLAN);
        std::iter::once(KERNEL).chain(remote).collect()
    }

    fn offers(&self, _id: &str, class: Class, _payload: &str) -> Vec<Mechanism> {
        match class {
            Class::Local => vec![Mechanism::kernel()],
            Class::Remote => self.underlay.iter().map(Underlay::offer).collect(),
        }
    }

    fn accept(&self, id: &str, mechanism: &mut Mechanism, held: Option<&Self::Lease>) -> Result<Self::Lease> {
        if mechanism.is(VXLAN)
            && let Some(underlay) = &self.underlay
        {
            let named = mechanism.parameter(keys::VNI).is_some();
            let held = held.and_then(Option::as_ref);
            let former = if held.is_none() { self.former(id, mechanism, underlay) } else { None };
            let held = held.or(former.as_ref());
            let vni = underlay.accept(mechanism, held)?;
            if !named && held.is_none() {
                self.check_issued(&vni);
            }
            return Ok(Some(vni));
        }
        match Interface::of(mechanism) {
            Some(interface) if !interface.name.is_empty() => Ok(None),
            _ => {
                Err(Error::invalid("the KERNEL mechanism has no interface name").hint("the offering side must set it"))
            }
        }
    }

    /// It has no memory to share.
    fn joins(&self, caller: &Mechanism, next: &Mechanism) -> bool {
        !caller.is(MEMIF) && !next.is(MEMIF)
    }

    async fn connect(&self, wire: &Wire) -> Result<Programmed> {
        if self.has(wire) {
            return Ok(Programmed::Unchanged);
        }
        self.pause().await;
        self.program(wire)
    }

    async fn disconnect(&self, id: &str) -> Result<()> {
        if !self.has_any(id) {
            return Ok(());
        }
        self.pause().await;
        self.unwire(id)
    }
}

impl Memory {
    async fn pause(&self) {
        let time = self.fabric.lock().takes;
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
    }
}
