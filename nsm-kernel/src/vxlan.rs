//! The remote wire: a VXLAN device in the workload's namespace whose tunnel runs in the node's.

use std::{io, net::IpAddr};

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVxlan},
};
use nix::libc;

use crate::{
    Error, Interface, InterfaceSpec, Netns, Result,
    converge::{configure_new, delete_in, forget_nat, forget_rules},
    detour::{self, Detours},
    netns::{Here, Lane, work, work_or_undo},
    rtnl::{Request, Rtnl, link, neighbour},
};

/// A point-to-point VXLAN tunnel (RFC 7348). What is not for this host goes to `remote`; nothing is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VxlanTunnel {
    /// Network identifier, 24 bits. Two tunnels to different nodes may have the same one.
    pub vni: u32,
    /// Our underlay address.
    pub local: IpAddr,
    /// The other node's underlay address, of the same family.
    pub remote: IpAddr,
    /// UDP port on which this node listens (4789 by IANA).
    pub port: u16,
    /// UDP port on which the other node listens; mostly the same.
    pub remote_port: u16,
    /// Time to live of the outer packets; `None`: the system's default.
    pub ttl: Option<u8>,
}

impl VxlanTunnel {
    /// Bytes a packet grows by: outer Ethernet, IP, UDP and VXLAN headers.
    ///
    /// The MTU left to the inner IP packet is the underlay's less this plus the inner Ethernet header that is
    /// counted here in place of the outer one, which the underlay's MTU does not include: 1500 leaves 1450
    /// over IPv4. NSM agrees on 4 bytes more (54 and 74), room for a VLAN tag.
    pub fn overhead(&self) -> u32 {
        if self.local.is_ipv4() { 50 } else { 70 }
    }

    /// Makes the device directly in the workload's namespace with everything `spec` says, up; its UDP socket
    /// and routing stay in `node`, where it is never visible.
    ///
    /// If anything fails, or the future is dropped, nothing remains.
    ///
    /// # Errors
    /// [`Error::NoUnderlay`], [`Error::UnderlayTooNarrow`], [`Error::VniInUse`] if a dozen others have the number, [`Error::NameTaken`], [`Error::InvalidSpec`], [`Error::NoPrivileges`] or what the
    /// kernel refused.
    pub async fn create(&self, node: &Netns, (workload, spec): (&Netns, &InterfaceSpec)) -> Result<Interface> {
        self.validate(spec)?;
        let (tunnel, node, workload, spec) = (*self, node.clone(), workload.clone(), spec.clone());
        let nodes = node.clone();
        work_or_undo(
            Lane::Quick,
            move |here| tunnel.create_in(here, &node, &workload, &spec),
            move |here, made: Interface| {
                let spec = made.spec();
                if let Err(error) = delete_in(here, made.netns(), &spec.name, &spec.alias, Some(made.index())) {
                    tracing::warn!(%error, "could not remove a tunnel nobody waited for");
                }
                tunnel.forget(here, &nodes);
            },
        )
        .await
    }

    fn validate(&self, spec: &InterfaceSpec) -> Result<()> {
        spec.validate()?;
        let reason = if self.vni >= 1 << 24 {
            format!("VNI {} is larger than 24 bits", self.vni)
        } else if self.local.is_ipv4() != self.remote.is_ipv4() {
            format!("tunnel addresses {} and {} are of different families", self.local, self.remote)
        } else if self.remote.is_unspecified() || self.remote.is_multicast() {
            format!("tunnel address {} is not one host", self.remote)
        } else if self.port == 0 || self.remote_port == 0 {
            "tunnel UDP port is 0".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::InvalidSpec { interface: spec.name.to_string(), reason })
    }

    fn create_in(&self, here: &mut Here, node: &Netns, workload: &Netns, spec: &InterfaceSpec) -> Result<Interface> {
        here.enter(workload)?;
        let mut inside = Rtnl::open()?;
        here.enter(node)?;
        // The device's tunnel belongs to the namespace of the socket that asks, the device to the one it names.
        let mut outside = Rtnl::open()?;
        self.check_underlay(&mut outside, node, spec)?;
        let mut outcome = self.create_on(here, self.port, (&mut inside, &mut outside), node, (workload, spec));
        for port in detour::PORTS {
            if !outcome.as_ref().is_err_and(is_for_another_port) {
                break;
            }
            outcome = self.create_on(here, port, (&mut inside, &mut outside), node, (workload, spec));
        }
        outcome
    }

    /// The kernel makes a tunnel that leads nowhere, and drops what does not fit, without a word.
    fn check_underlay(&self, outside: &mut Rtnl, node: &Netns, spec: &InterfaceSpec) -> Result<()> {
        let (local, remote) = (self.local, self.remote);
        // Over IPv6 a missing address of ours is no error of the route's.
        let way = match outside.is_local(local) {
            Ok(true) => outside.way(local, remote),
            Ok(false) => Err(Error::os("look for our address", io::Error::from_raw_os_error(libc::EADDRNOTAVAIL))),
            Err(error) => Err(error),
        };
        let through = match way {
            Ok(through) => through,
            Err(Error::Kernel { source, .. }) => {
                return Err(Error::NoUnderlay { local, remote, netns: node.id(), source });
            }
            Err(error) => return Err(error),
        };
        let Some((inner, link)) = spec.mtu.zip(outside.link_at(through)?) else {
            return Ok(());
        };
        // The outer Ethernet header, which `overhead` counts, is not part of an MTU; the inner one is, with as many octets.
        let outer = inner.saturating_add(self.overhead());
        if outer > link.mtu {
            return Err(Error::UnderlayTooNarrow { remote, inner, outer, underlay: link.mtu });
        }
        Ok(())
    }

    /// Makes the device, which listens on this port.
    fn create_on(
        &self,
        here: &mut Here,
        port: u16,
        (inside, outside): (&mut Rtnl, &mut Rtnl),
        node: &Netns,
        (workload, spec): (&Netns, &InterfaceSpec),
    ) -> Result<Interface> {
        if let Err(error) = outside.apply(vec![self.request(port, workload, spec)]) {
            return Err(self.taken(error, inside, node, workload, spec));
        }
        let finished = inside.link(&spec.name).and_then(|found| {
            let facts =
                found.ok_or_else(|| Error::LinkNotFound { name: spec.name.to_string(), netns: workload.id() })?;
            inside.apply(self.destination(port, facts.index).into_iter().collect())?;
            here.enter(node)?;
            if port == self.port {
                // What a tunnel like this had in an earlier life would lead its packets astray.
                node.detours().remove(self)?;
            } else {
                node.detours().put(self, port)?;
            }
            configure_new(here, inside, workload, spec, &facts)?;
            let spec = InterfaceSpec { mac: spec.mac.or(facts.mac), ..spec.clone() };
            Ok(Interface::made(workload, spec, &facts))
        });
        finished.inspect_err(|_| {
            undo(inside, workload, spec);
            forget_nat(here, workload, spec);
            self.forget(here, node);
        })
    }

    /// Takes up the interface that `spec` names, as [`Interface::adopt`], with what was made beside it.
    ///
    /// # Errors
    /// As [`Interface::adopt`].
    pub async fn adopt(&self, node: &Netns, (workload, spec): (&Netns, &InterfaceSpec)) -> Result<Option<Interface>> {
        let Some(interface) = Interface::adopt(workload, spec).await? else {
            return Ok(None);
        };
        self.mend(node, (workload, spec)).await?;
        Ok(Some(interface))
    }

    /// Makes again what was made beside the interface, if that is gone; says whether it was. There is something only if the tunnel
    /// has to share its number with another one through `node`.
    ///
    /// # Errors
    /// [`Error::LinkNotFound`] without the interface, or what the kernel refused.
    pub async fn mend(&self, node: &Netns, (workload, spec): (&Netns, &InterfaceSpec)) -> Result<bool> {
        let (tunnel, node, workload, name) = (*self, node.clone(), workload.clone(), spec.name.clone());
        work(Lane::Quick, move |here| {
            here.enter(&workload)?;
            let gone = || Error::LinkNotFound { name: name.to_string(), netns: workload.id() };
            let port = Rtnl::open()?.link(&name)?.ok_or_else(gone)?.vxlan.map(|(_, port)| port);
            let Some(port) = port.filter(|port| *port != tunnel.port) else {
                return Ok(false);
            };
            here.enter(&node)?;
            let gone = !Detours::is_there(&tunnel)?;
            if gone || !node.detours().knows(&tunnel) {
                node.detours().put(&tunnel, port)?;
            }
            Ok(gone)
        })
        .await
    }

    fn forget(&self, here: &mut Here, node: &Netns) {
        let forgotten = here.enter(node).and_then(|()| node.detours().remove(self));
        if let Err(error) = forgotten {
            tracing::warn!(%error, "could not remove the detour of a tunnel that failed");
        }
    }

    fn request(&self, port: u16, workload: &Netns, spec: &InterfaceSpec) -> Request {
        let mut data = vec![InfoVxlan::Id(self.vni), InfoVxlan::Port(port), InfoVxlan::Learning(false)];
        data.push(match self.local {
            IpAddr::V4(local) => InfoVxlan::Local(local),
            IpAddr::V6(local) => InfoVxlan::Local6(local),
        });
        if self.remote_port == port {
            // "Group" is also the attribute of the one default destination.
            data.push(match self.remote {
                IpAddr::V4(remote) => InfoVxlan::Group(remote),
                IpAddr::V6(remote) => InfoVxlan::Group6(remote),
            });
        }
        data.extend(self.ttl.map(InfoVxlan::Ttl));
        let mut device = link::new_link(spec, workload);
        link::kind(&mut device, InfoKind::Vxlan, Some(InfoData::Vxlan(data)));
        Request::create(RouteNetlinkMessage::NewLink(device))
    }

    /// The default destination of the new device `index`, if it is on another port than the device's own: that cannot be said
    /// when the device is made.
    fn destination(&self, port: u16, index: u32) -> Option<Request> {
        (self.remote_port != port).then(|| neighbour::forward_everything(index, (self.remote, self.remote_port)))
    }

    /// EEXIST is said of the name and of the VNI.
    fn taken(&self, error: Error, inside: &mut Rtnl, node: &Netns, workload: &Netns, spec: &InterfaceSpec) -> Error {
        if error.errno() != Some(libc::EEXIST) {
            return error;
        }
        match inside.link(&spec.name) {
            Ok(Some(facts)) => {
                Error::NameTaken { name: spec.name.to_string(), netns: workload.id(), alias: facts.alias }
            }
            Ok(None) => Error::VniInUse { vni: self.vni, port: self.port, netns: node.id() },
            Err(error) => error,
        }
    }
}

/// Whether another device has the number, or another program the port: then there may be another port.
fn is_for_another_port(error: &Error) -> bool {
    matches!(error, Error::VniInUse { .. }) || error.errno() == Some(libc::EADDRINUSE)
}

/// The device was made a moment ago by us, so the name alone identifies it.
fn undo(inside: &mut Rtnl, workload: &Netns, spec: &InterfaceSpec) {
    let removed = inside.link(&spec.name).and_then(|found| match found {
        Some(facts) => inside.apply(vec![link::delete(facts.index)]),
        None => Ok(()),
    });
    if let Err(error) = removed {
        tracing::warn!(%error, "could not remove a tunnel that failed");
    }
    forget_rules(inside, workload, &spec.name);
}
