//! Under which URL others reach a role.

use std::net::IpAddr;

use nsm_sdk::transport::Address;

use crate::failure::Failure;

/// The URL for others, where it is not the one a role listens on: a TCP address without a host names this machine's
/// first IPv4 address that is no loopback, else its first global IPv6 address. None where nothing need be said.
///
/// Reference: `tools/listenonurl` of the Go SDK.
pub(super) fn of(listen: &[Address]) -> Result<Option<String>, Failure> {
    let tcp = listen.iter().find_map(|address| match address {
        Address::Tcp { host, port } => Some((host, *port)),
        _ => None,
    });
    let Some((host, port)) = tcp.filter(|(host, port)| host.is_empty() && *port != 0) else {
        return Ok(None);
    };
    debug_assert!(host.is_empty());
    let failed = |error| Failure::at("interfaces", format!("they cannot be listed: {error}"), NAME_A_HOST);
    let addresses = nix::ifaddrs::getifaddrs().map_err(failed)?.filter_map(|interface| ip(&interface.address?));
    Ok(best(addresses).map(|ip| Address::Tcp { host: ip.to_string(), port }.to_string()))
}

const NAME_A_HOST: &str = "name a host in NSM_LISTEN_ON, such as tcp://10.0.0.1:5001";

pub(super) fn ip(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
    v4.or_else(|| Some(address.as_sockaddr_in6()?.ip().into()))
}

fn best(addresses: impl Iterator<Item = IpAddr>) -> Option<IpAddr> {
    let mut six = None;
    for ip in addresses {
        match ip {
            IpAddr::V4(v4) if !v4.is_loopback() => return Some(ip),
            // Neither loopback, nor unspecified, nor of a link or a group.
            IpAddr::V6(v6)
                if !(v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local() || v6.is_multicast()) =>
            {
                six.get_or_insert(ip);
            }
            _ => {}
        }
    }
    six
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(addresses: &[&str]) -> Option<String> {
        best(addresses.iter().map(|address| address.parse().unwrap())).map(|ip| ip.to_string())
    }

    #[test]
    fn the_first_ipv4_that_is_no_loopback_else_a_global_ipv6() {
        assert_eq!(chosen(&["127.0.0.1", "fd00::1", "10.0.0.7", "10.0.0.8"]).as_deref(), Some("10.0.0.7"));
        assert_eq!(chosen(&["127.0.0.1", "::1", "fe80::1", "fd00::1"]).as_deref(), Some("fd00::1"));
        assert_eq!(chosen(&["127.0.0.1", "::1", "fe80::1"]), None);
    }

    #[test]
    fn a_host_or_no_tcp_at_all_is_left_as_it_is() {
        for listen in ["tcp://127.0.0.1:5001", "unix:///a.sock", "tcp://:0"] {
            assert_eq!(of(&[listen.parse().unwrap()]), Ok(None), "{listen}");
        }
        let both: Vec<Address> = vec!["unix:///a.sock".parse().unwrap(), ":5001".parse().unwrap()];
        let url = of(&both).unwrap();
        assert!(url.is_none_or(|url| url.starts_with("tcp://") && url.ends_with(":5001")));
    }
}
