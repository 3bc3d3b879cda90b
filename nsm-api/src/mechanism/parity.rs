//! Which side of a tunnel issues which network identifiers.

use std::net::IpAddr;

/// The half of the VXLAN network identifiers that one side of a tunnel may issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VniParity {
    /// Even identifiers.
    Even,
    /// Odd identifiers.
    Odd,
}

impl VniParity {
    /// The parity of the side that sees these addresses; an absent address is lower than every other.
    pub fn between(src: Option<IpAddr>, dst: Option<IpAddr>) -> Self {
        if octets(src) <= octets(dst) { Self::Even } else { Self::Odd }
    }

    /// Whether an identifier belongs to this half.
    pub fn admits(self, vni: u32) -> bool {
        vni.is_multiple_of(2) == (self == Self::Even)
    }
}

/// The 16 octet form, in which an IPv4 address is mapped into IPv6.
fn octets(address: Option<IpAddr>) -> Option<[u8; 16]> {
    address.map(|address| match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn different_addresses_give_the_two_sides_disjoint_halves(
            a in any::<IpAddr>(), b in any::<IpAddr>(), vni in any::<u32>()
        ) {
            prop_assume!(octets(Some(a)) != octets(Some(b)));
            let here = VniParity::between(Some(a), Some(b));
            let there = VniParity::between(Some(b), Some(a));
            prop_assert!(here.admits(vni) != there.admits(vni));
        }
    }
}
