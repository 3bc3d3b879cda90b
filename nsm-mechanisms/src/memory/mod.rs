//! A data plane that only remembers: for tests and simulations.
//!
//! It keeps the kernel's rules. A [`Fabric`] is all nodes of a mesh with their interfaces and tunnels, and what joins the
//! nodes; a [`Memory`] is one life of a forwarder on one of them. What a life has programmed outlives it, and its next
//! life takes it up; it goes with its node, or with the namespace it is in. A second interface of the same name in a
//! namespace, and a second tunnel of the same identifier on a node, are refused. Whether packets get from a client to its
//! endpoint is worked out by walking the wires ([`Fabric::flows`]).
//!
//! ```
//! use nsm_mechanisms::memory::Fabric;
//! use nsm_mechanisms::{CrossConnect, Underlay};
//!
//! let fabric = Fabric::new();
//! let underlay = Underlay::new("192.168.0.1".parse()?);
//! let wire = CrossConnect::new(fabric.forwarder("forwarder-1", Some(underlay)).on_node("node-1"));
//! # Ok::<(), std::net::AddrParseError>(())
//! ```

mod dataplane;
mod place;
mod program;
mod reconciled;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nsm_chain::{Error, Result};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::{Reserved, Underlay, Vni, Vnis, Wire};

pub use dataplane::Memory;
use place::Place;
pub use place::{Interface, Tunnel};
pub use reconciled::Stray;
pub use walk::{Broken, Trail};

/// What all forwarders of a simulated mesh have programmed. Cloning is cheap; every copy sees the same.
#[derive(Clone, Default)]
pub struct Fabric(Arc<Shared>);

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    /// A wire was lost that somebody owned.
    lost: Notify,
}

#[derive(Default)]
struct Inner {
    forwarders: BTreeMap<Arc<str>, Forwarder>,
    /// In the order in which they were made.
    wires: BTreeMap<u64, Standing>,
    next: u64,
    /// From which address to which other no packet passes.
    cuts: BTreeSet<(IpAddr, IpAddr)>,
    /// Namespaces that are gone.
    gone: BTreeSet<Arc<str>>,
    faults: Vec<Fault>,
    log: Option<Vec<Write>>,
    writes: usize,
    failing: usize,
    takes: Duration,
}

/// The latest life of a forwarder.
#[derive(Default)]
struct Forwarder {
    life: u64,
    alive: bool,
    node: Arc<str>,
    vnis: Option<Arc<Vnis>>,
    /// Identifiers of wires that nobody owns.
    occupied: Vec<Reserved>,
    /// Connections whose wire was lost with a namespace, and whether the forwarder has heard of it.
    severed: BTreeMap<Arc<str>, bool>,
    failing: usize,
    full: bool,
}

/// A wire that is there.
struct Standing {
    forwarder: Arc<str>,
    wire: Wire,
    place: Place,
    /// Which life has made it or taken it up. Of an earlier one: an orphan, until it is taken up.
    life: u64,
    /// An identifier that the other node issued, claimed by that life.
    vni: Option<Vni>,
}

/// One change of a forwarder's wires.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// When.
    pub at: Instant,
    /// Whose.
    pub forwarder: Arc<str>,
    /// The connection's id at that forwarder.
    pub id: Arc<str>,
    /// What was done.
    pub what: Written,
}

/// What was done to a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It was not there; now it is.
    Made,
    /// What an earlier life had made was taken up. No packet was lost.
    Adopted,
    /// Addresses, routes, MTU: in place. No packet was lost that should have passed.
    Changed,
    /// Removed here, made there.
    Moved,
    /// Its connection was closed.
    Removed,
    /// It had no owner.
    Swept,
    /// Its node or namespace is gone, and it with them.
    Lost,
}

/// What no forwarder may do, and one did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// An identifier was handed out that a wire on this node uses.
    #[error("{forwarder} issued network identifier {vni} for another connection, which its wire {id} uses")]
    IssuedTwice {
        /// Who did.
        forwarder: Arc<str>,
        /// Which identifier.
        vni: u32,
        /// The connection whose wire has it.
        id: Arc<str>,
    },
    /// A wire of a live connection stood where another connection of the same forwarder wanted one.
    #[error("{forwarder} wanted {what} for connection {id}, which its connection {owner} owns")]
    OwnedTwice {
        /// Who did.
        forwarder: Arc<str>,
        /// Which interface or tunnel.
        what: String,
        /// Who wanted it.
        id: Arc<str>,
        /// Who has it.
        owner: Arc<str>,
    },
}

impl Fabric {
    /// Nothing programmed yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The data plane of a forwarder, on a node of the forwarder's own. Without an underlay no next hop on another node
    /// can be reached.
    ///
    /// One of the same name made later is the forwarder's next life: it finds what the earlier one programmed, and that
    /// one can change nothing any more.
    #[must_use]
    pub fn forwarder(&self, name: impl Into<String>, underlay: Option<Underlay>) -> Memory {
        let name: Arc<str> = name.into().into();
        let mut inner = self.lock();
        let vnis = underlay.as_ref().map(|underlay| Arc::clone(underlay.vnis()));
        let forwarder = inner.forwarders.entry(Arc::clone(&name)).or_default();
        if forwarder.life == 0 {
            forwarder.node = Arc::clone(&name);
        }
        forwarder.life += 1;
        forwarder.alive = true;
        forwarder.severed.clear();
        let life = forwarder.life;
        let former = (std::mem::take(&mut forwarder.occupied), std::mem::replace(&mut forwarder.vnis, vnis));
        let claims = inner.release(&name);
        drop(inner);
        drop((claims, former));
        Memory::new(name, life, self.clone(), underlay)
    }

    /// Ends a forwarder's life: it can change nothing any more. What it has programmed stays.
    pub fn kill(&self, forwarder: &str) {
        let mut inner = self.lock();
        if let Some(forwarder) = inner.forwarders.get_mut(forwarder) {
            forwarder.alive = false;
        }
        let claims = inner.release(forwarder);
        drop(inner);
        drop(claims);
    }

    /// All wires, each with the name of the forwarder that programmed it, in the order of these names and of ids.
    #[must_use]
    pub fn wires(&self) -> Vec<(String, Wire)> {
        let mut wires: Vec<_> = self.lock().wires.values().map(|s| (s.forwarder.to_string(), s.wire.clone())).collect();
        wires.sort_by(|(a, one), (b, other)| (a, &one.id).cmp(&(b, &other.id)));
        wires
    }

    /// Wires that no life has claimed since the forwarder that made them ended.
    #[must_use]
    pub fn orphans(&self) -> Vec<(String, Wire)> {
        let inner = self.lock();
        let orphans = inner.wires.values().filter(|standing| !inner.is_claimed(standing));
        orphans.map(|standing| (standing.forwarder.to_string(), standing.wire.clone())).collect()
    }

    /// The names of the forwarders that live.
    #[must_use]
    pub fn forwarders(&self) -> Vec<String> {
        let inner = self.lock();
        inner.forwarders.iter().filter(|(_, f)| f.alive).map(|(name, _)| name.to_string()).collect()
    }

    /// Whether a forwarder of that name lives, or ever did.
    #[must_use]
    pub fn has_forwarder(&self, name: &str) -> bool {
        self.lock().forwarders.contains_key(name)
    }

    /// How many tunnel identifiers the forwarder's present life holds; `None` without an underlay.
    #[must_use]
    pub fn vnis(&self, forwarder: &str) -> Option<usize> {
        let vnis = self.lock().forwarders.get(forwarder)?.vnis.clone();
        vnis.map(|vnis| vnis.in_use())
    }

    /// How often a wire was made, changed or removed so far.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.lock().writes
    }

    /// Keeps a log of changes from now on.
    pub fn keep_log(&self) {
        self.lock().log.get_or_insert_default();
    }

    /// The changes since the log was last taken; nothing unless it is [kept](Self::keep_log).
    #[must_use]
    pub fn take_log(&self) -> Vec<Write> {
        self.lock().log.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What forwarders have done that none may. Empty, unless one of them is wrong.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        self.lock().faults.clone()
    }

    /// Refuses the next `count` changes.
    pub fn fail_next(&self, count: usize) {
        self.lock().failing = count;
    }

    /// Refuses the next `count` changes of this forwarder.
    pub fn fail_next_of(&self, forwarder: &str, count: usize) {
        if let Some(forwarder) = self.lock().forwarders.get_mut(forwarder) {
            forwarder.failing = count;
        }
    }

    /// Whether this forwarder can make no wire any more; it can change those that stand, and remove them.
    pub fn set_full(&self, forwarder: &str, full: bool) {
        if let Some(forwarder) = self.lock().forwarders.get_mut(forwarder) {
            forwarder.full = full;
        }
    }

    /// Every change takes that long.
    pub fn takes(&self, time: Duration) {
        self.lock().takes = time;
    }

    /// The forwarder of this name lost all it had programmed.
    pub fn forget(&self, forwarder: &str) {
        self.lose(|standing| *standing.forwarder == *forwarder);
    }

    /// A node was restarted: all that was programmed there is gone, and its forwarders have ended.
    pub fn lose_node(&self, node: &str) {
        let forwarders: Vec<Arc<str>> = {
            let inner = self.lock();
            inner.forwarders.iter().filter(|(_, f)| *f.node == *node).map(|(name, _)| Arc::clone(name)).collect()
        };
        for forwarder in &forwarders {
            self.kill(forwarder);
            self.forget(forwarder);
        }
    }

    /// A network namespace, named by its URL, is gone with all interfaces in it and their other ends. Nothing can be
    /// made there any more.
    pub fn lose_namespace(&self, url: &str) {
        let mut inner = self.lock();
        inner.gone.insert(url.into());
        let here = |standing: &Standing| standing.place.ends.iter().any(|end| *end.netns == *url);
        let owned = inner.wires.values().filter(|standing| here(standing) && inner.is_claimed(standing));
        let owned: Vec<_> = owned.map(|s| (Arc::clone(&s.forwarder), Arc::clone(&s.wire.id))).collect();
        for (forwarder, id) in owned {
            if let Some(forwarder) = inner.forwarders.get_mut(&forwarder) {
                forwarder.severed.insert(id, false);
            }
        }
        drop(inner);
        self.lose(here);
        self.0.lost.notify_waiters();
    }

    /// No packet passes from one underlay address to another until it is [mended](Self::mend); the other way they pass.
    pub fn cut(&self, from: IpAddr, to: IpAddr) {
        self.lock().cuts.insert((from, to));
    }

    /// Packets pass again from one underlay address to another.
    pub fn mend(&self, from: IpAddr, to: IpAddr) {
        self.lock().cuts.remove(&(from, to));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, which: impl Fn(&Standing) -> bool) {
        let mut inner = self.lock();
        let lost: Vec<u64> = inner.wires.iter().filter(|(_, standing)| which(standing)).map(|(at, _)| *at).collect();
        let lost: Vec<_> = lost.into_iter().filter_map(|at| inner.take(at, Written::Lost)).collect();
        drop(inner);
        drop(lost);
    }
}

impl Inner {
    fn is_claimed(&self, standing: &Standing) -> bool {
        self.forwarders.get(&standing.forwarder).is_some_and(|f| f.alive && f.life == standing.life)
    }

    /// What an ended life had claimed, to be dropped outside.
    fn release(&mut self, forwarder: &str) -> Vec<Vni> {
        self.wires.values_mut().filter(|s| *s.forwarder == *forwarder).filter_map(|s| s.vni.take()).collect()
    }

    fn note(&mut self, forwarder: &Arc<str>, id: &Arc<str>, what: Written) {
        self.writes += 1;
        if let Some(log) = &mut self.log {
            log.push(Write { at: Instant::now(), forwarder: Arc::clone(forwarder), id: Arc::clone(id), what });
        }
    }

    /// Takes a wire away. What is returned must be dropped outside the lock.
    fn take(&mut self, at: u64, what: Written) -> Option<Standing> {
        let standing = self.wires.remove(&at)?;
        let (forwarder, id) = (Arc::clone(&standing.forwarder), Arc::clone(&standing.wire.id));
        self.note(&forwarder, &id, what);
        Some(standing)
    }

    /// Whether this life may change something now.
    fn admit(&mut self, name: &str, life: u64) -> Result<()> {
        let refused = || Error::unavailable("the data plane refuses, as it was told to");
        let forwarder = self.forwarders.get_mut(name).filter(|f| f.alive && f.life == life);
        let Some(forwarder) = forwarder else {
            return Err(Error::unavailable(format!("this life of {name} is over")));
        };
        for failing in [&mut self.failing, &mut forwarder.failing] {
            if let Some(left) = failing.checked_sub(1) {
                *failing = left;
                return Err(refused());
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Fabric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fabric({} wires)", self.lock().wires.len())
    }
}

#[cfg(test)]
mod tests;
