//! What is seen on a link, frame by frame.

use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::net::if_::if_nameindex;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike,
    UnknownCmsg, recvmsg, sendto, socket,
};
use nix::{cmsg_space, libc};
use nsm_chain::Result;
use nsm_kernel::Netns;

use crate::lab::wrong;

/// Every frame of every interface that a namespace has when it is made. What passes later ones, such as those of a tunnel, is what
/// the tunnel carries.
pub(crate) struct Capture {
    socket: OwnedFd,
    interfaces: Vec<usize>,
}

/// A UDP datagram on the network between nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) port: u16,
    pub(crate) payload: Vec<u8>,
}

impl Capture {
    pub(crate) async fn of(netns: &Netns) -> Result<Self> {
        let open = || {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let everything = SockProtocol::EthAll;
            let interfaces = if_nameindex()?.iter().map(|interface| interface.index() as usize).collect();
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, everything)?;
            tell_tags(&socket)?;
            Ok::<_, std::io::Error>(Self { socket, interfaces })
        };
        netns.run(open).await.map_err(wrong)
    }

    /// All that came until now, with the tags that they have outside.
    pub(crate) fn take(&mut self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        let mut beside = cmsg_space!(libc::tpacket_auxdata);
        let mut frames = Vec::new();
        loop {
            let mut room = [IoSliceMut::new(&mut buffer)];
            let got = recvmsg::<LinkAddr>(self.socket.as_raw_fd(), &mut room, Some(&mut beside), MsgFlags::empty());
            let Ok(got) = got else { return frames };
            let (size, tag) = (got.bytes, got.cmsgs().into_iter().flatten().find_map(tag));
            if got.address.is_some_and(|from| self.interfaces.contains(&from.ifindex())) {
                let mut frame = buffer[..size].to_vec();
                frame.splice(12..12, tag.into_iter().flatten());
                frames.push(frame);
            }
        }
    }
}

/// Has the kernel tell the tag of a frame, which it keeps beside it (packet(7), `PACKET_AUXDATA`).
#[allow(unsafe_code, reason = "nix and rustix do not have this option")]
fn tell_tags(socket: &OwnedFd) -> std::io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as u32;
    // SAFETY: the value is a whole int of that length, and is read before this returns.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_AUXDATA, (&raw const on).cast(), length)
    };
    if set == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// The four octets of a frame's tag (`struct tpacket_auxdata`), if it has one.
fn tag(message: ControlMessageOwned) -> Option<[u8; 4]> {
    let ControlMessageOwned::Unknown(UnknownCmsg { data_bytes, .. }) = message else { return None };
    let word = |at: usize| Some(u16::from_ne_bytes(data_bytes.get(at..at + 2)?.try_into().ok()?));
    let status = u32::from_ne_bytes(data_bytes.get(..4)?.try_into().ok()?);
    let [[a, b], [c, d]] = [word(18)?.to_be_bytes(), word(16)?.to_be_bytes()];
    (status & libc::TP_STATUS_VLAN_VALID != 0).then_some([a, b, c, d])
}

/// The number of the VLAN that a frame is of, and the frame without its tag (IEEE 802.1Q).
pub(crate) fn untagged(frame: &[u8]) -> Option<(u16, Vec<u8>)> {
    let tag = frame.get(12..16)?;
    let id = u16::from_be_bytes([tag[2] & 0x0f, tag[3]]);
    (tag[..2] == [0x81, 0x00]).then(|| (id, [&frame[..12], &frame[16..]].concat()))
}

/// Sends a frame to everybody on the link behind the interface of this number.
#[allow(unsafe_code, reason = "nix and rustix have no safe way to make a packet socket's address")]
pub(crate) async fn broadcast(netns: &Netns, index: u32, frame: Vec<u8>) -> Result<()> {
    let send = move || -> std::io::Result<()> {
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
        let to = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: 0,
            sll_ifindex: index as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0; 8],
        };
        // SAFETY: it points to a whole sockaddr_ll of that length, whose family says so, and is read before this returns.
        let to = unsafe { LinkAddr::from_raw((&raw const to).cast(), Some(size_of::<libc::sockaddr_ll>() as u32)) };
        let to = to.ok_or_else(|| std::io::Error::from_raw_os_error(libc::ENODEV))?;
        sendto(socket.as_raw_fd(), &frame, &to, MsgFlags::empty())?;
        Ok(())
    };
    netns.run(send).await.map_err(wrong)
}

/// The UDP datagram in an Ethernet frame, if that is what it holds.
pub(crate) fn datagram(frame: &[u8]) -> Option<Datagram> {
    let (kind, packet) = (frame.get(12..14)?, frame.get(14..)?);
    let (protocol, from, to, udp) = match kind {
        [0x08, 0x00] => {
            let address =
                |at: usize| Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?)));
            let header = usize::from(packet.first()? & 0x0f) * 4;
            (*packet.get(9)?, address(12)?, address(16)?, packet.get(header..)?)
        }
        [0x86, 0xdd] => {
            let address =
                |at: usize| Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?)));
            (*packet.get(6)?, address(8)?, address(24)?, packet.get(40..)?)
        }
        _ => return None,
    };
    let port = u16::from_be_bytes(udp.get(2..4)?.try_into().ok()?);
    (protocol == 17).then(|| Some(Datagram { from, to, port, payload: udp.get(8..)?.to_vec() }))?
}

/// The identifier and the inner frame of a VXLAN message (RFC 7348 §5).
pub(crate) fn vxlan(payload: &[u8]) -> Option<(u32, &[u8])> {
    let (header, inner) = payload.split_at_checked(8)?;
    let number = u32::from_be_bytes([0, header[4], header[5], header[6]]);
    (header[0] & 0x08 != 0).then_some((number, inner))
}
