//! What a connection's context says about one end of its wire.

use nsm_api::IpContext;
use nsm_api::connectioncontext::{ConnectionContext, PolicyRoute};
use nsm_api::ip::{FieldError, IpRoute, PortRange};
use nsm_chain::{Error, Result};
use nsm_kernel::{InterfaceSpec, Neighbour, Policy, Route};

use super::mark::Side;
use crate::RateLimit;

/// Puts addresses, routes, policies, neighbours, MTU, hardware address and the limit of its rate into `spec`.
///
/// The client's end has the source addresses and routes, and it alone has policies and neighbours (`ip_neighbors`); the
/// endpoint's has the destination addresses and routes. Each knows the other's addresses to be on the link.
pub(super) fn fill(spec: &mut InterfaceSpec, side: Side, context: &ConnectionContext) -> Result<()> {
    spec.mtu = (context.mtu != 0).then_some(context.mtu);
    let limit = RateLimit::of(context)?;
    spec.rate = match side {
        Side::Client => limit.of_client(),
        Side::Endpoint => limit.of_endpoint(),
    };
    let ethernet = context.ethernet_context.as_ref();
    let mac = ethernet.map_or("", |ethernet| match side {
        Side::Client => &ethernet.src_mac,
        Side::Endpoint => &ethernet.dst_mac,
    });
    if !mac.is_empty() {
        let unusable =
            || Error::invalid(format!("{:?} is not a hardware address", mac.chars().take(32).collect::<String>()));
        spec.mac = Some(octets(mac).ok_or_else(|| unusable().hint("write six octets as 02:00:00:00:00:01"))?);
    }
    match &context.ip_context {
        Some(ip) => fill_ip(spec, side, ip)
            .map_err(|error| Error::invalid("the connection's IP context cannot be programmed").because(error)),
        None => Ok(()),
    }
}

fn fill_ip(spec: &mut InterfaceSpec, side: Side, ip: &IpContext) -> Result<(), FieldError> {
    // Nothing unreadable may be skipped: a wire without one of its routes looks whole and is not.
    ip.validate()?;
    let (peers, routes) = match side {
        Side::Client => {
            spec.addresses = ip.src_nets().collect();
            spec.policies = ip.policies.iter().map(policy).collect::<Result<_, _>>()?;
            spec.neighbours = ip
                .ip_neighbors
                .iter()
                .filter_map(|n| {
                    Some(Neighbour { ip: n.ip.parse().ok()?, mac: octets(&n.hardware_address)?, permanent: false })
                })
                .collect();
            (ip.dst_link_routes(), ip.resolved_src_routes()?)
        }
        Side::Endpoint => {
            spec.addresses = ip.dst_nets().collect();
            (ip.src_link_routes(), ip.resolved_dst_routes()?)
        }
    };
    let on_link = peers.into_iter().map(|prefix| Route { prefix, via: None });
    spec.routes = on_link.chain(routes.into_iter().map(route)).collect();
    Ok(())
}

fn route(route: IpRoute) -> Route {
    Route { prefix: route.prefix, via: route.next_hop }
}

fn policy(policy: &PolicyRoute) -> Result<Policy, FieldError> {
    let range = |ports: PortRange| ports.first()..=ports.last();
    Ok(Policy {
        from: policy.source()?,
        proto: policy.protocol()?,
        dst_ports: policy.dst_ports()?.map(range),
        src_ports: policy.src_ports()?.map(range),
        routes: policy.parse_routes()?.into_iter().map(route).collect(),
    })
}

/// Six octets in hexadecimal, joined by colons.
fn octets(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for octet in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        *octet = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsm_api::connectioncontext::{EthernetContext, IpNeighbor, Route as WireRoute};
    use proptest::prelude::*;

    fn context() -> ConnectionContext {
        let route = |prefix: &str, next_hop: &str| WireRoute { prefix: prefix.into(), next_hop: next_hop.into() };
        let ip = IpContext {
            src_ip_addrs: vec!["10.0.0.1/32".into()],
            dst_ip_addrs: vec!["10.0.0.0/32".into(), "fd00::/128".into()],
            src_routes: vec![route("172.16.0.0/16", "")],
            dst_routes: vec![route("192.168.0.0/16", "10.0.0.1")],
            policies: vec![PolicyRoute { proto: "6".into(), dst_port: "80-81".into(), ..Default::default() }],
            ip_neighbors: vec![IpNeighbor { ip: "10.0.0.9".into(), hardware_address: "02:00:00:00:00:09".into() }],
            ..Default::default()
        };
        let ethernet = EthernetContext { dst_mac: "02:00:00:00:00:01".into(), ..Default::default() };
        ConnectionContext { ip_context: Some(ip), ethernet_context: Some(ethernet), mtu: 1400, ..Default::default() }
    }

    fn spec(side: Side, context: &ConnectionContext) -> Result<InterfaceSpec> {
        let mut spec = InterfaceSpec::new("nsm-1", "nsm:fwd:1").unwrap();
        fill(&mut spec, side, context).map(|()| spec)
    }

    fn texts<T: ToString>(items: &[T]) -> Vec<String> {
        items.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_client_has_the_source_side_policies_and_neighbours() {
        let spec = spec(Side::Client, &context()).unwrap();
        assert_eq!(texts(&spec.addresses), ["10.0.0.1/32"]);
        assert_eq!(texts(&spec.routes), ["10.0.0.0/32", "fd00::/128", "172.16.0.0/16 via 10.0.0.0"]);
        assert_eq!((spec.mtu, spec.mac), (Some(1400), None));
        assert_eq!(spec.policies[0].dst_ports, Some(80..=81));
        assert!(!spec.neighbours[0].permanent);
    }

    #[test]
    fn the_endpoint_has_the_destination_side_alone() {
        let spec = spec(Side::Endpoint, &context()).unwrap();
        assert_eq!(texts(&spec.addresses), ["10.0.0.0/32", "fd00::/128"]);
        assert_eq!(texts(&spec.routes), ["10.0.0.1/32", "192.168.0.0/16 via 10.0.0.1"]);
        assert_eq!(spec.mac, Some([2, 0, 0, 0, 0, 1]));
        assert!(spec.policies.is_empty() && spec.neighbours.is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_named_and_not_skipped() {
        let mut wrong = context();
        wrong.ip_context.as_mut().unwrap().src_routes.push(WireRoute::default());
        let error = spec(Side::Endpoint, &wrong).unwrap_err();
        assert!(error.to_string().contains("src_routes[1].prefix"), "{error}");
        let mut wrong = context();
        wrong.ethernet_context.as_mut().unwrap().dst_mac = "02:00:00:00:00".into();
        assert!(spec(Side::Endpoint, &wrong).is_err() && spec(Side::Client, &wrong).is_ok());
    }

    proptest! {
        #[test]
        fn a_hardware_address_is_six_octets_or_nothing(mac in any::<[u8; 6]>(), text in ".{0,20}") {
            prop_assert_eq!(octets(&mac.map(|octet| format!("{octet:02x}")).join(":")), Some(mac));
            let _any_text_is_fine = octets(&text);
        }
    }
}
