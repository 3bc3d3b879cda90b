//! The node's tunnels, and which one a message is for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::peer::Peer;
use crate::{Error, Result};

/// A session's index has 24 bits for its tunnel; the protocol's crate counts sessions in the other 8.
const INDICES: u32 = 1 << 24;
/// As many tunnels are told apart with a search for a free index that is short.
const MOST: usize = INDICES as usize / 2;

/// By index, and by the other node's address.
#[derive(Default)]
pub(crate) struct Peers {
    by_index: HashMap<u32, Arc<Peer>>,
    by_node: HashMap<IpAddr, Vec<u32>>,
    last: u32,
}

impl Peers {
    /// An index that no tunnel has. Those of tunnels that are gone come up again last: somebody may still send to them.
    pub(crate) fn free_index(&mut self) -> Result<u32> {
        if self.by_index.len() >= MOST {
            return Err(Error::Exhausted(self.by_index.len()));
        }
        loop {
            self.last = (self.last + 1) % INDICES;
            if !self.by_index.contains_key(&self.last) {
                return Ok(self.last);
            }
        }
    }

    pub(crate) fn insert(&mut self, index: u32, peer: Arc<Peer>) {
        self.by_node.entry(peer.endpoint.ip()).or_default().push(index);
        self.by_index.insert(index, peer);
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<Arc<Peer>> {
        let peer = self.by_index.remove(&index)?;
        let node = peer.endpoint.ip();
        if let Some(there) = self.by_node.get_mut(&node) {
            there.retain(|other| *other != index);
            if there.is_empty() {
                self.by_node.remove(&node);
            }
        }
        Some(peer)
    }

    /// The tunnel to which the receiver index of a message belongs.
    pub(crate) fn of(&self, receiver: u32) -> Option<&Peer> {
        self.by_index.get(&(receiver >> 8)).map(AsRef::as_ref)
    }

    /// The tunnels to one node.
    pub(crate) fn to(&self, node: IpAddr) -> impl Iterator<Item = &Peer> {
        let there = self.by_node.get(&node).map(Vec::as_slice).unwrap_or_default();
        there.iter().filter_map(|index| self.by_index.get(index)).map(AsRef::as_ref)
    }

    pub(crate) fn indices(&self) -> Vec<u32> {
        self.by_index.keys().copied().collect()
    }

    pub(crate) fn with(&self, index: u32) -> Option<&Peer> {
        self.by_index.get(&index).map(AsRef::as_ref)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_index.len()
    }
}
