//! Parameters as text by key: the keys, and how typed values are read and written.

use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

use crate::Mechanism;
use crate::decimal::decimal;
use crate::excerpt::excerpt;

/// Keys of mechanism parameters, as the wire spells them.
#[allow(missing_docs, reason = "each is named as the parameter it spells; the views explain them")]
pub mod keys {
    pub const SRC_IP: &str = "src_ip";
    pub const DST_IP: &str = "dst_ip";
    pub const SRC_PORT: &str = "src_port";
    pub const DST_PORT: &str = "dst_port";
    pub const ORIG_SRC_IP: &str = "orig_src_ip";
    pub const ORIG_DST_IP: &str = "orig_dst_ip";
    pub const NETNS_INODE: &str = "netnsInode";
    pub const INTERFACE_NAME: &str = "name";
    pub const INODE_URL: &str = "inodeURL";
    pub const PCI_ADDRESS: &str = "pciAddress";
    pub const TOKEN_ID: &str = "tokenID";
    pub const MTU: &str = "MTU";
    pub const SUPPORTS_VLAN: &str = "supportsVlan";
    /// VLAN of a kernel interface; the VLAN mechanism has [`VLAN_ID`].
    pub const VLAN: &str = "vlan";
    pub const ROUTE_LOCAL_NET: &str = "routeLocalNet";
    pub const IPTABLES4_NAT_TEMPLATE: &str = "IPTables4NatTemplate";
    pub const CGROUP_DIR: &str = "cgroupDir";
    pub const IOMMU_GROUP: &str = "iommuGroup";
    pub const VFIO_MAJOR: &str = "vfioMajor";
    pub const VFIO_MINOR: &str = "vfioMinor";
    pub const DEVICE_MAJOR: &str = "deviceMajor";
    pub const DEVICE_MINOR: &str = "deviceMinor";
    pub const SOCKET_FILE: &str = "socketfile";
    pub const VNI: &str = "vni";
    pub const SRC_PUBLIC_KEY: &str = "src_public_key";
    pub const DST_PUBLIC_KEY: &str = "dst_public_key";
    pub const SRC_HOST_IP: &str = "src_host_ip";
    pub const DST_HOST_IP: &str = "dst_host_ip";
    pub const SRC_BSID: &str = "src_bsid";
    pub const DST_BSID: &str = "dst_bsid";
    pub const SRC_LOCALSID: &str = "src_localsid";
    pub const DST_LOCALSID: &str = "dst_localsid";
    pub const SRC_HOST_LOCALSID: &str = "src_host_localsid";
    pub const DST_HOST_LOCALSID: &str = "dst_host_localsid";
    pub const SRC_HW_ADDR: &str = "src_hw_addr";
    pub const DST_HW_ADDR: &str = "dst_hw_addr";
    pub const VLAN_ID: &str = "vlan-id";
}

/// A mechanism parameter that is missing or cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParameterError {
    /// A parameter that is needed is absent or empty.
    #[error("{mechanism} mechanism has no {key}: the side that selects it must set it")]
    Missing {
        /// Type of the mechanism.
        mechanism: String,
        /// Key of the parameter.
        key: &'static str,
    },
    /// A parameter has a value outside its domain.
    #[error("{mechanism} mechanism has {key} {value}: it must be {expected}")]
    Invalid {
        /// Type of the mechanism.
        mechanism: String,
        /// Key of the parameter.
        key: &'static str,
        /// The value, quoted, cut when long.
        value: String,
        /// What it must be.
        expected: String,
    },
}

pub(super) fn missing(mechanism: &Mechanism, key: &'static str) -> ParameterError {
    ParameterError::Missing { mechanism: mechanism.r#type.clone(), key }
}

pub(super) fn invalid(mechanism: &Mechanism, key: &'static str, value: &str, expected: impl Display) -> ParameterError {
    ParameterError::Invalid {
        mechanism: mechanism.r#type.clone(),
        key,
        value: excerpt(value),
        expected: expected.to_string(),
    }
}

/// A number of at most `largest`, `None` when absent.
pub(super) fn number<N>(mechanism: &Mechanism, key: &'static str, largest: N) -> Result<Option<N>, ParameterError>
where
    N: FromStr + PartialOrd + Display,
{
    let Some(text) = mechanism.parameter(key) else {
        return Ok(None);
    };
    let number = decimal::<N>(text).filter(|number| *number <= largest);
    let expected = || invalid(mechanism, key, text, format_args!("a decimal number up to {largest}"));
    number.map(Some).ok_or_else(expected)
}

/// Writes a number of at most `largest`.
pub(super) fn set_number(
    mechanism: &mut Mechanism,
    key: &'static str,
    number: u32,
    largest: u32,
) -> Result<(), ParameterError> {
    let text = number.to_string();
    if number > largest {
        return Err(invalid(mechanism, key, &text, format_args!("a decimal number up to {largest}")));
    }
    mechanism.set_parameter(key, text);
    Ok(())
}

/// An address, `None` when absent.
pub(super) fn ip(mechanism: &Mechanism, key: &'static str) -> Result<Option<IpAddr>, ParameterError> {
    let Some(text) = mechanism.parameter(key) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| invalid(mechanism, key, text, "an IP address"))
}

/// A truth value in the spellings of Go's `strconv.ParseBool`; anything else is false.
pub(super) fn flag(mechanism: &Mechanism, key: &str) -> bool {
    matches!(mechanism.parameter(key), Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_mechanism_key_value_and_domain() {
        let mut mechanism = Mechanism::vxlan();
        mechanism.set_parameter("vni", "abc");
        let error = number(&mechanism, "vni", 7u32).unwrap_err();
        assert_eq!(error.to_string(), r#"VXLAN mechanism has vni "abc": it must be a decimal number up to 7"#);
    }

    #[test]
    fn flags_are_read_as_go_reads_them() {
        let mut mechanism = Mechanism::kernel();
        assert!(!flag(&mechanism, "x"));
        for (text, value) in [("true", true), ("T", true), ("yes", false), ("0", false)] {
            mechanism.set_parameter("x", text);
            assert_eq!(flag(&mechanism, "x"), value, "{text}");
        }
    }
}
