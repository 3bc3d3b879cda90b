//! The kernel at the other side, through a device.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nsm_api::Connection;
use nsm_memif::{MAX_PACKET_LENGTH, Memif, Receiver, Sender};

use super::link::{Ends, Fate, Found, Link};
use super::{BURST, Counts, Device, Kind};
use crate::PacketProcessor;

/// Copies between a memif and a device, as many memifs as come one after the other.
#[derive(Debug)]
pub(crate) struct DeviceCopier {
    device: Device,
    /// Makes frames of packets, where the memif has the ones and the device the others.
    link: Option<Mutex<Link>>,
    mtu: AtomicUsize,
    counts: Arc<Counts>,
}

/// The MTU of a device for which nobody says another one.
const ETHERNET_MTU: u32 = 1500;
/// Of an Ethernet header, and of a tag in it (IEEE 802.1Q).
const HEADER: usize = 14;
const TAG: usize = 4;

impl DeviceCopier {
    /// With the memif directly at the device; or with a link between them, if one of the two has no Ethernet.
    pub(crate) fn new(device: Device, link: Option<Ends>, mtu: Option<u32>, counts: Arc<Counts>) -> Self {
        let link = link.map(|ends| Mutex::new(Link::new(ends)));
        let copier = Self { device, link, mtu: AtomicUsize::new(0), counts };
        copier.set_mtu(mtu);
        copier
    }

    /// Packets from the memif may have so many octets from now on, less their Ethernet headers.
    pub(crate) fn set_mtu(&self, mtu: Option<u32>) {
        self.mtu.store(mtu.unwrap_or(ETHERNET_MTU) as usize, Ordering::Relaxed);
    }

    /// Others are at the ends of the link from now on, if there is one.
    pub(crate) fn set_ends(&self, ends: Ends) {
        if let Some(mut link) = self.link() {
            link.set_ends(ends);
        }
    }

    /// Whether the memif may send it.
    fn fits(&self, packet: &[u8]) -> bool {
        let mtu = self.mtu.load(Ordering::Relaxed);
        let framed = self.link.is_none() && self.device.kind() == Kind::Ethernet;
        let tagged = matches!(packet.get(12..HEADER), Some([0x81, 0x00] | [0x88, 0xa8]));
        packet.len() <= mtu + if framed { HEADER + if tagged { TAG } else { 0 } } else { 0 }
    }

    fn link(&self) -> Option<MutexGuard<'_, Link>> {
        self.link.as_ref().map(|link| link.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn give(&self, head: &[u8], body: &[u8]) -> bool {
        let given = self.device.give(head, body);
        if let Err(error) = &given {
            tracing::trace!(%error, "an interface did not take a packet");
            self.counts.interface.add(1);
        }
        given.is_ok()
    }

    /// From the memif into the device, as much as is there.
    fn outward(&self, from: &mut Receiver) -> nsm_memif::Result<()> {
        let (counts, mut link) = (&self.counts, self.link());
        from.recv_burst(BURST, |packet| {
            if !self.fits(packet) {
                counts.too_long.add(1);
                return;
            }
            let Some(link) = &mut link else {
                counts.from_memif.add(usize::from(self.give(&[], packet)));
                return;
            };
            match link.outward(packet, |head, body| _ = self.give(head, body)) {
                Fate::Sent | Fate::Waits => counts.from_memif.add(1),
                Fate::Unresolved => counts.unresolved.add(1),
                Fate::Foreign => counts.foreign.add(1),
            }
        })
        .map(drop)
    }

    /// From the device into the memif. Says whether the device is still there.
    fn inward(&self, buffer: &mut [u8], to: &mut Sender) -> nsm_memif::Result<bool> {
        let (mut there, mut link) = (true, self.link());
        for _ in 0..BURST {
            let frame = match self.device.take(buffer) {
                Ok(length) => &buffer[..length],
                Err(error) => {
                    there = error.kind() == io::ErrorKind::WouldBlock;
                    break;
                }
            };
            let packet = match &mut link {
                None => frame,
                Some(link) => match link.inward(frame, |head, body| _ = self.give(head, body)) {
                    Found::Packet(packet) => packet,
                    Found::Discovery => continue,
                    Found::Foreign => {
                        self.counts.foreign.add(1);
                        continue;
                    }
                },
            };
            match to.push(packet) {
                Ok(true) => self.counts.to_memif.add(1),
                Ok(false) | Err(nsm_memif::Error::PacketLength { .. }) => self.counts.full.add(1),
                Err(error) => return Err(error),
            }
        }
        to.flush()?;
        Ok(there)
    }

    async fn copy(&self, from: &mut Receiver, to: &mut Sender) -> nsm_memif::Result<()> {
        let (mut buffer, mut there) = (vec![0; MAX_PACKET_LENGTH + HEADER], true);
        if let Some(mut link) = self.link() {
            link.ask(|head, body| _ = self.give(head, body));
        }
        loop {
            tokio::select! {
                ready = from.ready() => {
                    ready?;
                    self.outward(from)?;
                }
                readable = self.device.readable(), if there => {
                    there = readable.is_ok() && self.inward(&mut buffer, to)?;
                    if !there {
                        // Whoever looks after the wire makes a new one; nobody is told twice.
                        tracing::debug!("the interface of a memif is gone");
                    }
                }
            }
            // Others of this thread have their turn even if packets never end.
            tokio::task::yield_now().await;
        }
    }
}

impl PacketProcessor for DeviceCopier {
    async fn process(&self, mut memif: Memif, connection: Arc<Connection>) {
        let ended = match memif.pair() {
            Ok((from, to)) => self.copy(from, to).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::debug!(id = connection.id, %error, copied = ?self.counts.so_far(), "a memif is over");
        }
    }
}
