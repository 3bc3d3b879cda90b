//! One route.

use std::net::IpAddr;

use ipnet::IpNet;

use super::validate::FieldError;
use crate::connectioncontext::Route;

/// A route as values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpRoute {
    /// Destination; may have host bits set.
    pub prefix: IpNet,
    /// Next hop, `None` for a destination on the link.
    pub next_hop: Option<IpAddr>,
}

impl Route {
    /// Reads the route as it stands, without a default for the next hop.
    ///
    /// # Errors
    /// [`FieldError`] names `prefix` or `nextHop`; a next hop of the other family is an error, too.
    pub fn parse(&self) -> Result<IpRoute, FieldError> {
        let prefix: IpNet = FieldError::parse("prefix", &self.prefix, "an address with length, such as 10.0.0.0/8")?;
        if self.next_hop.is_empty() {
            return Ok(IpRoute { prefix, next_hop: None });
        }
        let next_hop: IpAddr = FieldError::parse("nextHop", &self.next_hop, "an IP address, or empty")?;
        if next_hop.is_ipv4() != prefix.addr().is_ipv4() {
            return Err(FieldError::new("nextHop", &self.next_hop, "of the same family as the prefix"));
        }
        Ok(IpRoute { prefix, next_hop: Some(next_hop) })
    }
}

impl From<IpRoute> for Route {
    fn from(route: IpRoute) -> Self {
        let next_hop = route.next_hop.map(|hop| hop.to_string()).unwrap_or_default();
        Self { prefix: route.prefix.to_string(), next_hop }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_next_hop_is_of_the_family_of_its_prefix() {
        let route = Route { prefix: "10.0.0.0/8".into(), next_hop: "fd00::1".into() };
        assert_eq!(route.parse().unwrap_err().field, "nextHop");
    }

    proptest! {
        #[test]
        fn routes_round_trip(v6 in any::<bool>(), a in any::<[u8; 16]>(), b in any::<[u8; 16]>(), len in 0u8..=128, via in any::<bool>()) {
            let address = |octets: [u8; 16]| if v6 {
                IpAddr::from(octets)
            } else {
                IpAddr::from([octets[0], octets[1], octets[2], octets[3]])
            };
            let prefix = IpNet::new(address(a), if v6 { len } else { len % 33 }).unwrap();
            let route = IpRoute { prefix, next_hop: via.then(|| address(b)) };
            prop_assert_eq!(Route::from(route).parse(), Ok(route));
        }

        #[test]
        fn arbitrary_text_never_panics(prefix in "[0-9a-f:./]{0,20}", next_hop in ".{0,10}") {
            let _ = Route { prefix, next_hop }.parse();
        }
    }
}
