//! One tunnel's state: the protocol's, and whom its packets come from and go to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use boringtun::noise::Tunn;
use tun_rs::AsyncDevice;

use crate::counters::{Carried, Drops};
use crate::{Peering, Reason, Takes};

pub(crate) struct Peer {
    pub(crate) endpoint: SocketAddr,
    pub(crate) inside: Inside,
    pub(crate) sent: Carried,
    pub(crate) received: Carried,
    pub(crate) drops: Drops,
    mtu: AtomicUsize,
    noise: Mutex<Tunn>,
}

/// Who is at our end of the tunnel.
pub(crate) enum Inside {
    /// The kernel of a workload.
    Device(AsyncDevice),
    /// Somebody in this process.
    Process(Arc<dyn Takes>),
}

impl Peer {
    pub(crate) fn new(peering: &Peering, index: u32, inside: Inside, mtu: usize) -> Self {
        let noise = Tunn::new(
            peering.private_key.secret().clone(),
            peering.peer.x25519(),
            None,
            peering.keepalive.map(seconds),
            index,
            None,
        );
        Self {
            endpoint: peering.endpoint,
            inside,
            sent: Carried::default(),
            received: Carried::default(),
            drops: Drops::default(),
            mtu: mtu.into(),
            noise: noise.into(),
        }
    }

    /// The protocol's state, for as long as the guard lives: not across an await.
    pub(crate) fn noise(&self) -> MutexGuard<'_, Tunn> {
        self.noise.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn mtu(&self) -> usize {
        self.mtu.load(Ordering::Relaxed)
    }

    pub(crate) fn set_mtu(&self, mtu: usize) {
        self.mtu.store(mtu, Ordering::Relaxed);
    }

    pub(crate) fn dropped(&self, reason: Reason, packets: usize) {
        self.drops.count(reason, packets);
    }
}

/// The protocol counts whole seconds, and 0 is never.
fn seconds(keepalive: Duration) -> u16 {
    u16::try_from(keepalive.as_secs()).unwrap_or(u16::MAX).max(1)
}
