//! This node's place in the network between nodes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use crate::failure::Failure;

/// Addresses that nobody has (RFC 5737, RFC 3849): where packets to them would leave, there is the way out.
const OUTSIDE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// The address of this node for tunnels, and the MTU of the interface that has it; the wanted one, or the one that leads
/// out of this machine, if any does.
pub(super) fn find(wanted: Option<IpAddr>) -> Result<Option<(IpAddr, u32)>, Failure> {
    let Some(address) = wanted.or_else(|| OUTSIDE.into_iter().find_map(way_out)) else {
        return Ok(None);
    };
    let remedy = "set NSM_TUNNEL_IP to an address of this machine";
    let interface = interface_of(address)
        .map_err(|error| Failure::at("tunnels", format!("interfaces cannot be listed: {error}"), remedy))?
        .ok_or_else(|| Failure::at("tunnels", format!("no interface of this machine has {address}"), remedy))?;
    let path = format!("/sys/class/net/{interface}/mtu");
    let mtu = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
    Ok(Some((address, mtu.unwrap_or(ETHERNET))))
}

/// The MTU of Ethernet, where it cannot be read.
const ETHERNET: u32 = 1500;

/// The source of packets to an address. Nothing is sent.
fn way_out(to: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((to, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

fn interface_of(address: IpAddr) -> nix::Result<Option<String>> {
    let mut all = nix::ifaddrs::getifaddrs()?;
    let found = all.find(|interface| interface.address.as_ref().and_then(super::public_url::ip) == Some(address));
    Ok(found.map(|interface| interface.interface_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_this_machine_is_found_with_its_mtu_and_no_other() {
        let (address, mtu) = find(Some(Ipv4Addr::LOCALHOST.into())).unwrap().unwrap();
        assert_eq!((address, mtu), (Ipv4Addr::LOCALHOST.into(), 65_536));
        let failure = find(Some("192.0.2.77".parse().unwrap())).unwrap_err();
        assert!(failure.cause.contains("192.0.2.77"), "{failure:?}");
    }

    #[test]
    fn the_way_out_is_an_address_of_this_machine() {
        match find(None).unwrap() {
            Some((address, mtu)) => assert!(!address.is_loopback() && mtu > 0),
            None => println!("SKIPPED: no address leads out of this machine"),
        }
    }
}
