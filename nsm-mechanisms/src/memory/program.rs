//! What the kernel would do with a wire.

use std::sync::Arc;

use nsm_chain::{Error, Result};

use super::place::Place;
use super::{Fault, Inner, Memory, Standing, Written};
use crate::{Programmed, Vni, Wire};

/// No life: the first has the number 1.
const NOBODY: u64 = 0;

impl Memory {
    /// Whether this life has programmed exactly this.
    pub(super) fn has(&self, wire: &Wire) -> bool {
        let inner = self.fabric.lock();
        inner.wires.values().any(|standing| self.made(standing) && standing.wire == *wire)
    }

    /// Whether this life has a wire of this connection, or had one that was lost.
    pub(super) fn owns(&self, id: &str) -> bool {
        let inner = self.fabric.lock();
        inner.forwarders.get(&self.name).is_some_and(|f| f.severed.contains_key(id))
            || inner.wires.values().any(|standing| self.made(standing) && *standing.wire.id == *id)
    }

    pub(super) fn made(&self, standing: &Standing) -> bool {
        standing.forwarder == self.name && standing.life == self.life
    }

    /// Whether it is one of ours that could not be removed: that may be asked for again.
    fn left(&self, standing: &Standing) -> bool {
        standing.forwarder == self.name && standing.life == NOBODY
    }

    /// Whether there is anything to remove of this connection.
    pub(super) fn has_any(&self, id: &str) -> bool {
        self.owns(id) || self.fabric.lock().wires.values().any(|s| self.left(s) && *s.wire.id == *id)
    }

    /// Makes a wire, takes up that of an earlier life, or changes the one that is there.
    pub(super) fn program(&self, wire: &Wire) -> Result<Programmed> {
        let place = Place::of(wire, self.underlay.as_ref())?;
        let mut dropped = Vec::new();
        let mut inner = self.fabric.lock();
        let outcome = self.converge(&mut inner, wire, place, &mut dropped);
        drop(inner);
        outcome
    }

    pub(super) fn unwire(&self, id: &str) -> Result<()> {
        let mut inner = self.fabric.lock();
        let at =
            inner.wires.iter().find(|(_, s)| (self.made(s) || self.left(s)) && *s.wire.id == *id).map(|(at, _)| *at);
        if let Err(refused) = inner.admit(&self.name, self.life) {
            // Its connection is gone: it is an orphan now, as one of an earlier life, and keeps its identifier.
            let left = at.and_then(|at| inner.wires.get_mut(&at));
            let vni = left.and_then(|left| {
                left.life = NOBODY;
                left.place.tunnel.as_ref().map(|tunnel| tunnel.vni)
            });
            if let Some(forwarder) = inner.forwarders.get_mut(&self.name).filter(|f| f.life == self.life) {
                let kept = vni.zip(forwarder.vnis.as_ref()).map(|(vni, pool)| pool.reserve(vni));
                forwarder.occupied.extend(kept);
            }
            return Err(refused);
        }
        let removed = at.and_then(|at| inner.take(at, Written::Removed));
        self.forget_severed(&mut inner, id);
        drop(inner);
        drop(removed);
        Ok(())
    }

    /// Its connection is to be closed.
    fn sever(&self, inner: &mut Inner, id: Arc<str>) {
        if let Some(forwarder) = inner.forwarders.get_mut(&self.name) {
            forwarder.severed.insert(id, false);
        }
        self.fabric.0.lost.notify_waiters();
    }

    fn forget_severed(&self, inner: &mut Inner, id: &str) {
        if let Some(forwarder) = inner.forwarders.get_mut(&self.name) {
            forwarder.severed.remove(id);
        }
    }

    fn converge(
        &self,
        inner: &mut Inner,
        wire: &Wire,
        place: Place,
        dropped: &mut Vec<Standing>,
    ) -> Result<Programmed> {
        inner.admit(&self.name, self.life)?;
        if let Some(end) = place.ends.iter().find(|end| inner.gone.contains(&end.netns)) {
            return Err(Error::precondition(format!("{end} has nowhere to be: the namespace is gone")));
        }
        let of_this = |standing: &Standing| standing.forwarder == self.name && standing.wire.id == wire.id;
        let own = inner.wires.iter().find(|(_, s)| of_this(s) && self.made(s)).map(|(at, _)| *at);
        let same = inner.wires.iter().find(|(_, s)| of_this(s) && s.place == place).map(|(at, _)| *at);
        if same.is_none() && inner.forwarders.get(&self.name).is_some_and(|forwarder| forwarder.full) {
            return Err(Error::exhausted("the data plane can make no further wire, as it was told"));
        }
        let former = own.and_then(|at| inner.wires.get_mut(&at)?.vni.take());
        let vni = match self.claim(&place, former) {
            Ok(vni) => vni,
            Err((error, former)) => {
                if let Some(standing) = own.and_then(|at| inner.wires.get_mut(&at)) {
                    standing.vni = former;
                }
                return Err(error);
            }
        };
        if let Err(error) = self.make_room(inner, wire, &place, own.or(same), dropped) {
            if let Some(standing) = own.and_then(|at| inner.wires.get_mut(&at)) {
                standing.vni = vni;
            }
            return Err(error);
        }
        let (programmed, written) = match (own, same) {
            (Some(own), Some(same)) if own == same => (Programmed::Changed { writes: 1 }, Written::Changed),
            (Some(_), _) => (Programmed::Moved, Written::Moved),
            (None, Some(_)) => (Programmed::Adopted, Written::Adopted),
            (None, None) => (Programmed::Made, Written::Made),
        };
        // What is in its place now is the same wire to all who look.
        let serial = match programmed {
            Programmed::Made => {
                inner.next += 1;
                inner.next
            }
            _ => own.or(same).unwrap_or_default(),
        };
        let (forwarder, remembered) = (Arc::clone(&self.name), wire.remembered());
        // To take up what is as it should be changes nothing.
        let untouched =
            programmed == Programmed::Adopted && inner.wires.get(&serial).is_some_and(|b| b.wire == remembered);
        let standing = Standing { forwarder, wire: remembered, place, life: self.life, vni };
        let before = inner.wires.insert(serial, standing);
        dropped.extend(before);
        self.forget_severed(inner, &wire.id);
        inner.note(&self.name, &wire.id, written);
        if untouched {
            inner.writes -= 1;
        }
        Ok(programmed)
    }

    /// The identifier of a tunnel that the other node issued: nobody here may issue it now.
    fn claim(&self, place: &Place, former: Option<Vni>) -> Result<Option<Vni>, (Error, Option<Vni>)> {
        let (Some(tunnel), Some(underlay), true) = (&place.tunnel, &self.underlay, place.foreign) else {
            return Ok(None);
        };
        match former {
            Some(held) if (held.number(), held.peer()) == (tunnel.vni, tunnel.remote) => Ok(Some(held)),
            former => match underlay.vnis().claim(tunnel.vni, tunnel.remote) {
                Ok(vni) => Ok(Some(vni)),
                Err(error) => {
                    let what = "the next hop chose a tunnel that cannot be used here";
                    Err((Error::taken(what).because(error), former))
                }
            },
        }
    }

    /// Checks that interfaces and tunnel are free. What stands in the way gives way if it is of a life of this forwarder
    /// or of the wire's client that is over.
    fn make_room(
        &self,
        inner: &mut Inner,
        wire: &Wire,
        place: &Place,
        except: Option<u64>,
        dropped: &mut Vec<Standing>,
    ) -> Result<()> {
        let node = inner.forwarders.get(&self.name).map(|f| Arc::clone(&f.node));
        let in_the_way: Vec<(u64, String)> = inner
            .wires
            .iter()
            .filter(|(at, _)| Some(**at) != except)
            .filter_map(|(at, standing)| {
                let mut ends = place.ends.iter();
                let end = ends.find(|end| standing.place.ends.iter().any(|other| end.is(other)));
                let there = inner.forwarders.get(&standing.forwarder).map(|f| &f.node);
                let tunnel = match (&place.tunnel, &standing.place.tunnel) {
                    (Some(new), Some(old)) if there == node.as_ref() => {
                        (new.vni, new.remote, new.port) == (old.vni, old.remote, old.port)
                    }
                    _ => false,
                };
                let what = end.map(ToString::to_string).or_else(|| place.tunnel.as_ref().map(ToString::to_string));
                (end.is_some() || tunnel).then_some((*at, what.unwrap_or_default()))
            })
            .collect();
        for (at, what) in in_the_way {
            let Some(standing) = inner.wires.get(&at) else { continue };
            if standing.forwarder == self.name && standing.life != self.life {
                dropped.extend(inner.take(at, Written::Swept));
                continue;
            }
            if standing.forwarder == self.name && wire.supersedes(&standing.wire) {
                let former = Arc::clone(&standing.wire.id);
                dropped.extend(inner.take(at, Written::Swept));
                self.sever(inner, former);
                continue;
            }
            let (owner, whose) = (Arc::clone(&standing.wire.id), Arc::clone(&standing.forwarder));
            if whose == self.name {
                let (forwarder, id) = (Arc::clone(&self.name), Arc::clone(&wire.id));
                inner.faults.push(Fault::OwnedTwice { forwarder, what: what.clone(), id, owner: Arc::clone(&owner) });
            }
            return Err(Error::taken(format!("{what} belongs to connection {owner} of {whose}")));
        }
        Ok(())
    }
}
