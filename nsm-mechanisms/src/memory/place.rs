//! Where a wire is: its interfaces and its tunnel.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use nsm_api::Mechanism;
use nsm_api::mechanism::keys;
use nsm_chain::{Error, Result};

use crate::{Underlay, Wire};

/// One end of a wire: an interface in a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The URL of the namespace, which names one namespace of the whole mesh; empty where the mechanism names none, and
    /// then nobody asks whether the interface's name is free.
    pub netns: Arc<str>,
    /// Its name there.
    pub name: Arc<str>,
}

/// A tunnel as its device has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// The network identifier.
    pub vni: u32,
    /// This node's address.
    pub local: IpAddr,
    /// The other node's address.
    pub remote: IpAddr,
    /// The UDP port, the same on both nodes.
    pub port: u16,
}

/// What of a wire cannot be changed in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The client's end first.
    pub(super) ends: Vec<Interface>,
    pub(super) tunnel: Option<Tunnel>,
    /// Whether the other node issued the tunnel's identifier, which is then still to be claimed here.
    pub(super) foreign: bool,
}

impl Place {
    pub(super) fn of(wire: &Wire, underlay: Option<&Underlay>) -> Result<Self> {
        let ends: Vec<_> = [&wire.caller, &wire.next].into_iter().filter_map(Interface::of).collect();
        let foreign = wire.next.as_vxlan().is_some();
        let tunnel = match (foreign, wire.caller.as_vxlan().is_some()) {
            (true, _) => Some(tunnel(&wire.next, true, underlay)?),
            (false, true) => Some(tunnel(&wire.caller, false, underlay)?),
            (false, false) => None,
        };
        if ends.len() + usize::from(tunnel.is_some()) < 2 {
            return Err(Error::unsupported(format!(
                "this forwarder cannot relay from {} to {}",
                wire.caller.r#type, wire.next.r#type
            )));
        }
        Ok(Self { ends, tunnel, foreign })
    }
}

impl Interface {
    /// The one that a KERNEL mechanism names.
    pub(super) fn of(mechanism: &Mechanism) -> Option<Self> {
        mechanism.as_kernel()?;
        let parameter = |key| mechanism.parameter(key).unwrap_or_default().into();
        Some(Self { netns: parameter(keys::INODE_URL), name: parameter(keys::INTERFACE_NAME) })
    }

    /// Whether both are the same interface for certain.
    pub(super) fn is(&self, other: &Self) -> bool {
        !self.netns.is_empty() && self == other
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interface {} of {}", self.name, if self.netns.is_empty() { "some namespace" } else { &self.netns })
    }
}

impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tunnel {} from {} to {}", self.vni, self.local, self.remote)
    }
}

/// The tunnel of a VXLAN mechanism, in which the client's side is the source.
fn tunnel(mechanism: &Mechanism, ours_is_client: bool, underlay: Option<&Underlay>) -> Result<Tunnel> {
    let (Some(vxlan), Some(underlay)) = (mechanism.as_vxlan(), underlay) else {
        return Err(Error::unsupported(format!("this forwarder cannot make a wire over {}", mechanism.r#type)));
    };
    let invalid = |error| Error::invalid("the VXLAN mechanism cannot be used").because(error);
    let incomplete = || {
        Error::invalid("the VXLAN mechanism has no network identifier or no address of the other side")
            .hint("the side that selects it must set vni and dst_ip")
    };
    let (local, remote) =
        if ours_is_client { (vxlan.src_ip(), vxlan.dst_ip()) } else { (vxlan.dst_ip(), vxlan.src_ip()) };
    let local = local.map_err(invalid)?.ok_or_else(incomplete)?;
    if local != underlay.address {
        return Err(Error::invalid(format!("a tunnel from {local}, which is not {}", underlay.address)));
    }
    Ok(Tunnel {
        vni: vxlan.vni().map_err(invalid)?.ok_or_else(incomplete)?,
        local,
        remote: remote.map_err(invalid)?.ok_or_else(incomplete)?,
        port: underlay.port,
    })
}
