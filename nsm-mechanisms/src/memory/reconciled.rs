//! What a forwarder's life finds, and what it does about it.

use std::fmt;
use std::sync::Arc;

use nsm_chain::Result;

use super::{Memory, Written};
use crate::{Census, Mended, Reach, Reconciled};

/// A wire of an earlier life of a forwarder.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stray {
    at: u64,
    forwarder: Arc<str>,
    id: Arc<str>,
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wire {} of {}", self.id, self.forwarder)
    }
}

impl Reconciled for Memory {
    type Stray = Stray;

    /// There is nothing here that would be dear to look at: it always looks everywhere.
    async fn census(&self, _reach: Reach) -> Census<Stray> {
        let mut inner = self.fabric.lock();
        let strays = inner.wires.iter().filter(|(_, s)| s.forwarder == self.name && s.life != self.life);
        let stray = |id: &Arc<str>, at| Stray { at, forwarder: Arc::clone(&self.name), id: Arc::clone(id) };
        let (strays, vnis): (Vec<_>, Vec<_>) =
            strays.map(|(at, s)| (stray(&s.wire.id, *at), s.place.tunnel.as_ref().map(|tunnel| tunnel.vni))).unzip();
        let Some(forwarder) = inner.forwarders.get_mut(&self.name).filter(|f| f.life == self.life) else {
            return Census { strays: Vec::new(), drifted: Vec::new() };
        };
        // The former ones go first: a guard takes its number's mark away, whoever else has reserved it.
        let former = std::mem::take(&mut forwarder.occupied);
        drop(former);
        if let Some(pool) = &forwarder.vnis {
            forwarder.occupied = vnis.into_iter().flatten().map(|number| pool.reserve(number)).collect();
        }
        let drifted = forwarder.severed.keys().cloned().collect();
        Census { strays, drifted }
    }

    async fn remove(&self, stray: &Stray) -> Result<bool> {
        let mut inner = self.fabric.lock();
        if inner.wires.get(&stray.at).is_none_or(|standing| self.made(standing)) {
            return Ok(false);
        }
        inner.admit(&self.name, self.life)?;
        let removed = inner.take(stray.at, Written::Swept);
        drop(inner);
        Ok(removed.is_some())
    }

    async fn mend(&self, id: &str) -> Result<Mended> {
        let inner = self.fabric.lock();
        if inner.forwarders.get(&self.name).is_some_and(|f| f.life == self.life && f.severed.contains_key(id)) {
            return Ok(Mended::Gone);
        }
        let owned = inner.wires.values().any(|standing| self.made(standing) && *standing.wire.id == *id);
        Ok(if owned { Mended::Whole } else { Mended::Unknown })
    }

    async fn disturbed(&self) -> Vec<Arc<str>> {
        loop {
            let lost = self.fabric.0.lost.notified();
            tokio::pin!(lost);
            lost.as_mut().enable();
            let untold = self.untold();
            if !untold.is_empty() {
                return untold;
            }
            lost.await;
        }
    }
}

impl Memory {
    fn untold(&self) -> Vec<Arc<str>> {
        let mut inner = self.fabric.lock();
        let Some(forwarder) = inner.forwarders.get_mut(&self.name).filter(|f| f.life == self.life) else {
            return Vec::new();
        };
        let untold = forwarder.severed.iter_mut().filter(|(_, told)| !**told);
        untold
            .map(|(id, told)| {
                *told = true;
                Arc::clone(id)
            })
            .collect()
    }
}
