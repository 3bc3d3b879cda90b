//! By what filters say what they do.

use super::VlanPort;
use crate::rtnl::filter::Filter;

/// The filter's number at a port. At an uplink it is the number of the port.
pub(super) const AT_PORT: u32 = 1;
/// That of the filter behind all others: the kernel asks the newest one first.
const LAST: u32 = u32::MAX >> 1;
/// In a filter's name, in place of a hardware address.
const ALL: &str = "all";

impl Filter {
    /// At a port, towards its uplink.
    pub(super) fn to(uplink: u32, id: u16) -> Self {
        Self { number: AT_PORT, name: format!("to {uplink} vlan {id}") }
    }

    /// At a port, towards its host.
    pub(super) fn untag() -> Self {
        Self { number: AT_PORT, name: "without tag".to_owned() }
    }

    /// At an uplink, towards a port.
    pub(super) fn from(port: u32, name: &str, VlanPort { id, mac, .. }: &VlanPort) -> Self {
        let whom = mac.map_or_else(
            || ALL.to_owned(),
            |[a, b, c, d, e, f]| format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
        );
        Self { number: port, name: format!("{name} vlan {id} {whom}") }
    }

    /// At the end of a trunk.
    pub(super) fn nothing_else() -> Self {
        Self { number: LAST, name: "nothing else".to_owned() }
    }
}

/// The port, the VLAN and the hardware address, if not all, of a filter at an uplink.
pub(super) fn read(name: &str) -> Option<(&str, u16, Option<[u8; 6]>)> {
    let (port, rest) = name.split_once(" vlan ")?;
    let (id, mac) = rest.split_once(' ')?;
    if mac == ALL {
        return Some((port, id.parse().ok()?, None));
    }
    let octets: Vec<u8> = mac.split(':').map(|octet| u8::from_str_radix(octet, 16)).collect::<Result<_, _>>().ok()?;
    Some((port, id.parse().ok()?, Some(octets.try_into().ok()?)))
}
