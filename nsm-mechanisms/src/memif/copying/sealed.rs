//! A WireGuard tunnel at the other side, without an interface between.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nsm_api::Connection;
use nsm_memif::{Memif, Receiver, Sender};
use nsm_wireguard::{Entrance, Takes};

use super::{BURST, Counts};
use crate::PacketProcessor;

/// Where packets of a tunnel go: straight into the ring of the memif that is there, if one is.
#[derive(Debug)]
pub(crate) struct Inlet {
    ring: Mutex<Option<Sender>>,
    counts: Arc<Counts>,
}

/// Copies between a memif and a tunnel, as many memifs as come one after the other.
#[derive(Debug)]
pub(crate) struct TunnelCopier {
    inlet: Arc<Inlet>,
    entrance: tokio::sync::Mutex<Entrance>,
    mtu: AtomicUsize,
    counts: Arc<Counts>,
}

impl Inlet {
    pub(crate) fn new(counts: Arc<Counts>) -> Self {
        Self { ring: Mutex::default(), counts }
    }

    fn ring(&self) -> MutexGuard<'_, Option<Sender>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Takes for Inlet {
    fn take(&self, packets: &mut dyn Iterator<Item = &[u8]>) -> usize {
        let (mut taken, mut left) = (0, 0);
        let mut ring = self.ring();
        for packet in packets {
            // If it is closed, whoever receives from it knows and says so.
            match ring.as_mut().map(|ring| ring.push(packet)) {
                Some(Ok(true)) => taken += 1,
                _ => left += 1,
            }
        }
        if let Some(ring) = ring.as_mut() {
            let _closed = ring.flush();
        }
        self.counts.to_memif.add(taken);
        self.counts.full.add(left);
        taken
    }
}

impl TunnelCopier {
    /// Between the memifs that come and this tunnel.
    pub(crate) fn new(inlet: Arc<Inlet>, entrance: Entrance, mtu: Option<u32>, counts: Arc<Counts>) -> Self {
        let copier = Self { inlet, entrance: entrance.into(), mtu: AtomicUsize::new(0), counts };
        copier.set_mtu(mtu);
        copier
    }

    /// Goes on with another tunnel.
    pub(crate) async fn enter(&self, entrance: Entrance) {
        *self.entrance.lock().await = entrance;
    }

    /// Packets from the memif may have so many octets from now on.
    pub(crate) fn set_mtu(&self, mtu: Option<u32>) {
        self.mtu.store(mtu.map_or(usize::MAX, |mtu| mtu as usize), Ordering::Relaxed);
    }

    async fn outward(&self, from: &mut Receiver) -> nsm_memif::Result<()> {
        loop {
            from.ready().await?;
            let mut entrance = self.entrance.lock().await;
            let mtu = self.mtu.load(Ordering::Relaxed);
            from.recv_burst(BURST, |packet| match packet.first().map(|octet| octet >> 4) {
                _ if packet.len() > mtu => self.counts.too_long.add(1),
                Some(4 | 6) => {
                    entrance.push(packet);
                    self.counts.from_memif.add(1);
                }
                _ => self.counts.foreign.add(1),
            })?;
            entrance.flush().await;
            drop(entrance);
            tokio::task::yield_now().await;
        }
    }
}

impl PacketProcessor for TunnelCopier {
    async fn process(&self, memif: Memif, connection: Arc<Connection>) {
        let (receivers, senders) = memif.split();
        let (Some(mut from), Some(to)) = (receivers.into_iter().next(), senders.into_iter().next()) else { return };
        let _there = There::begin(&self.inlet, to);
        if let Err(error) = self.outward(&mut from).await {
            tracing::debug!(id = connection.id, %error, copied = ?self.counts.so_far(), "a memif is over");
        }
    }
}

/// While it lives packets of the tunnel go to that ring.
struct There<'a>(&'a Inlet);

impl<'a> There<'a> {
    fn begin(inlet: &'a Inlet, ring: Sender) -> Self {
        *inlet.ring() = Some(ring);
        Self(inlet)
    }
}

impl Drop for There<'_> {
    fn drop(&mut self) {
        *self.0.ring() = None;
    }
}
