//! Neighbour entries.

use std::net::IpAddr;

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
};

use super::{Request, Rtnl, address::family};
use crate::{Neighbour, Result};

fn message(index: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip.is_ipv4());
    message.header.ifindex = index;
    message.attributes = vec![NeighbourAttribute::Destination(match ip {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    })];
    message
}

/// Adds or overwrites an entry.
pub(crate) fn put(index: u32, neighbour: &Neighbour) -> Request {
    let mut message = message(index, neighbour.ip);
    message.header.state = if neighbour.permanent { NeighbourState::Permanent } else { NeighbourState::Reachable };
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(neighbour.mac.to_vec()));
    Request::put(RouteNetlinkMessage::NewNeighbour(message))
}

/// Sends everything that enters the VXLAN device `index` and is for no known hardware address to this port of a node.
pub(crate) fn forward_everything(index: u32, (node, port): (IpAddr, u16)) -> Request {
    let mut message = message(index, node);
    message.header.family = AddressFamily::Bridge;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    // Zero stands for all that are not known.
    message.attributes.extend([NeighbourAttribute::LinkLayerAddress(vec![0; 6]), NeighbourAttribute::Port(port)]);
    Request::create(RouteNetlinkMessage::NewNeighbour(message))
}

/// Has the link `index` take in what is sent to this hardware address, beside its own.
pub(crate) fn take_in(index: u32, mac: [u8; 6]) -> Request {
    Request::add(RouteNetlinkMessage::NewNeighbour(taken_in(index, mac)))
}

/// Takes that back.
pub(crate) fn leave_out(index: u32, mac: [u8; 6]) -> Request {
    Request::remove(RouteNetlinkMessage::DelNeighbour(taken_in(index, mac)))
}

fn taken_in(index: u32, mac: [u8; 6]) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.to_vec())];
    message
}

/// Removes an entry.
pub(crate) fn remove(index: u32, ip: IpAddr) -> Request {
    Request::remove(RouteNetlinkMessage::DelNeighbour(message(index, ip)))
}

impl Rtnl {
    /// Permanent entries with the number of their link: of link `index`, or all if it is 0.
    pub(crate) fn permanent_neighbours(&mut self, index: u32) -> Result<Vec<(u32, Neighbour)>> {
        let mut query = NeighbourMessage::default();
        if index != 0 {
            query.attributes = vec![NeighbourAttribute::IfIndex(index)];
        }
        let found = self.dump(RouteNetlinkMessage::GetNeighbour(query))?.into_iter().filter_map(permanent);
        // Older kernels list all.
        Ok(found.filter(|(link, _)| index == 0 || *link == index).collect())
    }
}

fn permanent(message: RouteNetlinkMessage) -> Option<(u32, Neighbour)> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else {
        return None;
    };
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut ip, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some(v4.into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some(v6.into()),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.try_into().ok(),
            _ => {}
        }
    }
    Some((message.header.ifindex, Neighbour { ip: ip?, mac: mac?, permanent: true }))
}
