//! The same wires as a forwarder makes them.

use std::time::Duration;

use nsm_api::connectioncontext::Route;
use nsm_api::mechanism::FileUrl;
use nsm_api::{ConnectionContext, IpContext, Mechanism, payload};
use nsm_kernel::{Interface, InterfaceSpec, Node as Place};
use nsm_mechanisms::{Class, Dataplane, Linux, Underlay, Wire};
use nsm_wireguard::{Node, Peering, PrivateKey, Tunnel};

use crate::bare::End;
use crate::{ETHERNET_MTU, Outcome, TUNNEL_MTU};

/// A wire on one node.
pub(crate) fn local(number: u16, ends: (&End, &End)) -> Outcome<Wire> {
    Ok(wire(number, (kernel(ends.0)?, kernel(ends.1)?), ends, ETHERNET_MTU))
}

/// The data planes of two nodes.
pub(crate) fn planes(nodes: (&Place, &Place)) -> Outcome<[Linux; 2]> {
    let plane = |name: &str, node: &Place| Linux::with_underlay(name, Underlay::new(node.ip()), node.netns.clone());
    Ok([plane("near", nodes.0)?, plane("far", nodes.1)?])
}

/// The two halves of a wire over VXLAN.
pub(crate) fn remote(planes: &[Linux; 2], ends: (&End, &End)) -> Outcome<[Wire; 2]> {
    let mut tunnel =
        planes[0].offers("c-0", Class::Remote, payload::IP).into_iter().next().ok_or("no tunnel is offered")?;
    let _lease = planes[1].accept("c-0", &mut tunnel, None)?;
    let near = wire(0, (kernel(ends.0)?, tunnel.clone()), ends, TUNNEL_MTU);
    Ok([near, wire(0, (tunnel, kernel(ends.1)?), ends, TUNNEL_MTU)])
}

/// The two ends of a WireGuard tunnel, 10.9.0.1 and 10.9.0.2.
pub(crate) async fn wireguard(nodes: &[Place], mtu: u32) -> Outcome<Vec<(Interface, Tunnel)>> {
    let keys = [PrivateKey::generate()?, PrivateKey::generate()?];
    let mut made = Vec::new();
    for at in [1, 0] {
        let place = &nodes[at];
        let node = Node::bind(&place.netns, (place.ip(), 51_820).into()).await?;
        let peering = Peering {
            private_key: keys[at].clone(),
            peer: keys[1 - at].public_key(),
            endpoint: (nodes[1 - at].ip(), 51_820).into(),
            keepalive: Some(Duration::from_secs(10)),
        };
        let spec = InterfaceSpec::new("wg", "nsm:dataplane")?
            .with_mtu(mtu)
            .with_address(format!("10.9.0.{}/24", at + 1).parse()?);
        made.push(node.create(&peering, (&place.netns, &spec)).await?);
    }
    Ok(made)
}

fn kernel(end: &End) -> Outcome<Mechanism> {
    let mut mechanism = Mechanism::kernel();
    if let Some(mut kernel) = mechanism.as_kernel_mut() {
        kernel.set_interface_name(&end.name)?.set_netns(&FileUrl::Path(end.netns.path()));
    }
    Ok(mechanism)
}

fn wire(number: u16, (caller, next): (Mechanism, Mechanism), ends: (&End, &End), mtu: u32) -> Wire {
    let [src, dst] = [ends.0, ends.1].map(|end| vec![format!("{}/32", end.ip)]);
    let route = |prefix: &String| Route { prefix: prefix.clone(), next_hop: String::new() };
    let routes = |nets: &[String]| nets.iter().map(route).collect();
    let ip = IpContext {
        src_routes: routes(&dst),
        dst_routes: routes(&src),
        src_ip_addrs: src,
        dst_ip_addrs: dst,
        ..Default::default()
    };
    Wire {
        id: format!("c-{number}").into(),
        caller,
        next,
        context: ConnectionContext { ip_context: Some(ip), mtu, ..Default::default() },
        payload: payload::IP.into(),
        origin: None,
    }
}
