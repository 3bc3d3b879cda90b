//! Telling whoever is on the link that an address has (moved to) a hardware address: gratuitous ARP (RFC 5227 §2.3) and
//! unsolicited neighbour advertisements (RFC 4861 §7.2.6).
//!
//! Sent from here rather than by the workload, which would need CAP_NET_RAW for it. The kernel does it by itself only
//! where a setting of the namespace says so (`arp_notify`, `ndisc_notify`), which is not ours to change.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    libc,
    sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, sendto, socket},
};

use crate::{
    Error, Interface, Result,
    netns::{Lane, work},
};

const EVERYBODY: [u8; 6] = [0xff; 6];
/// Of all nodes, `ff02::1`.
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const IS_ROUTER: u8 = 0x80;
const OVERRIDE: u8 = 0x20;

impl Interface {
    /// Tells everybody on the link the hardware address of each of its addresses. Those who had another one for them use
    /// this one from then on; those who had none learn nothing. How many were told of.
    ///
    /// # Errors
    /// [`Error::NoPrivileges`] without CAP_NET_RAW over the namespace, or [`Error::Kernel`] if it cannot be sent.
    pub async fn announce(&self) -> Result<usize> {
        let addresses: Vec<IpAddr> = self.spec().addresses.iter().map(|net| net.addr()).collect();
        if addresses.is_empty() {
            return Ok(0);
        }
        let (netns, name, index, mac) = (self.netns().clone(), self.spec().name.clone(), self.index(), self.mac());
        // Closing a packet socket waits for an RCU grace period.
        work(Lane::Slow, move |here| {
            here.enter(&netns)?;
            let failed = |e| Error::os(format!("announce the addresses of {name}"), e);
            let socket = packet_socket().map_err(failed)?;
            let forwarding = fs::read(format!("/proc/sys/net/ipv6/conf/{name}/forwarding"));
            let router = forwarding.is_ok_and(|value| value.first() != Some(&b'0'));
            for ip in &addresses {
                let frame = match ip {
                    IpAddr::V4(ip) => arp(mac, *ip),
                    IpAddr::V6(ip) => advertisement(mac, *ip, router),
                };
                let to = device(index).map_err(failed)?;
                sendto(socket.as_raw_fd(), &frame, &to, MsgFlags::empty()).map_err(|e| failed(e.into()))?;
            }
            Ok(addresses.len())
        })
        .await
    }
}

/// A socket that sends whole frames, and receives nothing: it has no protocol.
fn packet_socket() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?)
}

#[allow(unsafe_code, reason = "nix and rustix have no safe way to make a packet socket's address")]
fn device(index: u32) -> io::Result<LinkAddr> {
    let invalid = || io::Error::from_raw_os_error(libc::ENODEV);
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(|_| invalid())?,
        sll_protocol: 0,
        sll_ifindex: i32::try_from(index).map_err(|_| invalid())?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    let length = u32::try_from(size_of::<libc::sockaddr_ll>()).map_err(|_| invalid())?;
    // SAFETY: it points to a whole sockaddr_ll of that length, whose family says so, and is read before this returns.
    let made = unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(length)) };
    made.ok_or_else(invalid)
}

/// An ARP request for our own address, from it.
fn arp(mac: [u8; 6], ip: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    for part in [&EVERYBODY[..], &mac, &ARP, &[0, 1, 0x08, 0, 6, 4, 0, 1], &mac, &ip.octets(), &[0; 6], &ip.octets()] {
        frame.extend_from_slice(part);
    }
    frame
}

/// To all nodes: this address is at this hardware address, whatever you knew.
fn advertisement(mac: [u8; 6], ip: Ipv6Addr, router: bool) -> Vec<u8> {
    let flags = OVERRIDE | if router { IS_ROUTER } else { 0 };
    let mut message = Vec::with_capacity(32);
    for part in [&[NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0][..], &ip.octets(), &[2, 1], &mac] {
        message.extend_from_slice(part);
    }
    let sum = checksum(ip, ALL_NODES, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let header = [0x60, 0, 0, 0, 0, 32, ICMPV6, 255];
    let mut frame = Vec::with_capacity(86);
    for part in [&ALL_NODES_MAC[..], &mac, &IPV6, &header, &ip.octets(), &ALL_NODES.octets(), &message] {
        frame.extend_from_slice(part);
    }
    frame
}

/// Of an ICMPv6 message with its pseudo-header (RFC 8200 §8.1).
fn checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | two.get(1).map_or(0, |low| u32::from(*low))).sum()
    };
    let length = u32::try_from(message.len()).unwrap_or_default();
    let mut sum = words(&from.octets()) + words(&to.octets()) + length + u32::from(ICMPV6) + words(message);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn an_arp_announcement_asks_for_its_own_address() {
        let frame = arp(MAC, Ipv4Addr::new(10, 0, 0, 1));
        let expected = [
            255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 7, 8, 6, // Ethernet
            0, 1, 8, 0, 6, 4, 0, 1, // Ethernet and IPv4, request
            2, 0, 0, 0, 0, 7, 10, 0, 0, 1, // from
            0, 0, 0, 0, 0, 0, 10, 0, 0, 1, // for
        ];
        assert_eq!(frame, expected);
    }

    proptest! {
        #[test]
        fn a_receiver_finds_the_checksum_right(ip: [u8; 16], mac: [u8; 6], router: bool) {
            let frame = advertisement(mac, ip.into(), router);
            prop_assert_eq!(frame.len(), 86);
            // Over a message with its checksum it comes to zero.
            prop_assert_eq!(checksum(ip.into(), ALL_NODES, &frame[54..]), 0);
            prop_assert_eq!((frame[58] & IS_ROUTER != 0, frame[58] & OVERRIDE), (router, OVERRIDE));
        }
    }
}
