//! Packets between the two ends: whether they arrive, how large they may be.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nsm_chain::{Error, Result};
use nsm_kernel::Netns;
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::lab::wrong;
use crate::mirror;

/// Of IPv4 (RFC 791) with UDP, and of IPv6 (RFC 8200) with UDP.
const HEADERS: (usize, usize) = (28, 48);

/// An answer takes no longer.
const SOON: Duration = Duration::from_secs(2);

/// A datagram of each size goes there and comes back.
pub(crate) async fn echo(from: (&Netns, IpAddr), to: (&Netns, IpAddr), sizes: &[usize]) -> Result<()> {
    let (near, far) = (socket(from).await?, socket(to).await?);
    let (asks, answers) = (near.local_addr().map_err(wrong)?, far.local_addr().map_err(wrong)?);
    for &size in sizes {
        let sent: Vec<u8> = (0..size).map(|at| at as u8).collect();
        hop((&near, asks), (&far, answers), &sent).await?;
        hop((&far, answers), (&near, asks), &sent).await?;
    }
    Ok(())
}

/// The largest IP packet of `mtu` octets goes there and back whole; one of an octet more is refused by the sender's kernel.
pub(crate) async fn largest(from: (&Netns, IpAddr), to: (&Netns, IpAddr), mtu: u32) -> Result<()> {
    let headers = if from.1.is_ipv4() { HEADERS.0 } else { HEADERS.1 };
    let size = mtu as usize - headers;
    echo(from, to, &[size]).await?;
    for (from, to) in [(from, to), (to, from)] {
        let (near, far) = (socket(from).await?, socket(to).await?);
        let sent = near.send_to(&vec![0; size + 1], far.local_addr().map_err(wrong)?).await;
        match sent {
            Err(error) if error.raw_os_error() == Some(nix::libc::EMSGSIZE) => {}
            Err(error) => return Err(wrong(error)),
            Ok(_) => {
                return Err(Error::internal(format!(
                    "a packet of {} octets leaves {}, the MTU is {mtu}",
                    mtu + 1,
                    from.1
                )));
            }
        }
    }
    Ok(())
}

/// A workload with shared memory at `to` sends datagrams of each size back, also the largest IP packet of `mtu` octets. One of
/// an octet more is refused by the kernel on the way there, and does not come on the way back.
pub(crate) async fn mirrored(from: (&Netns, IpAddr), to: IpAddr, mtu: u32) -> Result<()> {
    let headers = if to.is_ipv4() { HEADERS.0 } else { HEADERS.1 };
    let largest = mtu as usize - headers;
    let near = socket(from).await?;
    let (same, longer) = (SocketAddr::new(to, mirror::SAME), SocketAddr::new(to, mirror::LONGER));
    for size in [1, 64, 512, largest] {
        let sent: Vec<u8> = (0..size).map(|at| at as u8).collect();
        if size == largest {
            near.send_to(&sent, longer).await.map_err(wrong)?;
        }
        near.send_to(&sent, same).await.map_err(wrong)?;
        let mut got = vec![0; size + 1];
        let lost = |_| Error::unavailable(format!("{size} octets to {to} and back did not arrive"));
        let (length, by) = timeout(SOON, near.recv_from(&mut got)).await.map_err(lost)?.map_err(wrong)?;
        if by == longer {
            return Err(Error::internal(format!("a packet of {} octets leaves {to}, the MTU is {mtu}", mtu + 1)));
        }
        if (by, &got[..length]) != (same, &sent[..]) {
            return Err(Error::internal(format!("from {by} came something else than what was sent")));
        }
    }
    match near.send_to(&vec![0; largest + 1], same).await {
        Err(error) if error.raw_os_error() == Some(nix::libc::EMSGSIZE) => Ok(()),
        Err(error) => Err(wrong(error)),
        Ok(_) => Err(Error::internal(format!("a packet of {} octets leaves {}, the MTU is {mtu}", mtu + 1, from.1))),
    }
}

/// One that never fragments what it sends.
async fn socket((netns, ip): (&Netns, IpAddr)) -> Result<UdpSocket> {
    let socket = netns.udp_socket(SocketAddr::new(ip, 0)).await.map_err(wrong)?;
    match ip {
        IpAddr::V4(_) => set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DO),
        IpAddr::V6(_) => set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::DO),
    }
    .map_err(wrong)?;
    Ok(socket)
}

async fn hop(
    (from, source): (&UdpSocket, SocketAddr),
    (to, target): (&UdpSocket, SocketAddr),
    sent: &[u8],
) -> Result<()> {
    from.send_to(sent, target).await.map_err(wrong)?;
    let mut got = vec![0; sent.len() + 1];
    let lost = |_| Error::unavailable(format!("{} octets from {source} to {target} did not arrive", sent.len()));
    let (size, seen) = match timeout(SOON, to.recv_from(&mut got)).await.map_err(lost)? {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            return Err(Error::unavailable("refused").because(error));
        }
        received => received.map_err(wrong)?,
    };
    if (seen, &got[..size]) != (source, sent) {
        return Err(Error::internal(format!("from {seen} came something else than what {source} sent")));
    }
    Ok(())
}
