//! A program that has shared memory, and pings through it.

use std::net::Ipv4Addr;
use std::path::Path;

use nsm_memif::protocol::Mode;
use nsm_memif::{Address, Config, Memif};
use tokio::time::timeout;

use crate::kit::PATIENCE;

/// Sends an echo request from the first address to the second one, and waits for the answer.
pub(crate) async fn answers(socket: &Path, ends: [Ipv4Addr; 2]) {
    let config = Config::new(0).mode(Mode::Ip);
    let mut memif = Memif::connect(&Address::from(socket), &config).await.unwrap();
    memif.send_burst([&icmp(8, ends[0], ends[1])]).unwrap();
    let mut answer = Vec::new();
    while answer.is_empty() {
        timeout(PATIENCE, memif.ready()).await.expect("an answer in time").unwrap();
        // A kernel's device asks for routers and the like by itself.
        let mut keep = |packet: &[u8]| {
            if packet.get(9) == Some(&1) {
                answer = packet.to_vec();
            }
        };
        memif.recv_burst(8, |packet| keep(packet)).unwrap();
    }
    // An echo reply from the endpoint, with what was sent.
    assert_eq!((&answer[12..16], &answer[16..20]), (&ends[1].octets()[..], &ends[0].octets()[..]));
    assert_eq!((answer[20], &answer[24..]), (0, &icmp(8, ends[0], ends[1])[24..]));
}

/// An ICMP message with eight octets of its own (RFC 792).
fn icmp(kind: u8, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 36, 0, 1, 0, 0, 64, 1, 0, 0];
    header.extend(from.octets().into_iter().chain(to.octets()));
    let mut message = vec![kind, 0, 0, 0, 0, 7, 0, 1];
    message.extend(b"memories");
    for (octets, at) in [(&mut header, 10), (&mut message, 2)] {
        let sum = checksum(octets);
        octets[at..at + 2].copy_from_slice(&sum);
    }
    header.extend(message);
    header
}

/// RFC 1071.
fn checksum(octets: &[u8]) -> [u8; 2] {
    let words = octets.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
