//! Requests in words, for errors.

use std::net::IpAddr;

use netlink_packet_route::{
    RouteNetlinkMessage as M,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage},
    rule::{RuleAttribute, RuleMessage},
    tc::TcHandle,
};

/// What the request wants done, such as "add address 10.0.0.1/32".
pub(crate) fn step(message: &M) -> String {
    match message {
        M::NewLink(link) => format!("create interface {}", link_name(link)),
        M::SetLink(link) => format!("configure interface {}", link_name(link)),
        M::DelLink(link) => format!("delete interface {}", link_name(link)),
        M::GetLink(link) => format!("look up interface {}", link_name(link)),
        M::NewAddress(address) => format!("add address {}", address_text(address)),
        M::DelAddress(address) => format!("remove address {}", address_text(address)),
        M::NewRoute(route) => format!("add route {}", route_text(route)),
        M::DelRoute(route) => format!("remove route {}", route_text(route)),
        M::NewNeighbour(neighbour) => format!("add neighbour {}", neighbour_text(neighbour)),
        M::DelNeighbour(neighbour) => format!("remove neighbour {}", neighbour_text(neighbour)),
        M::NewRule(rule) => format!("add rule {}", rule_text(rule)),
        M::DelRule(rule) => format!("remove rule {}", rule_text(rule)),
        M::NewQueueDiscipline(queue) if queue.header.parent == TcHandle::ROOT => {
            format!("limit the rate of interface number {}", queue.header.index)
        }
        M::NewQueueDiscipline(place) => format!("prepare interface number {} for filters", place.header.index),
        M::NewTrafficFilter(filter) => {
            format!("redirect what comes in through interface number {}", filter.header.index)
        }
        M::DelTrafficFilter(filter) => {
            format!("no longer redirect what comes in through interface number {}", filter.header.index)
        }
        M::GetTrafficFilter(_) => "list filters".to_owned(),
        M::GetAddress(_) => "list addresses".to_owned(),
        M::GetRoute(_) => "list routes".to_owned(),
        M::GetNeighbour(_) => "list neighbours".to_owned(),
        M::GetRule(_) => "list rules".to_owned(),
        M::GetStats(_) => "read counters".to_owned(),
        M::DelQueueDiscipline(queue) => format!("lift the limit of interface number {}", queue.header.index),
        M::GetQueueDiscipline(_) => "list limits of rates".to_owned(),
        _ => "rtnetlink request".to_owned(),
    }
}

fn link_name(link: &LinkMessage) -> String {
    link.attributes
        .iter()
        .find_map(|a| match a {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })
        .unwrap_or_else(|| match link.header.index {
            0 => "(all)".to_owned(),
            index => format!("number {index}"),
        })
}

fn address_text(address: &AddressMessage) -> String {
    let ip = address.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    prefix_text(ip, address.header.prefix_len)
}

fn route_text(route: &RouteMessage) -> String {
    let mut destination = None;
    let mut gateway = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(to) => destination = route_ip(to),
            RouteAttribute::Gateway(via) => gateway = route_ip(via),
            _ => {}
        }
    }
    let prefix = prefix_text(destination, route.header.destination_prefix_length);
    match gateway {
        Some(via) => format!("{prefix} via {via}"),
        None => prefix,
    }
}

fn neighbour_text(neighbour: &NeighbourMessage) -> String {
    neighbour
        .attributes
        .iter()
        .find_map(|a| match a {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(ip.to_string()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(ip.to_string()),
            _ => None,
        })
        .unwrap_or_default()
}

fn rule_text(rule: &RuleMessage) -> String {
    let mut from = None;
    let mut table = u32::from(rule.header.table);
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Source(ip) => from = Some(*ip),
            RuleAttribute::Table(id) => table = *id,
            _ => {}
        }
    }
    format!("from {} lookup table {table}", prefix_text(from, rule.header.src_len))
}

pub(crate) fn route_ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

fn prefix_text(ip: Option<IpAddr>, length: u8) -> String {
    match ip {
        Some(ip) => format!("{ip}/{length}"),
        None => "default".to_owned(),
    }
}
