//! Addresses.

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
};

use super::{Request, Rtnl};
use crate::Result;

/// The address family of an address or prefix.
pub(crate) fn family(v4: bool) -> AddressFamily {
    if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr().is_ipv4());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(address.addr()), AddressAttribute::Address(address.addr())];
    message
}

/// Adds an address; IPv6 ones are used at once (no duplicate address detection: the wire has two ends).
pub(crate) fn put(index: u32, address: IpNet) -> Request {
    let mut message = message(index, address);
    let mut flags = AddressFlags::Permanent;
    if !address.addr().is_ipv4() {
        flags |= AddressFlags::Nodad;
        // The kernel would make a route of it that leads from the address to itself: of use to nobody, and before a route that leads
        // to where the address is, too, from a namespace that packets to it pass.
        if address.prefix_len() == 128 {
            flags |= AddressFlags::Noprefixroute;
        }
    }
    message.attributes.push(AddressAttribute::Flags(flags));
    Request::put(RouteNetlinkMessage::NewAddress(message))
}

/// Removes an address.
pub(crate) fn remove(index: u32, address: IpNet) -> Request {
    Request::remove(RouteNetlinkMessage::DelAddress(message(index, address)))
}

impl Rtnl {
    /// Addresses of universe scope with the number of their link: of link `index`, or of all if it is 0.
    pub(crate) fn addresses(&mut self, index: u32) -> Result<Vec<(u32, IpNet)>> {
        let mut query = AddressMessage::default();
        query.header.index = index;
        let mut found = Vec::new();
        for message in self.dump(RouteNetlinkMessage::GetAddress(query))? {
            let RouteNetlinkMessage::NewAddress(message) = message else {
                continue;
            };
            if message.header.scope != AddressScope::Universe || (index != 0 && message.header.index != index) {
                continue;
            }
            let mut ip = None;
            for attribute in &message.attributes {
                match attribute {
                    AddressAttribute::Local(local) => ip = Some(*local),
                    // IPv6 addresses come without IFA_LOCAL unless they have a peer.
                    AddressAttribute::Address(address) if ip.is_none() => ip = Some(*address),
                    _ => {}
                }
            }
            if let Some(net) = ip.and_then(|ip| IpNet::new(ip, message.header.prefix_len).ok()) {
                found.push((message.header.index, net));
            }
        }
        Ok(found)
    }
}
