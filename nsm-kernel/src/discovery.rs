//! Who on a link has which address: the frames of ARP (RFC 826) and of neighbour discovery (RFC 4861), for whoever has to
//! speak them where no kernel does.
//!
//! ```
//! use nsm_kernel::discovery::{self, Question};
//!
//! let (asker, answerer) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
//! let frame = discovery::question(asker, "10.0.0.1".parse()?, "10.0.0.2".parse()?).unwrap_or_default();
//! let asked = Question::of(&frame).ok_or("no question")?;
//! assert_eq!(asked.target.to_string(), "10.0.0.2");
//! let frame = asked.answer(answerer);
//! assert_eq!((&frame[..6], &frame[6..12]), (&asker[..], &answerer[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Octets of an Ethernet header: destination, source, protocol.
pub const HEADER: usize = 14;
/// Protocol number of IPv4 in an Ethernet header.
pub const IPV4: [u8; 2] = [0x08, 0x00];
/// Protocol number of IPv6 in an Ethernet header.
pub const IPV6: [u8; 2] = [0x86, 0xdd];
/// Protocol number of ARP in an Ethernet header.
pub const ARP: [u8; 2] = [0x08, 0x06];
/// The hardware address of everybody on a link.
pub const EVERYBODY: [u8; 6] = [0xff; 6];

/// Of all nodes, `ff02::1`.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Ethernet and IPv4, with the lengths of their addresses.
const ARP_KIND: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const IS_ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// A message of neighbour discovery has come over no router (RFC 4861 §7.1.1).
const ONE_HOP: u8 = 255;
/// Its first octet after the headers of Ethernet and IPv6.
const MESSAGE: usize = HEADER + 40;

/// Somebody asks who has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The hardware address to answer to.
    pub mac: [u8; 6],
    /// Who asks.
    pub asker: IpAddr,
    /// The address that is asked for.
    pub target: IpAddr,
}

impl Question {
    /// The question in a frame, if it holds one that is to be answered. Who has no address yet and asks whether one is taken
    /// (RFC 5227 §2.1.1, RFC 4862 §5.4) wants no answer from those who only pass packets on, nor does who names its own.
    #[must_use]
    pub fn of(frame: &[u8]) -> Option<Self> {
        let question = match frame.get(12..HEADER)?.try_into().ok()? {
            ARP => {
                let request: &[u8; 28] = frame.get(HEADER..)?.first_chunk()?;
                if request[..6] != ARP_KIND || request[6..8] != REQUEST {
                    return None;
                }
                let ip = |at: usize| Some(IpAddr::from(*request.get(at..)?.first_chunk::<4>()?));
                Self { mac: *request[8..].first_chunk()?, asker: ip(14)?, target: ip(24)? }
            }
            IPV6 if neighbourly(frame) == Some(SOLICITATION) => {
                let ip = |at: usize| Some(IpAddr::from(*frame.get(at..)?.first_chunk::<16>()?));
                Self { mac: *frame[6..].first_chunk()?, asker: ip(HEADER + 8)?, target: ip(MESSAGE + 8)? }
            }
            _ => return None,
        };
        let wants_one = !question.asker.is_unspecified() && question.asker != question.target;
        wants_one.then_some(question)
    }

    /// The frame that tells who asked: the address is at this hardware address.
    #[must_use]
    pub fn answer(&self, mac: [u8; 6]) -> Vec<u8> {
        match (self.target, self.asker) {
            (IpAddr::V4(target), IpAddr::V4(asker)) => arp(self.mac, REPLY, (mac, target), (self.mac, asker)),
            (IpAddr::V6(target), IpAddr::V6(asker)) => {
                advertisement(self.mac, (mac, target), asker, SOLICITED | OVERRIDE)
            }
            // Both are of one question.
            _ => Vec::new(),
        }
    }
}

/// A frame that asks everybody on the link who has `target`; `None` if the two addresses are of different families.
#[must_use]
pub fn question(mac: [u8; 6], asker: IpAddr, target: IpAddr) -> Option<Vec<u8>> {
    match (asker, target) {
        (IpAddr::V4(asker), IpAddr::V4(target)) => Some(arp(EVERYBODY, REQUEST, (mac, asker), ([0; 6], target))),
        (IpAddr::V6(asker), IpAddr::V6(target)) => {
            let [.., a, b, c] = target.octets();
            let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
            let message = [&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &[1, 1], &mac].concat();
            Some(icmpv6(multicast_mac(group.into()).unwrap_or(EVERYBODY), mac, (asker, group), message))
        }
        _ => None,
    }
}

/// A frame that tells everybody on the link: this address is at this hardware address, whatever you knew (gratuitous ARP, RFC
/// 5227 §2.3; unsolicited neighbour advertisement, RFC 4861 §7.2.6).
#[must_use]
pub fn announcement(mac: [u8; 6], ip: IpAddr, router: bool) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => arp(EVERYBODY, REQUEST, (mac, ip), ([0; 6], ip)),
        IpAddr::V6(ip) => {
            let to = multicast_mac(ALL_NODES.into()).unwrap_or(EVERYBODY);
            advertisement(to, (mac, ip), ALL_NODES, OVERRIDE | if router { IS_ROUTER } else { 0 })
        }
    }
}

/// Whether a frame is one of those that ask and tell who has an address, which are nobody's beyond the link.
#[must_use]
pub fn is_discovery(frame: &[u8]) -> bool {
    frame.get(12..HEADER) == Some(&ARP) || neighbourly(frame).is_some()
}

/// The hardware address to which packets to many go: a multicast address (RFC 1112 §6.4, RFC 2464 §7), or IPv4's broadcast.
/// `None` for those of single hosts.
#[must_use]
pub fn multicast_mac(ip: IpAddr) -> Option<[u8; 6]> {
    match ip {
        IpAddr::V4(ip) if ip.is_broadcast() => Some(EVERYBODY),
        IpAddr::V4(ip) if ip.is_multicast() => {
            let [_, a, b, c] = ip.octets();
            Some([0x01, 0x00, 0x5e, a & 0x7f, b, c])
        }
        IpAddr::V6(ip) if ip.is_multicast() => {
            let [.., a, b, c, d] = ip.octets();
            Some([0x33, 0x33, a, b, c, d])
        }
        _ => None,
    }
}

/// The type of a solicitation or advertisement of a neighbour.
fn neighbourly(frame: &[u8]) -> Option<u8> {
    let kind = *frame.get(MESSAGE).filter(|_| frame.get(12..HEADER) == Some(&IPV6))?;
    let whole = frame[HEADER + 6] == ICMPV6 && frame[HEADER + 7] == ONE_HOP && frame.len() >= MESSAGE + 24;
    (whole && [SOLICITATION, ADVERTISEMENT].contains(&kind)).then_some(kind)
}

fn arp(to: [u8; 6], operation: [u8; 2], by: ([u8; 6], Ipv4Addr), of: ([u8; 6], Ipv4Addr)) -> Vec<u8> {
    [&to[..], &by.0, &ARP, &ARP_KIND, &operation, &by.0, &by.1.octets(), &of.0, &of.1.octets()].concat()
}

fn advertisement(to: [u8; 6], (mac, ip): ([u8; 6], Ipv6Addr), told: Ipv6Addr, flags: u8) -> Vec<u8> {
    let message = [&[ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0][..], &ip.octets(), &[2, 1], &mac].concat();
    icmpv6(to, mac, (ip, told), message)
}

fn icmpv6(to: [u8; 6], from: [u8; 6], (src, dst): (Ipv6Addr, Ipv6Addr), mut message: Vec<u8>) -> Vec<u8> {
    let sum = checksum(src, dst, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let header = [0x60, 0, 0, 0, 0, 32, ICMPV6, ONE_HOP];
    [&to[..], &from, &IPV6, &header, &src.octets(), &dst.octets(), &message].concat()
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
        let frame = announcement(MAC, Ipv4Addr::new(10, 0, 0, 1).into(), false);
        let expected = [
            255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 7, 8, 6, // Ethernet
            0, 1, 8, 0, 6, 4, 0, 1, // Ethernet and IPv4, request
            2, 0, 0, 0, 0, 7, 10, 0, 0, 1, // from
            0, 0, 0, 0, 0, 0, 10, 0, 0, 1, // for
        ];
        assert_eq!(frame, expected);
        assert_eq!(Question::of(&frame), None);
    }

    #[test]
    fn who_asks_whether_an_address_is_free_gets_no_answer() {
        for (nobody, target) in [("0.0.0.0", "10.0.0.1"), ("::", "fd00::1")] {
            let frame = question(MAC, nobody.parse().unwrap(), target.parse().unwrap()).unwrap();
            assert!(is_discovery(&frame));
            assert_eq!(Question::of(&frame), None);
        }
    }

    #[test]
    fn packets_to_many_have_hardware_addresses_of_their_own() {
        let mac = |ip: &str| multicast_mac(ip.parse().unwrap());
        assert_eq!(mac("224.129.2.3"), Some([1, 0, 0x5e, 1, 2, 3]));
        assert_eq!(mac("255.255.255.255"), Some(EVERYBODY));
        assert_eq!(mac("ff02::1:2"), Some([0x33, 0x33, 0, 1, 0, 2]));
        assert_eq!((mac("10.0.0.255"), mac("fd00::1")), (None, None));
    }

    proptest! {
        #[test]
        fn a_receiver_finds_the_checksum_right(ip: [u8; 16], mac: [u8; 6], router: bool) {
            let frame = announcement(mac, ip.into(), router);
            prop_assert_eq!(frame.len(), 86);
            // Over a message with its checksum it comes to zero.
            prop_assert_eq!(checksum(ip.into(), ALL_NODES, &frame[MESSAGE..]), 0);
            prop_assert_eq!((frame[58] & IS_ROUTER != 0, frame[58] & OVERRIDE), (router, OVERRIDE));
        }

        #[test]
        fn a_question_is_understood_and_its_answer_is_right(asker: [u8; 16], target: [u8; 16], mac: [u8; 6], v4: bool) {
            let ip = |octets: [u8; 16]| -> IpAddr {
                if v4 { Ipv4Addr::from(*octets.first_chunk().unwrap()).into() } else { Ipv6Addr::from(octets).into() }
            };
            let (asker, target) = (ip(asker), ip(target));
            prop_assume!(asker != target && !asker.is_unspecified());
            let frame = question(mac, asker, target).unwrap();
            let understood = Question::of(&frame).unwrap();
            prop_assert_eq!(understood, Question { mac, asker, target });
            let answer = understood.answer(MAC);
            prop_assert!(is_discovery(&answer) && Question::of(&answer).is_none());
            if let (IpAddr::V6(asker), IpAddr::V6(target)) = (asker, target) {
                prop_assert_eq!(checksum(target, asker, &answer[MESSAGE..]), 0);
            }
        }

        #[test]
        fn whatever_comes_is_a_question_or_none(frame in prop::collection::vec(any::<u8>(), 0..120), kind in 0..4usize) {
            let mut frame = frame;
            let kinds = [ARP, IPV4, IPV6, [0, 0]];
            if let Some(place) = frame.get_mut(12..14) {
                place.copy_from_slice(&kinds[kind]);
            }
            if let Some(answer) = Question::of(&frame).map(|question| question.answer(MAC)) {
                prop_assert!(!answer.is_empty());
            }
            let _any_frame_is_fine = is_discovery(&frame);
        }
    }
}
