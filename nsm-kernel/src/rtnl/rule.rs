//! Policy routing rules.

use std::{net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteHeader, RouteProtocol},
    rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange},
};

use super::{Request, Rtnl, address::family, route::PROTOCOL};
use crate::{InterfaceName, Result};

/// A rule of ours in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RuleEntry {
    pub(crate) v4: bool,
    pub(crate) priority: u32,
    pub(crate) from: Option<IpNet>,
    pub(crate) proto: Option<u8>,
    pub(crate) dst_ports: Option<RangeInclusive<u16>>,
    pub(crate) src_ports: Option<RangeInclusive<u16>>,
    pub(crate) table: u32,
}

impl RuleEntry {
    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = family(self.v4);
        message.header.action = RuleAction::ToTable;
        // A table beyond 255 stands in the attribute alone.
        message.header.table = u8::try_from(self.table).unwrap_or(0);
        let attributes = &mut message.attributes;
        attributes.push(RuleAttribute::Table(self.table));
        attributes.push(RuleAttribute::Priority(self.priority));
        attributes.push(RuleAttribute::Protocol(PROTOCOL));
        if let Some(from) = self.from {
            message.header.src_len = from.prefix_len();
            if from.prefix_len() > 0 {
                attributes.push(RuleAttribute::Source(from.network()));
            }
        }
        attributes.extend(self.proto.map(|proto| RuleAttribute::IpProtocol(proto.into())));
        let range = |ports: &RangeInclusive<u16>| RulePortRange { start: *ports.start(), end: *ports.end() };
        attributes.extend(self.src_ports.as_ref().map(|p| RuleAttribute::SourcePortRange(range(p))));
        attributes.extend(self.dst_ports.as_ref().map(|p| RuleAttribute::DestinationPortRange(range(p))));
        message
    }

    /// Adds the rule; content if it is there.
    pub(crate) fn add(&self) -> Request {
        let mut request = Request::create(RouteNetlinkMessage::NewRule(self.message()));
        request.content_with = &[nix::libc::EEXIST];
        request
    }

    /// Removes the rule.
    pub(crate) fn remove(&self) -> Request {
        Request::remove(RouteNetlinkMessage::DelRule(self.message()))
    }
}

/// The table of addresses that are here (`RT_TABLE_LOCAL`).
const LOCAL: u8 = 255;

/// A rule before all others, or beside them where they are the first too.
fn first(v4: bool, table: u8) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(v4);
    message.header.action = RuleAction::ToTable;
    message.header.table = table;
    message.attributes = vec![RuleAttribute::Table(table.into()), RuleAttribute::Priority(0)];
    message
}

/// Of what comes in through this interface.
fn incoming(v4: bool, interface: &InterfaceName) -> RuleMessage {
    let mut message = first(v4, RouteHeader::RT_TABLE_MAIN);
    message.attributes.extend([RuleAttribute::Iifname(interface.to_string()), RuleAttribute::Protocol(PROTOCOL)]);
    message
}

/// What comes in through this interface is looked up in the main table first of all, once no rule of that priority is before.
pub(crate) fn passing(v4: bool, interface: &InterfaceName) -> Request {
    Request::create(RouteNetlinkMessage::NewRule(incoming(v4, interface)))
}

/// Takes that back.
pub(crate) fn pass_no_more(v4: bool, interface: &InterfaceName) -> Request {
    Request::remove(RouteNetlinkMessage::DelRule(incoming(v4, interface)))
}

/// The kernel's rule for local addresses once more, behind those of its priority.
pub(crate) fn local_again(v4: bool) -> Request {
    let mut message = first(v4, LOCAL);
    message.attributes.push(RuleAttribute::Protocol(RouteProtocol::Kernel));
    Request::add(RouteNetlinkMessage::NewRule(message))
}

/// Takes away the first of two.
pub(crate) fn local_once(v4: bool) -> Request {
    Request::remove(RouteNetlinkMessage::DelRule(first(v4, LOCAL)))
}

impl Rtnl {
    /// Rules of both families; `ours` keeps only those made here.
    pub(crate) fn rules(&mut self, ours: bool) -> Result<Vec<RuleEntry>> {
        let mut found = Vec::new();
        for v4 in [true, false] {
            let mut query = RuleMessage::default();
            query.header.family = family(v4);
            for message in self.dump(RouteNetlinkMessage::GetRule(query))? {
                if let RouteNetlinkMessage::NewRule(rule) = message {
                    let made_here = rule.attributes.contains(&RuleAttribute::Protocol(PROTOCOL));
                    if made_here || !ours {
                        found.push(found_rule(v4, &rule));
                    }
                }
            }
        }
        Ok(found)
    }
}

fn found_rule(v4: bool, rule: &RuleMessage) -> RuleEntry {
    let mut entry = RuleEntry {
        v4,
        priority: 0,
        from: None,
        proto: None,
        dst_ports: None,
        src_ports: None,
        table: rule.header.table.into(),
    };
    let prefix = |ip: IpAddr| IpNet::new(ip, rule.header.src_len).ok();
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => entry.priority = *priority,
            RuleAttribute::Source(ip) => entry.from = prefix(*ip),
            RuleAttribute::IpProtocol(proto) => entry.proto = Some((*proto).into()),
            RuleAttribute::SourcePortRange(range) => {
                entry.src_ports = Some(range.start..=range.end);
            }
            RuleAttribute::DestinationPortRange(range) => {
                entry.dst_ports = Some(range.start..=range.end);
            }
            RuleAttribute::Table(table) => entry.table = *table,
            _ => {}
        }
    }
    entry
}
