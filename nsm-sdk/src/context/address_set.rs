//! A set of addresses that can be told as prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use crate::ipam::intervals::Intervals;

/// Addresses of both families, as intervals: neighbours cost nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct AddressSet {
    v4: Intervals,
    v6: Intervals,
}

impl AddressSet {
    /// Adds an address, unless it is there.
    pub(super) fn insert(&mut self, address: IpAddr) {
        let (family, number) = self.family(address);
        // An address that is there overlaps itself.
        let _ = family.insert((number, number));
    }

    pub(super) fn remove(&mut self, address: IpAddr) {
        let (family, number) = self.family(address);
        family.remove(number);
    }

    /// The fewest prefixes that contain these addresses and no others.
    pub(super) fn prefixes(&self) -> Vec<IpNet> {
        // Numbers of the first set came from IPv4 addresses: none is cut.
        let v4 = |number: u128| Ipv4Addr::from(number as u32);
        let v4 = self.v4.iter().flat_map(|(first, last)| Ipv4Subnets::new(v4(first), v4(last), 0)).map(IpNet::from);
        let v6 =
            self.v6.iter().flat_map(|(first, last)| Ipv6Subnets::new(Ipv6Addr::from(first), Ipv6Addr::from(last), 0));
        v4.chain(v6.map(IpNet::from)).collect()
    }

    fn family(&mut self, address: IpAddr) -> (&mut Intervals, u128) {
        match address {
            IpAddr::V4(address) => (&mut self.v4, u32::from(address).into()),
            IpAddr::V6(address) => (&mut self.v6, address.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_as_few_as_can_be() {
        let mut set = AddressSet::default();
        for address in ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.2", "255.255.255.255", "fd00::", "fd00::1"] {
            set.insert(address.parse().unwrap());
        }
        let texts = |set: &AddressSet| set.prefixes().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(&set), ["10.0.0.1/32", "10.0.0.2/31", "255.255.255.255/32", "fd00::/127"]);
        set.remove("10.0.0.2".parse().unwrap());
        set.remove("10.0.0.9".parse().unwrap());
        assert_eq!(texts(&set)[..2], ["10.0.0.1/32", "10.0.0.3/32"]);
    }
}
