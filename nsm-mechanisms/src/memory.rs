//! A data plane that only remembers: for tests and simulations.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nsm_api::Mechanism;
use nsm_api::mechanism::{KERNEL, VXLAN, keys};
use nsm_chain::{Error, Result};

use crate::{Class, Dataplane, Programmed, Underlay, Vni, Wire};

/// What all forwarders of a simulated mesh have programmed. Cloning is cheap; every copy sees the same.
#[derive(Clone, Default)]
pub struct Fabric(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// By forwarder and connection id.
    wires: BTreeMap<(String, String), Wire>,
    writes: usize,
    failing: usize,
}

impl Fabric {
    /// Nothing programmed yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The data plane of a forwarder. Without an underlay no next hop on another node can be reached.
    ///
    /// One of the same name made later (the forwarder restarted) finds what the earlier one programmed.
    #[must_use]
    pub fn forwarder(&self, name: impl Into<String>, underlay: Option<Underlay>) -> Memory {
        Memory { name: name.into(), fabric: self.clone(), underlay }
    }

    /// All wires, each with the name of the forwarder that programmed it.
    #[must_use]
    pub fn wires(&self) -> Vec<(String, Wire)> {
        self.lock().wires.iter().map(|((forwarder, _), wire)| (forwarder.clone(), wire.clone())).collect()
    }

    /// How often a wire was made, changed or removed so far.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.lock().writes
    }

    /// Refuses the next `count` changes.
    pub fn fail_next(&self, count: usize) {
        self.lock().failing = count;
    }

    /// The forwarder of this name lost all it had programmed: its node was restarted.
    pub fn forget(&self, forwarder: &str) {
        self.lock().wires.retain(|(name, _), _| name != forwarder);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One change, unless it is to fail.
    fn write<R>(&self, change: impl FnOnce(&mut BTreeMap<(String, String), Wire>) -> R) -> Result<R> {
        let mut inner = self.lock();
        if let Some(left) = inner.failing.checked_sub(1) {
            inner.failing = left;
            return Err(Error::unavailable("the data plane refuses, as it was told to"));
        }
        inner.writes += 1;
        Ok(change(&mut inner.wires))
    }
}

impl fmt::Debug for Fabric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fabric({} wires)", self.lock().wires.len())
    }
}

/// The data plane of one simulated forwarder: KERNEL on the node, VXLAN between nodes.
#[derive(Debug, Clone)]
pub struct Memory {
    name: String,
    fabric: Fabric,
    underlay: Option<Underlay>,
}

impl Memory {
    /// Whose data plane it is.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Dataplane for Memory {
    type Lease = Option<Arc<Vni>>;

    fn accepts(&self, _payload: &str) -> Vec<&'static str> {
        let remote = self.underlay.as_ref().map(|_| VXLAN);
        std::iter::once(KERNEL).chain(remote).collect()
    }

    fn offers(&self, class: Class, _payload: &str) -> Vec<Mechanism> {
        match class {
            Class::Local => vec![Mechanism::kernel()],
            Class::Remote => self.underlay.iter().map(Underlay::offer).collect(),
        }
    }

    fn accept(&self, mechanism: &mut Mechanism, held: Option<&Self::Lease>) -> Result<Self::Lease> {
        if mechanism.is(VXLAN)
            && let Some(underlay) = &self.underlay
        {
            return underlay.accept(mechanism, held.and_then(Option::as_ref)).map(Some);
        }
        match mechanism.parameter(keys::INTERFACE_NAME) {
            Some(_) => Ok(None),
            None => {
                Err(Error::invalid("the KERNEL mechanism has no interface name").hint("the offering side must set it"))
            }
        }
    }

    async fn connect(&self, wire: &Wire) -> Result<Programmed> {
        let key = (self.name.clone(), wire.id.to_string());
        let before = self.fabric.lock().wires.get(&key).cloned();
        if before.as_ref() == Some(wire) {
            return Ok(Programmed::Unchanged);
        }
        self.fabric.write(|wires| wires.insert(key, wire.clone()))?;
        Ok(match before {
            Some(_) => Programmed::Changed { writes: 1 },
            None => Programmed::Made,
        })
    }

    async fn disconnect(&self, id: &str) -> Result<()> {
        let key = (self.name.clone(), id.to_owned());
        if self.fabric.lock().wires.contains_key(&key) {
            self.fabric.write(|wires| wires.remove(&key))?;
        }
        Ok(())
    }
}
