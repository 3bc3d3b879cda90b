//! A wire as interfaces: which, where, and what they should look like.

use std::net::IpAddr;

use nsm_api::mechanism::{FileUrl, KERNEL, Kernel, MEMIF, ParameterError, VXLAN, WIREGUARD, keys};
use nsm_api::{Mechanism, payload};
use nsm_chain::{Error, Result};
use nsm_kernel::{InterfaceSpec, Neighbour, Netns, VxlanTunnel};
use nsm_wireguard::{Node, Peering};

use super::context;
use super::copying::{self, Copying};
use super::error::failed;
use super::mark::{Carrier, Mark, Side};
use super::nat;
use crate::memif::copying::Kind;
use crate::wireguard::End as Role;
use crate::{Underlay, Wire, Wireguard};

/// What a wire is made of: the two ends of a pair, one end of a tunnel, or one end each of two tunnels that are joined.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) ends: Vec<End>,
    /// What this process copies, where one side is shared memory.
    pub(super) copying: Option<Copying>,
}

/// One interface.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) netns: Netns,
    pub(super) spec: InterfaceSpec,
    /// What carries its packets; none if it is one of a pair.
    pub(super) tunnel: Option<Tunnel>,
    /// The kernel's setting of that name; there is no netlink message for it.
    pub(super) route_localnet: bool,
}

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

/// By what other nodes can be reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ways<'a> {
    pub(super) underlay: Option<&'a (Underlay, Netns)>,
    pub(super) wireguard: Option<&'a Wireguard>,
}

impl Tunnel {
    fn carrier(&self) -> Carrier<'_> {
        match self {
            Self::Vxlan { vxlan, .. } => Carrier::Vxlan(vxlan),
            Self::Wireguard { .. } => Carrier::Wireguard,
            Self::Copied(kind) => Carrier::Memif(*kind),
        }
    }
}

impl End {
    /// With whom the tunnel is that we carry ourselves.
    pub(super) fn peering(&self) -> Option<&Peering> {
        match &self.tunnel {
            Some(Tunnel::Wireguard { peering, .. }) => Some(peering),
            _ => None,
        }
    }
}

impl Plan {
    /// Of all its ends.
    pub(super) fn peerings(&self) -> impl Iterator<Item = &Peering> {
        self.ends.iter().filter_map(End::peering)
    }

    fn of_ends(ends: Vec<End>) -> Self {
        Self { ends, copying: None }
    }

    pub(super) fn of(wire: &Wire, mark: &Mark, ways: Ways<'_>) -> Result<Self> {
        if wire.caller.is(MEMIF) != wire.next.is(MEMIF) {
            return copying::plan(wire, mark, ways);
        }
        let end = |kernel: Kernel<'_>, side, tunnel: Option<Tunnel>| end(wire, kernel, side, mark, tunnel);
        match (wire.caller.as_kernel(), wire.next.as_kernel()) {
            (Some(caller), Some(next)) => {
                let mut ends = [end(caller, Side::Client, None)?, end(next, Side::Endpoint, None)?];
                if introduces(wire) {
                    introduce(&mut ends);
                }
                Ok(Self::of_ends(ends.into()))
            }
            (Some(caller), None) => {
                let tunnel = tunnel(wire, &wire.next, Side::Client, ways)?;
                Ok(Self::of_ends(vec![end(caller, Side::Client, Some(tunnel))?]))
            }
            (None, Some(next)) => {
                let tunnel = tunnel(wire, &wire.caller, Side::Endpoint, ways)?;
                Ok(Self::of_ends(vec![end(next, Side::Endpoint, Some(tunnel))?]))
            }
            (None, None) if !joins(&wire.caller, &wire.next) => Err(Error::unsupported(format!(
                "this forwarder cannot relay from {} to {}",
                wire.caller.r#type, wire.next.r#type
            ))
            .hint("it relays from VXLAN to VXLAN; else one side of a wire must be a KERNEL interface on this node")),
            (None, None) => {
                let tunnels =
                    [tunnel(wire, &wire.caller, Side::Endpoint, ways)?, tunnel(wire, &wire.next, Side::Client, ways)?];
                relay(wire, tunnels, mark, ways).map(Self::of_ends)
            }
        }
    }
}

/// Checks what a KERNEL mechanism must have and may not ask for here.
pub(super) fn check_kernel(kernel: Kernel<'_>) -> Result<(FileUrl, &str)> {
    let invalid = |error: ParameterError| Error::invalid("the KERNEL mechanism cannot be used").because(error);
    let missing = |key: &str| {
        Error::invalid(format!("the KERNEL mechanism has no {key}"))
            .hint("the side that offers or selects it must set it")
    };
    let name = kernel.interface_name().map_err(invalid)?.ok_or_else(|| missing(keys::INTERFACE_NAME))?;
    let netns = kernel.netns().map_err(invalid)?.ok_or_else(|| missing(keys::INODE_URL))?;
    let asks = |what: &str| Error::unsupported(format!("the Linux data plane has no {what} for a KERNEL interface"));
    if kernel.token_id().is_some() || kernel.pci_address().is_some() {
        return Err(asks("virtual function").hint("let an SR-IOV forwarder serve it"));
    }
    if kernel.vlan().map_err(invalid)?.is_some_and(|tag| tag != 0) {
        return Err(asks("VLAN tag").hint("ask without supportsVlan"));
    }
    Ok((netns, name))
}

pub(super) fn end(wire: &Wire, kernel: Kernel<'_>, side: Side, mark: &Mark, tunnel: Option<Tunnel>) -> Result<End> {
    let (url, name) = check_kernel(kernel)?;
    let FileUrl::Path(path) = url else {
        return Err(Error::precondition(format!("the descriptor of network namespace {url} has not arrived"))
            .hint("put RecvFd before CrossConnect, and reach the workload over a unix socket"));
    };
    // Looks at what the path names before opening it: it may come from a peer.
    let netns = Netns::open(&path).map_err(|error| failed(format!("interface {name} has nowhere to be"), error))?;
    let alias = mark.of(&wire.id, tunnel.as_ref().map(Tunnel::carrier))?;
    let mut spec =
        InterfaceSpec::new(name, alias).map_err(|error| failed("the interface cannot be described", error))?;
    context::fill(&mut spec, side, &wire.context)?;
    spec.nat = nat::rules(kernel, name, &wire.context)?;
    if matches!(tunnel, Some(Tunnel::Wireguard { .. } | Tunnel::Copied(Kind::Ip))) {
        // It carries IP packets only: there are no hardware addresses, and nobody is asked for one.
        spec.mac = None;
        spec.neighbours.clear();
    } else {
        spec.mac = spec.mac.or_else(|| Some(mark.mac(&wire.id, side)));
    }
    Ok(End { netns, spec, tunnel, route_localnet: kernel.route_local_net() })
}

/// Whether a wire can lead from one of these mechanisms to the other.
pub(super) fn joins(caller: &Mechanism, next: &Mechanism) -> bool {
    match (caller.is(MEMIF), next.is(MEMIF)) {
        // The two do it between them: `WithMemif`.
        (true, true) => false,
        (false, false) => caller.is(KERNEL) || next.is(KERNEL) || (caller.is(VXLAN) && next.is(VXLAN)),
        _ => [KERNEL, VXLAN, WIREGUARD].iter().any(|other| caller.is(other) || next.is(other)),
    }
}

/// Both end in the node's own namespace, and what comes out of one goes into the other.
pub(super) fn relay(wire: &Wire, tunnels: [Tunnel; 2], mark: &Mark, ways: Ways<'_>) -> Result<Vec<End>> {
    let (_, node) = ways.underlay.ok_or_else(|| Error::internal("a relay without a network between nodes"))?;
    let names = [Side::Client, Side::Endpoint].map(|side| mark.name(&wire.id, side));
    let mut ends = Vec::new();
    for (at, tunnel) in tunnels.into_iter().enumerate() {
        let described = |error| failed("the relay cannot be described", error);
        let spec = InterfaceSpec::new(&names[at], mark.of(&wire.id, Some(tunnel.carrier()))?).map_err(described)?;
        let mut spec = spec.joined_to(names[1 - at].parse().map_err(described)?);
        spec.mtu = (wire.context.mtu != 0).then_some(wire.context.mtu);
        ends.push(End { netns: node.clone(), spec, tunnel: Some(tunnel), route_localnet: false });
    }
    Ok(ends)
}

/// Whether each end knows the other's hardware address from the start: an IP wire on one node needs no questions, and nobody
/// else is on it who could have learned another one.
pub(super) fn introduces(wire: &Wire) -> bool {
    wire.payload != payload::ETHERNET && wire.caller.is(KERNEL) && wire.next.is(KERNEL)
}

/// Tells each end the other's hardware address.
fn introduce(ends: &mut [End; 2]) {
    let known = [&ends[1], &ends[0]].map(|peer| {
        let mac = peer.spec.mac.unwrap_or_default();
        let ips = peer.spec.addresses.iter().map(|net| net.addr());
        ips.map(|ip| Neighbour { ip, mac, permanent: true }).collect::<Vec<_>>()
    });
    for (end, known) in ends.iter_mut().zip(known) {
        end.spec.neighbours.extend(known);
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

#[cfg(test)]
mod tests {
    use super::*;
    use nsm_api::ConnectionContext;
    use nsm_chain::Code;
    use proptest::prelude::*;

    fn kernel(parameters: &[(&str, &str)]) -> Mechanism {
        let mut mechanism = Mechanism::kernel();
        for (key, value) in [("name", "nsm-1"), ("inodeURL", "file:///proc/self/ns/net")].iter().chain(parameters) {
            mechanism.parameters.insert((*key).to_owned(), (*value).to_owned());
        }
        mechanism
    }

    fn refusal(parameters: &[(&str, &str)]) -> Error {
        check_kernel(kernel(parameters).as_kernel().unwrap()).unwrap_err()
    }

    #[test]
    fn what_this_data_plane_cannot_do_is_refused_and_not_ignored() {
        assert!(check_kernel(kernel(&[("vlan", "0")]).as_kernel().unwrap()).is_ok());
        for (key, value) in [("tokenID", "sriov-1"), ("pciAddress", "0000:01:00.0"), ("vlan", "7")] {
            assert_eq!(refusal(&[(key, value)]).code(), Code::Unimplemented, "{key}");
        }
        for (key, value) in [("name", ""), ("name", "a/b"), ("inodeURL", ""), ("inodeURL", "/etc"), ("vlan", "x")] {
            assert_eq!(refusal(&[(key, value)]).code(), Code::InvalidArgument, "{key}={value}");
        }
    }

    fn mechanism() -> impl Strategy<Value = Mechanism> {
        let types = prop::sample::select(vec!["KERNEL", "VXLAN", "MEMIF", ""]);
        let keys = prop::sample::select(vec![
            "name",
            "inodeURL",
            "src_ip",
            "dst_ip",
            "src_port",
            "dst_port",
            "vni",
            "MTU",
            "vlan",
            "routeLocalNet",
        ]);
        let values = prop_oneof![
            ".{0,20}",
            Just("10.0.0.1".to_owned()),
            Just("fd00::1".to_owned()),
            Just("4789".to_owned()),
            Just("nsm-1".to_owned()),
            Just("inode://4/7".to_owned()),
            Just("file:///proc/self/ns/net".to_owned()),
            Just("file:///dev/null".to_owned()),
        ];
        (types, prop::collection::btree_map(keys.prop_map(String::from), values, 0..8)).prop_map(
            |(kind, parameters)| {
                let mut mechanism = Mechanism::new("", kind);
                mechanism.parameters.extend(parameters);
                mechanism
            },
        )
    }

    proptest! {
        #[test]
        fn whatever_peers_send_becomes_a_plan_or_an_error(
            caller in mechanism(), next in mechanism(), id in ".{0,10}", addresses in prop::collection::vec("[0-9a-f:./]{0,18}", 0..3)
        ) {
            let underlay = Underlay::new("10.0.0.1".parse().unwrap());
            let node = Netns::current().unwrap();
            let ip = nsm_api::IpContext { src_ip_addrs: addresses, ..Default::default() };
            let context = ConnectionContext { ip_context: Some(ip), ..Default::default() };
            let mut accepted = caller;
            let _lease = underlay.accept(&mut accepted, None);
            let wire = Wire { id: id.into(), caller: accepted, next, context, payload: payload::IP.into(), origin: None };
            let ways = (underlay, node);
            let ways = Ways { underlay: Some(&ways), wireguard: None };
            let plan = Plan::of(&wire, &Mark::new("fwd").unwrap(), ways);
            if let Ok(plan) = plan {
                let tunnels = plan.ends.iter().filter(|end| end.tunnel.is_some()).count();
                let relay = plan.ends.iter().all(|end| end.spec.joined_to.is_some());
                prop_assert_eq!((plan.ends.len(), tunnels), if relay { (2, 2) } else { (2 - tunnels, tunnels) });
                prop_assert!(tunnels < 2 || relay);
            }
        }
    }
}
