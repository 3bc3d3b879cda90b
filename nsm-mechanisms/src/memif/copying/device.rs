//! A TUN or TAP device: the kernel's end of a wire whose packets this process has.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use nsm_api::payload;
use nsm_kernel::{Interface, InterfaceSpec, Netns};
use tun_rs::{AsyncDevice, DeviceBuilder, Layer, SyncDevice};

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

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Waits until there is something to take, or the device is gone.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.device.readable().await
    }

    /// Takes a packet from the kernel, if there is one; says how long it is.
    pub(super) fn take(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.device.try_recv(buffer)
    }

    /// Gives the kernel a packet, in two parts.
    pub(super) fn give(&self, head: &[u8], body: &[u8]) -> io::Result<()> {
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

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({:?})", self.kind)
    }
}
