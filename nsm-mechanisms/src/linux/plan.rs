//! A wire as interfaces: which, where, and what they should look like.

use nsm_api::mechanism::{FileUrl, KERNEL, Kernel, MEMIF, ParameterError, VLAN, VXLAN, WIREGUARD, keys};
use nsm_api::{Mechanism, payload};
use nsm_chain::{Error, Result};
use nsm_kernel::{InterfaceSpec, Neighbour, Netns};
use nsm_wireguard::Peering;

use super::context;
use super::copying::{self, Copying};
use super::error::failed;
use super::mark::{Carrier, Mark, Side};
use super::nat;
use super::trunk::Trunk;
use super::tunnel::{Tunnel, tunnel};
use crate::memif::copying::Kind;
use crate::{RateLimit, Underlay, Vlans, Wire, Wireguard};

/// What a wire is made of: the two ends of a pair, one end of a tunnel, or one end each of two tunnels that are joined.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) ends: Vec<End>,
    /// What the endpoint's end is at, if that is one interface of several connections.
    pub(super) trunk: Option<Trunk>,
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

/// By what other nodes can be reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ways<'a> {
    pub(super) underlay: Option<&'a (Underlay, Netns)>,
    pub(super) wireguard: Option<&'a Wireguard>,
    pub(super) vlans: Option<&'a Vlans>,
    /// The node's namespace, if interfaces of endpoints may be shared.
    pub(super) trunks: Option<&'a Netns>,
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
        Self { ends, trunk: None, copying: None }
    }

    pub(super) fn of(wire: &Wire, mark: &Mark, ways: Ways<'_>) -> Result<Self> {
        if wire.caller.is(MEMIF) != wire.next.is(MEMIF) {
            return copying::plan(wire, mark, ways);
        }
        if let Some(next) = wire.next.as_kernel().filter(|_| is_shared(&wire.next)) {
            return at_trunk(wire, next, mark, ways);
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
            (Some(caller), None) if wire.next.is(VLAN) => {
                let client = end(caller, Side::Client, None)?;
                let port = port(wire, &client, mark, ways)?;
                Ok(Self::of_ends(vec![client, port]))
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
    match check(kernel)? {
        (netns, name, 0) => Ok((netns, name)),
        _ => Err(Error::unsupported("the Linux data plane has no VLAN tag for this KERNEL interface")
            .hint("ask without supportsVlan")),
    }
}

fn check(kernel: Kernel<'_>) -> Result<(FileUrl, &str, u16)> {
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
    Ok((netns, name, kernel.vlan().map_err(invalid)?.unwrap_or(0)))
}

/// The namespace that a mechanism names.
fn opened(url: FileUrl, name: &str) -> Result<Netns> {
    let FileUrl::Path(path) = url else {
        return Err(Error::precondition(format!("the descriptor of network namespace {url} has not arrived"))
            .hint("put RecvFd before CrossConnect, and reach the workload over a unix socket"));
    };
    // Looks at what the path names before opening it: it may come from a peer.
    Netns::open(&path).map_err(|error| failed(format!("interface {name} has nowhere to be"), error))
}

pub(super) fn end(wire: &Wire, kernel: Kernel<'_>, side: Side, mark: &Mark, tunnel: Option<Tunnel>) -> Result<End> {
    let (url, name) = check_kernel(kernel)?;
    let netns = opened(url, name)?;
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

/// Whether a mechanism names a VLAN at an interface that several connections share.
fn is_shared(mechanism: &Mechanism) -> bool {
    mechanism.as_kernel().is_some_and(|kernel| kernel.vlan().is_ok_and(|vlan| vlan.is_some_and(|id| id != 0)))
}

/// A wire to an endpoint that has one interface for several connections, each in a VLAN of its own there.
fn at_trunk(wire: &Wire, next: Kernel<'_>, mark: &Mark, ways: Ways<'_>) -> Result<Plan> {
    let node = ways.trunks.ok_or_else(|| {
        Error::unsupported("this forwarder shares no interface of an endpoint").hint("ask without supportsVlan")
    })?;
    let (netns, name, id) = shared(next)?;
    let trunk = Trunk::of(mark, netns, name, node.clone())?;
    let vlan = trunk.port(id);
    let (client, tunnel) = match wire.caller.as_kernel() {
        Some(caller) => (Some(end(wire, caller, Side::Client, mark, None)?), None),
        None => (None, Some(tunnel(wire, &wire.caller, Side::Endpoint, ways)?)),
    };
    if matches!(tunnel, Some(Tunnel::Wireguard { .. })) {
        return Err(Error::unsupported("WIREGUARD carries packets without frames, and only a frame has a VLAN")
            .hint("offer VXLAN"));
    }
    let carrier = tunnel.as_ref().map_or(Carrier::Vlan(&vlan), Tunnel::carrier);
    let spec = InterfaceSpec::new(&mark.name(&wire.id, Side::Endpoint), mark.of(&wire.id, Some(carrier))?);
    let mut spec = spec.map_err(|error| failed("the way to the endpoint's interface cannot be described", error))?;
    spec.mtu = (wire.context.mtu != 0).then_some(wire.context.mtu);
    spec.rate = RateLimit::of(&wire.context)?.of_endpoint();
    let port = End { netns: node.clone(), spec: spec.into_vlan(vlan), tunnel, route_localnet: false };
    Ok(Plan { ends: client.into_iter().chain([port]).collect(), trunk: Some(trunk), copying: None })
}

/// Where the shared interface is, its name, and the connection's VLAN there.
fn shared(kernel: Kernel<'_>) -> Result<(Netns, &str, u16)> {
    let (url, name, vlan) = check(kernel)?;
    Ok((opened(url, name)?, name, vlan))
}

/// The other end of the client's interface, in the node's namespace, by which it is put into a VLAN.
fn port(wire: &Wire, client: &End, mark: &Mark, ways: Ways<'_>) -> Result<End> {
    let vlans = ways.vlans.ok_or_else(|| Error::unsupported("this forwarder knows no network that has VLANs"))?;
    let vlan = vlans.port(&wire.next, client.spec.mac.unwrap_or_default())?;
    let carrier = Carrier::Vlan(&vlan);
    let spec = InterfaceSpec::new(&mark.name(&wire.id, Side::Endpoint), mark.of(&wire.id, Some(carrier))?);
    let mut spec = spec.map_err(|error| failed("the way into the VLAN cannot be described", error))?;
    (spec.mtu, spec.rate) = (client.spec.mtu, RateLimit::of(&wire.context)?.of_endpoint());
    Ok(End { netns: vlans.node().clone(), spec: spec.into_vlan(vlan), tunnel: None, route_localnet: false })
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
    wire.payload != payload::ETHERNET && wire.caller.is(KERNEL) && wire.next.is(KERNEL) && !is_shared(&wire.next)
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
            let ways = Ways { underlay: Some(&ways), wireguard: None, vlans: None, trunks: None };
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
