//! Telling whoever is on the link that an address has (moved to) a hardware address: gratuitous ARP (RFC 5227 §2.3) and
//! unsolicited neighbour advertisements (RFC 4861 §7.2.6).
//!
//! Sent from here rather than by the workload, which would need CAP_NET_RAW for it. The kernel does it by itself only
//! where a setting of the namespace says so (`arp_notify`, `ndisc_notify`), which is not ours to change.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    libc,
    sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, sendto, socket},
};

use crate::{
    Error, Interface, Result, discovery,
    netns::{Lane, work},
    rtnl::Rtnl,
};

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
            let asks = addresses.iter().any(IpAddr::is_ipv6);
            let router = asks && Rtnl::open()?.link_at(index)?.is_some_and(|link| link.forwards_ipv6);
            for ip in &addresses {
                let frame = discovery::announcement(mac, *ip, router);
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
