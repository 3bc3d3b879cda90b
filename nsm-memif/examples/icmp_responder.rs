//! A packet processor: it answers ARP and pings for one IPv4 address, in user space, without the kernel.
//!
//! `cargo run -p nsm-memif --example icmp_responder -- server /tmp/memif.sock 10.0.0.1` listens there, and with `client`
//! instead it connects. DPDK can be the other end:
//! `dpdk-testpmd --no-huge --no-pci --vdev=net_memif0,socket=/tmp/memif.sock,socket-abstract=no -- -i`.

use std::net::Ipv4Addr;

use nsm_memif::{Address, Config, Memif, Server};

/// What this end says is its hardware address.
const MAC: [u8; 6] = [0x02, 0xfe, 0, 0, 0, 1];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [role, socket, address] = &arguments[..] else {
        return Err("usage: icmp_responder server|client SOCKET IPV4-ADDRESS".into());
    };
    let (socket, address): (_, Ipv4Addr) = (Address::from(&**socket), address.parse()?);
    let mut memif = if role == "server" {
        let server = Server::bind(&socket)?;
        server.open(Config::new(0))?.accept().await?
    } else {
        Memif::connect(&socket, &Config::new(0)).await?
    };
    println!("up, with {:?}", memif.peer());
    println!("over: {}", memif.answer(|frame| respond(frame, address)).await?);
    Ok(())
}

/// Makes the answer of a request for our address. `false` if it is none.
fn respond(frame: &mut [u8], ours: Ipv4Addr) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x06]) => answer_arp(frame, ours),
        Some([0x08, 0x00]) => answer_ping(frame, ours),
        _ => false,
    }
}

/// RFC 826: the request's sender becomes the target, and we the sender.
fn answer_arp(frame: &mut [u8], ours: Ipv4Addr) -> bool {
    let Some(arp) = frame.get_mut(14..42) else { return false };
    if arp[..8] != [0, 1, 8, 0, 6, 4, 0, 1] || arp[24..28] != ours.octets() {
        return false;
    }
    arp[7] = 2;
    arp.copy_within(8..18, 18);
    arp[8..14].copy_from_slice(&MAC);
    arp[14..18].copy_from_slice(&ours.octets());
    address_back(frame);
    true
}

/// RFC 792: the type becomes that of a reply, and the addresses change places.
fn answer_ping(frame: &mut [u8], ours: Ipv4Addr) -> bool {
    let Some(header) = frame.get(14).map(|first| usize::from(first & 0xf) * 4).filter(|length| *length >= 20) else {
        return false;
    };
    let Some(ip) = frame.get_mut(14..).filter(|ip| ip.len() >= header + 8) else { return false };
    let first_fragment = ip[6] & 0x1f == 0 && ip[7] == 0;
    if ip[9] != 1 || ip[16..20] != ours.octets() || !first_fragment || ip[header] != 8 {
        return false;
    }
    ip.copy_within(12..16, 16);
    ip[12..16].copy_from_slice(&ours.octets());
    ip[header] = 0;
    // The checksum without the type's 8 (RFC 1624); that of the addresses stays.
    let sum = u32::from(u16::from_be_bytes([ip[header + 2], ip[header + 3]])) + 0x0800;
    let sum = (sum & 0xffff) + (sum >> 16);
    ip[header + 2..header + 4].copy_from_slice(&(sum as u16).to_be_bytes());
    address_back(frame);
    true
}

fn address_back(frame: &mut [u8]) {
    frame.copy_within(6..12, 0);
    frame[6..12].copy_from_slice(&MAC);
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn ping() -> Vec<u8> {
        let mut frame = [&[0xff; 6][..], &[0x0a; 6], &[8, 0]].concat();
        frame.extend_from_slice(&[0x45, 0, 0, 32, 0, 1, 0x40, 0, 64, 1, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1]);
        frame.extend_from_slice(&[8, 0, 0, 0, 0x12, 0x34, 0, 1, b'd', b'a', b't', b'a']);
        let sum = checksum(&frame[34..]);
        frame[36..38].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    /// RFC 1071.
    fn checksum(octets: &[u8]) -> u16 {
        let sum: u32 = octets.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        !((sum & 0xffff) + (sum >> 16)) as u16
    }

    #[test]
    fn a_ping_is_answered_with_a_right_checksum() {
        let mut frame = ping();
        assert!(respond(&mut frame, OURS));
        assert_eq!((&frame[..6], &frame[6..12]), (&[0x0a; 6][..], &MAC[..]));
        assert_eq!((&frame[26..30], &frame[30..34]), (&[10, 0, 0, 1][..], &[10, 0, 0, 2][..]));
        assert_eq!((frame[34], checksum(&frame[34..])), (0, 0));
    }

    #[test]
    fn an_arp_request_for_our_address_is_answered() {
        let mut frame = [&[0xff; 6][..], &[0x0a; 6], &[8, 6], &[0, 1, 8, 0, 6, 4, 0, 1]].concat();
        frame.extend_from_slice(&[&[0x0a; 6][..], &[10, 0, 0, 2], &[0; 6], &[10, 0, 0, 1]].concat());
        assert!(respond(&mut frame, OURS));
        let expected = [&[0, 2][..], &MAC, &[10, 0, 0, 1], &[0x0a; 6], &[10, 0, 0, 2]].concat();
        assert_eq!(frame[20..], expected);
    }

    #[test]
    fn what_is_cut_off_or_not_for_us_is_left_alone() {
        for length in 0..ping().len() - 4 {
            assert!(!respond(&mut ping()[..length], OURS), "{length}");
        }
        assert!(!respond(&mut ping(), Ipv4Addr::new(10, 0, 0, 9)));
    }
}
