//! A workload with shared memory, which sends every datagram back.

use std::net::IpAddr;

use nsm_api::payload;
use nsm_kernel::discovery::{HEADER, IPV4, IPV6, Question};
use nsm_memif::{Memif, Receiver, Sender};

use crate::UNASSIGNED;

/// Its hardware address.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// The port whose answers are as long as what came.
pub(crate) const SAME: u16 = 7;
/// The port whose answers have one octet more, behind the packet.
pub(crate) const LONGER: u16 = 8;
const UDP: u8 = 17;

/// Answers until the interface is closed.
pub(crate) async fn answers(mut memif: Memif, carries: &str) {
    let framed = carries == payload::ETHERNET;
    let Ok((from, to)) = memif.pair() else { return };
    while from.ready().await.is_ok() && turn(from, to, framed).is_ok() {}
}

fn turn(from: &mut Receiver, to: &mut Sender, framed: bool) -> nsm_memif::Result<()> {
    let mut answers = Vec::new();
    from.recv_burst(64, |packet| {
        answers.extend(if framed { frame_back(packet) } else { packet_back(packet) });
    })?;
    to.send_burst(answers).map(drop)
}

/// What comes back for an IP packet: a datagram with addresses and ports the other way round, so that its checksums stay right.
pub(crate) fn packet_back(packet: &[u8]) -> Option<Vec<u8>> {
    let mut back = packet.to_vec();
    let (at, length, ports) = match packet.first()? >> 4 {
        4 if *packet.get(9)? == UDP => (12, 4, 20),
        6 if *packet.get(6)? == UDP => (8, 16, 40),
        _ => return None,
    };
    swap(back.get_mut(at..)?, length)?;
    swap(back.get_mut(ports..)?, 2)?;
    if back[ports..ports + 2] == LONGER.to_be_bytes() {
        back.push(0);
    }
    Some(back)
}

/// The same for a frame. Who asks for an address is answered.
pub(crate) fn frame_back(frame: &[u8]) -> Option<Vec<u8>> {
    if let Some(question) = Question::of(frame) {
        return Some(question.answer(MAC));
    }
    let mut back = frame.get(..HEADER)?.to_vec();
    swap(&mut back, 6)?;
    back[6..12].copy_from_slice(&MAC);
    match frame[12..HEADER] == UNASSIGNED.to_be_bytes() {
        true => back.extend_from_slice(&frame[HEADER..]),
        false => back.extend(packet_back(&frame[HEADER..])?),
    }
    Some(back)
}

/// A datagram of so many octets as an IP packet; in a frame, if that is what the wire carries.
pub(crate) fn datagram(carries: &str, [from, to]: [IpAddr; 2], port: u16, length: usize) -> Vec<u8> {
    let framed = carries == payload::ETHERNET;
    let mut packet = Vec::new();
    if framed {
        let protocol = if from.is_ipv4() { IPV4 } else { IPV6 };
        packet.extend([&MAC[..], &[2, 0, 0, 0, 0, 8], &protocol].concat());
    }
    let begin = packet.len();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            packet.extend([0x45, 0]);
            packet.extend((length as u16).to_be_bytes());
            packet.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
            packet.extend([from.octets(), to.octets()].concat());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend((length as u16 - 40).to_be_bytes());
            packet.extend([UDP, 64]);
            packet.extend([from.octets(), to.octets()].concat());
        }
        _ => {}
    }
    packet.extend([0x12, 0x34]);
    packet.extend(port.to_be_bytes());
    packet.extend((length as u16 - (packet.len() - begin) as u16 + 4).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend((packet.len() - begin..length).map(|at| at as u8));
    packet
}

fn swap(octets: &mut [u8], length: usize) -> Option<()> {
    let (one, other) = octets.get_mut(..2 * length)?.split_at_mut(length);
    one.swap_with_slice(other);
    Some(())
}
