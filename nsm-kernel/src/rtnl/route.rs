//! Routes.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
    },
};
use nix::libc::{EHOSTUNREACH, ENETUNREACH};

use super::{Request, Rtnl, address::family, describe::route_ip};
use crate::Result;

/// `rtm_protocol` of routes and rules made here ("N"): who made it, as routing daemons say it.
pub(crate) const PROTOCOL: RouteProtocol = RouteProtocol::Other(78);
/// The main table.
pub(crate) const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;
/// Metric of our IPv6 routes: before the 1024 of others (a default route over another interface comes
/// back when ours goes). In IPv4 a route of the same prefix and metric added later comes first anyway.
const V6_METRIC: u32 = 512;

/// A route in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RouteEntry {
    pub(crate) table: u32,
    pub(crate) prefix: IpNet,
    pub(crate) via: Option<IpAddr>,
}

impl RouteEntry {
    fn message(&self, index: u32) -> RouteMessage {
        let v4 = self.prefix.addr().is_ipv4();
        let mut message = RouteMessage::default();
        message.header.address_family = family(v4);
        message.header.destination_prefix_length = self.prefix.prefix_len();
        message.header.protocol = PROTOCOL;
        message.header.kind = RouteType::Unicast;
        message.header.table = u8::try_from(self.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
        message.attributes = vec![RouteAttribute::Table(self.table), RouteAttribute::Oif(index)];
        if self.prefix.prefix_len() > 0 {
            message.attributes.push(RouteAttribute::Destination(self.prefix.network().into()));
        }
        match self.via {
            Some(via) => {
                message.header.scope = RouteScope::Universe;
                message.header.flags = RouteFlags::Onlink;
                message.attributes.push(RouteAttribute::Gateway(RouteAddress::from(via)));
            }
            // IPv6 knows no scopes and ignores it.
            None => message.header.scope = RouteScope::Link,
        }
        if !v4 {
            message.attributes.push(RouteAttribute::Priority(V6_METRIC));
        }
        message
    }

    /// Adds the route before others of its prefix, replacing none.
    pub(crate) fn add(&self, index: u32) -> Request {
        Request::add(RouteNetlinkMessage::NewRoute(self.message(index)))
    }

    /// Removes the route.
    pub(crate) fn remove(&self, index: u32) -> Request {
        Request::remove(RouteNetlinkMessage::DelRoute(self.message(index)))
    }
}

/// A route as found, with what does not belong to its identity.
#[derive(Debug)]
pub(crate) struct FoundRoute {
    pub(crate) index: u32,
    pub(crate) entry: RouteEntry,
    pub(crate) protocol: RouteProtocol,
}

impl Rtnl {
    /// Whether packets for `ip` are delivered here.
    pub(crate) fn is_local(&mut self, ip: IpAddr) -> Result<bool> {
        let mut query = RouteMessage::default();
        query.header.address_family = family(ip.is_ipv4());
        query.header.destination_prefix_length = if ip.is_ipv4() { 32 } else { 128 };
        query.attributes = vec![RouteAttribute::Destination(ip.into())];
        match self.get(RouteNetlinkMessage::GetRoute(query)) {
            Ok(Some(RouteNetlinkMessage::NewRoute(route))) => Ok(route.header.kind == RouteType::Local),
            Ok(_) => Ok(false),
            Err(error) if matches!(error.errno(), Some(ENETUNREACH | EHOSTUNREACH)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The link through which packets go from our address `local` to `remote`.
    pub(crate) fn way(&mut self, local: IpAddr, remote: IpAddr) -> Result<u32> {
        let mut query = RouteMessage::default();
        let length = if remote.is_ipv4() { 32 } else { 128 };
        query.header.address_family = family(remote.is_ipv4());
        (query.header.destination_prefix_length, query.header.source_prefix_length) = (length, length);
        query.attributes = vec![RouteAttribute::Destination(remote.into()), RouteAttribute::Source(local.into())];
        let Some(RouteNetlinkMessage::NewRoute(route)) = self.get(RouteNetlinkMessage::GetRoute(query))? else {
            return Ok(0);
        };
        let through = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
        Ok(through.unwrap_or_default())
    }

    /// Routes of both families in all tables: through link `index`, or all if it is 0.
    pub(crate) fn routes(&mut self, index: u32) -> Result<Vec<FoundRoute>> {
        let mut found = Vec::new();
        for v4 in [true, false] {
            let mut query = RouteMessage::default();
            query.header.address_family = family(v4);
            if index != 0 {
                query.attributes = vec![RouteAttribute::Oif(index)];
            }
            let messages = self.dump(RouteNetlinkMessage::GetRoute(query))?;
            found.extend(messages.into_iter().filter_map(|message| match message {
                RouteNetlinkMessage::NewRoute(route) => found_route(v4, &route),
                _ => None,
            }));
        }
        // Older kernels list all.
        found.retain(|route| index == 0 || route.index == index);
        Ok(found)
    }
}

fn found_route(v4: bool, route: &RouteMessage) -> Option<FoundRoute> {
    let any: IpAddr = if v4 { [0; 4].into() } else { [0u16; 8].into() };
    let (mut index, mut destination, mut via) = (0, any, None);
    let mut table = u32::from(route.header.table);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => index = *oif,
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::Destination(to) => destination = route_ip(to)?,
            RouteAttribute::Gateway(gateway) => via = route_ip(gateway),
            _ => {}
        }
    }
    let prefix = IpNet::new(destination, route.header.destination_prefix_length).ok()?;
    Some(FoundRoute { index, entry: RouteEntry { table, prefix, via }, protocol: route.header.protocol })
}
