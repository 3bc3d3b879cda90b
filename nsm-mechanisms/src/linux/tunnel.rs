//! What carries the packets of an interface, where that is no pair.

use std::net::IpAddr;

use nsm_api::mechanism::{ParameterError, WIREGUARD};
use nsm_api::{Mechanism, payload};
use nsm_chain::{Error, Result};
use nsm_kernel::{Netns, VxlanTunnel};
use nsm_wireguard::{Node, Peering};

use super::mark::{Carrier, Side};
use super::plan::Ways;
use crate::memif::copying::Kind;
use crate::wireguard::End as Role;
use crate::{Underlay, Wire};

/// The tunnel an interface belongs to.
#[derive(Debug, Clone)]
pub(super) enum Tunnel {
    /// The kernel's.
    Vxlan {
        vxlan: VxlanTunnel,
        node: Netns,
        /// Whether the other node issued the identifier, which is then still to be claimed here.
        foreign: Option<Underlay>,
    },
    /// Our own.
    Wireguard { node: Node, peering: Peering },
    /// None, but shared memory: this process copies the interface's packets.
    Copied(Kind),
}

impl Tunnel {
    pub(super) fn carrier(&self) -> Carrier<'_> {
        match self {
            Self::Vxlan { vxlan, .. } => Carrier::Vxlan(vxlan),
            Self::Wireguard { .. } => Carrier::Wireguard,
            Self::Copied(kind) => Carrier::Memif(*kind),
        }
    }
}

/// The tunnel of a mechanism in which the client's side is the source.
pub(super) fn tunnel(wire: &Wire, mechanism: &Mechanism, ours: Side, ways: Ways<'_>) -> Result<Tunnel> {
    if let (true, Some(wireguard)) = (mechanism.is(WIREGUARD), ways.wireguard) {
        if wire.payload == payload::ETHERNET {
            return Err(Error::unsupported("WIREGUARD carries IP packets, and the connection's payload is ETHERNET")
                .hint("offer VXLAN"));
        }
        let agreed = mechanism.as_wireguard().and_then(|wireguard| wireguard.mtu().ok()?);
        check_mtu(wire, agreed, (wireguard.mtu(), wireguard.tunnel_mtu()))?;
        let role = if ours == Side::Client { Role::Offering } else { Role::Accepting };
        let peering = wireguard.peering(&wire.id, mechanism, role)?;
        return Ok(Tunnel::Wireguard { node: wireguard.node().clone(), peering });
    }
    let (Some(vxlan), Some((underlay, node))) = (mechanism.as_vxlan(), ways.underlay) else {
        return Err(Error::unsupported(format!("this forwarder cannot make a wire over {}", mechanism.r#type)));
    };
    let invalid = |error: ParameterError| Error::invalid("the VXLAN mechanism cannot be used").because(error);
    let incomplete = || {
        Error::invalid("the VXLAN mechanism has no network identifier or no address of the other side")
            .hint("the side that selects it must set vni and dst_ip")
    };
    let (remote, port) = match ours {
        Side::Client => (vxlan.dst_ip(), vxlan.dst_port()),
        Side::Endpoint => (vxlan.src_ip(), vxlan.src_port()),
    };
    check_mtu(wire, vxlan.mtu().map_err(invalid)?, (underlay.mtu, underlay.tunnel_mtu()))?;
    let vni = vxlan.vni().map_err(invalid)?.ok_or_else(incomplete)?;
    let remote = remote.map_err(invalid)?.ok_or_else(incomplete)?;
    let vxlan = self::vxlan(underlay, vni, (remote, port.map_err(invalid)?));
    let foreign = (ours == Side::Client).then(|| underlay.clone());
    Ok(Tunnel::Vxlan { vxlan, node: node.clone(), foreign })
}

/// Whether what is `left` of the network's MTU by the tunnel's headers, or what was agreed on if that is less, is enough.
fn check_mtu(wire: &Wire, agreed: Option<u32>, (network, left): (u32, u32)) -> Result<()> {
    // RFC 8200, section 5; and the least that Linux takes for an interface with IPv4.
    const IPV6: u32 = 1280;
    const IPV4: u32 = 68;
    let ip = wire.context.ip_context.as_ref();
    let has_ipv6 = ip.is_some_and(|ip| ip.src_nets().chain(ip.dst_nets()).any(|net| net.addr().is_ipv6()));
    let (least, what) = if has_ipv6 { (IPV6, "IPv6") } else { (IPV4, "IPv4") };
    let left = agreed.map_or(left, |agreed| agreed.min(left));
    if left >= least {
        return Ok(());
    }
    Err(Error::precondition(format!(
        "packets of {left} octets at most fit through the tunnel, as packets of {network} do through this node's network, \
         and {what} needs {least}"
    ))
    .hint("raise the MTU of the network between the nodes, or ask for no IPv6 addresses"))
}

/// The kernel's tunnel of that number to a node, which listens on our port if it does not say on which.
pub(super) fn vxlan(underlay: &Underlay, vni: u32, (remote, port): (IpAddr, Option<u16>)) -> VxlanTunnel {
    let remote_port = port.unwrap_or(underlay.port);
    VxlanTunnel { vni, local: underlay.address, remote, port: underlay.port, remote_port, ttl: None }
}
