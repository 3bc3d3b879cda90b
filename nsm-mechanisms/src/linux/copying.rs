//! Wires with shared memory at one side, whose packets this process copies.

use std::sync::Arc;

use nsm_api::Connection;
use nsm_api::mechanism::MEMIF;
use nsm_chain::{Error, Result};
use nsm_kernel::InterfaceSpec;
use nsm_wireguard::{Node, Peering};

use super::context;
use super::error::failed;
use super::mark::{Mark, Side};
use super::plan::{Plan, Ways, end, relay};
use super::tunnel::{Tunnel, tunnel};
use crate::Wire;
use crate::memif::Target;
use crate::memif::copying::{
    Copied, Counts, Device, DeviceCopier, Ends, Inlet, Kind, Lookout, Sockets, TunnelCopier, Way,
};

/// What is copied where.
#[derive(Debug, Clone)]
pub(super) struct Copying {
    seat: Seat,
    far: Far,
    /// Largest packet in octets, if the connection says.
    mtu: Option<u32>,
}

/// At which side of the wire the shared memory is.
#[derive(Debug, Clone, PartialEq)]
enum Seat {
    /// The client comes to a socket of ours.
    Client,
    /// The endpoint listens there.
    Endpoint(Target),
}

/// What is at the other side.
#[derive(Debug, Clone)]
enum Far {
    /// The kernel's end of the wire; with Ethernet between, if it has some and the memif has not.
    Device(Option<Ends>),
    /// A tunnel of ours, which needs no interface.
    Wireguard { node: Node, peering: Peering },
}

/// The plan of a wire with MEMIF at one side.
pub(super) fn plan(wire: &Wire, mark: &Mark, ways: Ways<'_>) -> Result<Plan> {
    let kind = Kind::of(&wire.payload);
    let (seat, other, [ours, theirs]) = if wire.caller.is(MEMIF) {
        (Seat::Client, &wire.next, [Side::Client, Side::Endpoint])
    } else {
        (Seat::Endpoint(Target::of(&wire.next, &wire.payload)?), &wire.caller, [Side::Endpoint, Side::Client])
    };
    let (ends, far) = match other.as_kernel() {
        Some(kernel) => (vec![end(wire, kernel, theirs, mark, Some(Tunnel::Copied(kind)))?], Far::Device(None)),
        None => match tunnel(wire, other, ours, ways)? {
            Tunnel::Wireguard { node, peering } => (Vec::new(), Far::Wireguard { node, peering }),
            vxlan => {
                let framed = (kind == Kind::Ip).then(|| framed(wire, mark, [ours, theirs])).transpose()?;
                // A tunnel of the kernel's carries frames, whatever is in them.
                (relay(wire, [vxlan, Tunnel::Copied(Kind::Ethernet)], mark, ways)?, Far::Device(framed))
            }
        },
    };
    let mtu = (wire.context.mtu != 0).then_some(wire.context.mtu);
    Ok(Plan { ends, trunk: None, copying: Some(Copying { seat, far, mtu }) })
}

/// Who is at the two ends of a tunnel that carries frames: what its other end has is what the connection's context says.
fn framed(wire: &Wire, mark: &Mark, [ours, theirs]: [Side; 2]) -> Result<Ends> {
    let described = |side| {
        let spec = InterfaceSpec::new("memif", mark.of(&wire.id, None)?);
        let mut spec = spec.map_err(|error| failed("the end of the wire cannot be described", error))?;
        context::fill(&mut spec, side, &wire.context).map(|()| spec)
    };
    let (near, far) = (described(ours)?, described(theirs)?);
    let ips = |spec: &InterfaceSpec| spec.addresses.iter().map(|net| net.addr()).collect();
    let mac = near.mac.unwrap_or_else(|| mark.mac(&wire.id, ours));
    Ok(Ends { mac, own: ips(&near), theirs: ips(&far), routes: far.routes })
}

/// Copies the packets of one wire. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Worker {
    seat: Seat,
    copier: Copier,
    counts: Arc<Counts>,
    /// None after a change that failed.
    lookout: Option<Lookout>,
}

#[derive(Debug)]
enum Copier {
    Device(Arc<DeviceCopier>),
    Tunnel { copier: Arc<TunnelCopier>, inlet: Arc<Inlet>, tunnel: nsm_wireguard::Tunnel, peering: Peering },
}

impl Worker {
    /// Begins, with the device if there is one at the other side.
    pub(super) async fn begin(
        wire: &Wire,
        copying: &Copying,
        device: Option<Device>,
        sockets: &Sockets,
    ) -> Result<Self> {
        let Copying { seat, far, mtu } = copying;
        let counts = Arc::new(Counts::default());
        let copier = match (far, device) {
            (Far::Wireguard { node, peering }, _) => {
                let inlet = Arc::new(Inlet::new(Arc::clone(&counts)));
                let (tunnel, entrance) = node.connect(peering, *mtu, Arc::clone(&inlet) as _).map_err(no_tunnel)?;
                let copier = TunnelCopier::new(Arc::clone(&inlet), entrance, *mtu, Arc::clone(&counts));
                Copier::Tunnel { copier: Arc::new(copier), inlet, tunnel, peering: peering.clone() }
            }
            (Far::Device(framed), Some(device)) => {
                Copier::Device(Arc::new(DeviceCopier::new(device, framed.clone(), *mtu, Arc::clone(&counts))))
            }
            (Far::Device(_), None) => return Err(Error::internal("a wire without the device of its plan")),
        };
        let mut worker = Self { seat: seat.clone(), copier, counts, lookout: None };
        worker.look_out(wire, sockets).await?;
        Ok(worker)
    }

    /// Goes on as the plan says now; says how many changes that took.
    pub(super) async fn follow(&mut self, wire: &Wire, copying: &Copying, sockets: &Sockets) -> Result<usize> {
        let mut changes = 0;
        match (&mut self.copier, &copying.far) {
            (Copier::Device(copier), Far::Device(framed)) => {
                copier.set_mtu(copying.mtu);
                framed.clone().into_iter().for_each(|ends| copier.set_ends(ends));
            }
            (Copier::Tunnel { copier, inlet, tunnel, peering }, Far::Wireguard { node, peering: new }) => {
                copier.set_mtu(copying.mtu);
                tunnel.set_mtu(copying.mtu);
                if peering != new {
                    let (again, entrance) =
                        node.connect(new, copying.mtu, Arc::clone(inlet) as _).map_err(no_tunnel)?;
                    copier.enter(entrance).await;
                    std::mem::replace(tunnel, again).close().await;
                    *peering = new.clone();
                    changes += 1;
                }
            }
            _ => return Err(Error::internal("a wire of one kind was changed into one of another")),
        }
        if self.seat != copying.seat || self.lookout.is_none() {
            if let Some(former) = self.lookout.take() {
                former.close().await;
            }
            self.seat = copying.seat.clone();
            self.look_out(wire, sockets).await?;
            changes += 1;
        }
        Ok(changes)
    }

    async fn look_out(&mut self, wire: &Wire, sockets: &Sockets) -> Result<()> {
        let way = match &self.seat {
            Seat::Client => Way::Listens(sockets.listen(&wire.id, &wire.payload)?),
            Seat::Endpoint(target) => Way::Connects(target.clone()),
        };
        let connection = Connection {
            id: wire.id.to_string(),
            payload: wire.payload.clone(),
            context: Some(wire.context.clone()),
            ..Default::default()
        };
        self.lookout = Some(match &self.copier {
            Copier::Device(copier) => Lookout::begin(way, Arc::clone(copier), connection).await?,
            Copier::Tunnel { copier, .. } => Lookout::begin(way, Arc::clone(copier), connection).await?,
        });
        Ok(())
    }

    /// What it has copied so far.
    pub(super) fn copied(&self) -> Copied {
        self.counts.so_far()
    }

    /// Ends it. When this returns its device is closed.
    pub(super) async fn close(self) {
        if let Some(lookout) = self.lookout {
            lookout.close().await;
        }
        if let Copier::Tunnel { tunnel, .. } = self.copier {
            tunnel.close().await;
        }
    }
}

fn no_tunnel(error: nsm_wireguard::Error) -> Error {
    failed("the tunnel of a memif cannot be made", error)
}
