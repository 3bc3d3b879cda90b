//! A TUN or TAP device at the other side: the kernel's end of the wire.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nsm_api::{Connection, payload};
use nsm_kernel::{Interface, InterfaceSpec, Netns};
use nsm_memif::{MAX_PACKET_LENGTH, Memif, Receiver, Sender};
use tun_rs::{AsyncDevice, DeviceBuilder, Layer, SyncDevice};

use super::link::{Ends, Fate, Found, Link};
use super::{BURST, Counts};
use crate::PacketProcessor;

/// What a device exchanges with this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// IP packets: TUN.
    Ip,
    /// Ethernet frames: TAP.
    Ethernet,
}

/// This process's end of a TUN or TAP device. The kernel cuts large pieces and completes checksums before they come here.
pub(crate) struct Device {
    device: AsyncDevice,
    kind: Kind,
}

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

impl Kind {
    /// What a memif that carries this payload exchanges.
    pub(crate) fn of(carries: &str) -> Self {
        if carries == payload::ETHERNET { Self::Ethernet } else { Self::Ip }
    }
}

impl Device {
    /// Makes an interface in a namespace. It stays when its descriptor is closed: what a workload has bound to it survives
    /// this process. If anything fails nothing remains.
    pub(crate) async fn make(
        kind: Kind,
        (netns, spec): (&Netns, &InterfaceSpec),
    ) -> Result<(Interface, Self), nsm_kernel::Error> {
        let name = spec.name.to_string();
        let (interface, device) = Interface::create_by(netns, spec, move || open(&name, kind)).await?;
        match AsyncDevice::new(device) {
            Ok(device) => Ok((interface, Self { device, kind })),
            Err(error) => {
                if let Err(stuck) = interface.delete().await {
                    tracing::warn!(error = %stuck, "could not remove an interface that failed");
                }
                Err(unusable(&interface, error))
            }
        }
    }

    /// Takes up an interface that an earlier life of this process made.
    pub(crate) async fn attach(kind: Kind, interface: &Interface) -> Result<Self, nsm_kernel::Error> {
        let name = interface.spec().name.to_string();
        let there = move || match std::fs::exists(format!("/proc/sys/net/ipv4/conf/{name}"))? {
            true => open(&name, kind),
            // The kernel would make a new one of that name.
            false => Err(io::ErrorKind::NotFound.into()),
        };
        let device = interface.netns().run(there).await?;
        interface.opened().await?;
        let device = AsyncDevice::new(device).map_err(|error| unusable(interface, error))?;
        Ok(Self { device, kind })
    }

    /// Gives the kernel a packet, in two parts.
    fn give(&self, head: &[u8], body: &[u8]) -> io::Result<()> {
        let device = self.device.as_fd();
        // Not the asynchronous way: a device takes a packet at once, or never.
        match head.is_empty() {
            true => rustix::io::write(device, body),
            false => rustix::io::writev(device, &[io::IoSlice::new(head), io::IoSlice::new(body)]),
        }
        .map(drop)
        .map_err(io::Error::from)
    }
}

fn open(name: &str, kind: Kind) -> io::Result<SyncDevice> {
    let layer = match kind {
        Kind::Ip => Layer::L3,
        Kind::Ethernet => Layer::L2,
    };
    let device = DeviceBuilder::new().name(name).layer(layer).inherit_enable_state().build_sync()?;
    device.persist()?;
    device.set_nonblocking(true)?;
    Ok(device)
}

fn unusable(interface: &Interface, source: io::Error) -> nsm_kernel::Error {
    let operation = format!("wait for packets of {}", interface.spec().name);
    nsm_kernel::Error::Kernel { operation, source, detail: None }
}

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
        let framed = self.link.is_none() && self.device.kind == Kind::Ethernet;
        let tagged = matches!(packet.get(12..HEADER), Some([0x81, 0x00] | [0x88, 0xa8]));
        packet.len() <= mtu + if framed { HEADER + if tagged { TAG } else { 0 } } else { 0 }
    }

    fn link(&self) -> Option<std::sync::MutexGuard<'_, Link>> {
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
            let frame = match self.device.device.try_recv(buffer) {
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
                readable = self.device.device.readable(), if there => {
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

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({:?})", self.kind)
    }
}
