//! Mechanisms: their types, and typed views over the parameters of each.
//!
//! A [`Mechanism`] carries its parameters as text by key. A view such as [`Kernel`] (to read) or [`KernelMut`]
//! (to change) knows the keys, checks what it reads and refuses to write what a peer could not read.
//! Views exist only over a mechanism of their type: `as_kernel` of a VXLAN mechanism is `None`.
//!
//! ```
//! use nsm_api::Mechanism;
//!
//! let mut mechanism = Mechanism::kernel();
//! mechanism.as_kernel_mut().unwrap().set_interface_name("nsm-1")?;
//! assert_eq!(mechanism.as_kernel().unwrap().interface_name()?, Some("nsm-1"));
//! assert!(mechanism.as_vxlan().is_none());
//! # Ok::<(), nsm_api::mechanism::ParameterError>(())
//! ```

mod file_url;
mod interface_name;
mod kernel;
mod memif;
mod parameter;
mod parity;
mod srv6;
mod tunnel;
mod vfio;
mod view;
mod vlan;

use crate::Mechanism;

pub use file_url::{FileUrl, FileUrlError};
pub use interface_name::{InterfaceNameError, LONGEST_INTERFACE_NAME, check_interface_name};
pub use kernel::{Kernel, KernelMut};
pub use memif::{Memif, MemifMut};
pub use parameter::{ParameterError, keys};
pub use parity::VniParity;
pub use srv6::{Srv6, Srv6Mut};
pub use tunnel::{Ipsec, IpsecMut, Vxlan, VxlanMut, Wireguard, WireguardMut};
pub use vfio::{Vfio, VfioMut};
pub use vlan::{Vlan, VlanMut};

/// Class of mechanisms with both ends on one node.
pub const LOCAL: &str = "LOCAL";
/// Class of mechanisms between nodes.
pub const REMOTE: &str = "REMOTE";

/// A network interface of the Linux kernel.
pub const KERNEL: &str = "KERNEL";
/// A virtual function handed to user space.
pub const VFIO: &str = "VFIO";
/// A shared memory packet interface.
pub const MEMIF: &str = "MEMIF";
/// A VXLAN tunnel (RFC 7348).
pub const VXLAN: &str = "VXLAN";
/// A WireGuard tunnel.
pub const WIREGUARD: &str = "WIREGUARD";
/// An IPsec tunnel.
pub const IPSEC: &str = "IPSEC";
/// Segment routing over IPv6 (RFC 8986).
pub const SRV6: &str = "SRV6";
/// An IEEE 802.1Q VLAN.
pub const VLAN: &str = "VLAN";
/// No data plane at all.
pub const NOOP: &str = "NOOP";

impl Mechanism {
    /// A mechanism without parameters. Mechanisms that this crate has no view for are welcome, too.
    pub fn new(class: &str, type_name: &str) -> Self {
        Self { cls: class.into(), r#type: type_name.into(), ..Self::default() }
    }

    /// A [`KERNEL`] mechanism, class [`LOCAL`].
    pub fn kernel() -> Self {
        Self::new(LOCAL, KERNEL)
    }

    /// A [`VFIO`] mechanism, class [`LOCAL`].
    pub fn vfio() -> Self {
        Self::new(LOCAL, VFIO)
    }

    /// A [`MEMIF`] mechanism, class [`LOCAL`].
    pub fn memif() -> Self {
        Self::new(LOCAL, MEMIF)
    }

    /// A [`VXLAN`] mechanism, class [`REMOTE`].
    pub fn vxlan() -> Self {
        Self::new(REMOTE, VXLAN)
    }

    /// A [`WIREGUARD`] mechanism, class [`REMOTE`].
    pub fn wireguard() -> Self {
        Self::new(REMOTE, WIREGUARD)
    }

    /// An [`IPSEC`] mechanism, class [`REMOTE`].
    pub fn ipsec() -> Self {
        Self::new(REMOTE, IPSEC)
    }

    /// A [`SRV6`] mechanism, class [`REMOTE`].
    pub fn srv6() -> Self {
        Self::new(REMOTE, SRV6)
    }

    /// A [`VLAN`] mechanism, class [`REMOTE`].
    pub fn vlan() -> Self {
        Self::new(REMOTE, VLAN)
    }

    /// A [`NOOP`] mechanism, class [`LOCAL`]. It has no parameters.
    pub fn noop() -> Self {
        Self::new(LOCAL, NOOP)
    }

    /// Whether this is of the given type: the exact upper-case name, as the reference compares it.
    pub fn is(&self, type_name: &str) -> bool {
        self.r#type == type_name
    }

    /// A parameter by key; `None` when it is absent or empty.
    pub fn parameter(&self, key: &str) -> Option<&str> {
        self.parameters.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Sets a parameter; an empty value removes it.
    pub fn set_parameter(&mut self, key: &str, value: impl Into<String>) {
        let value = value.into();
        if value.is_empty() {
            self.parameters.remove(key);
        } else {
            self.parameters.insert(key.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_exists_only_over_its_type() {
        let mut mechanisms = [
            Mechanism::kernel(),
            Mechanism::vfio(),
            Mechanism::memif(),
            Mechanism::vxlan(),
            Mechanism::wireguard(),
            Mechanism::ipsec(),
            Mechanism::srv6(),
            Mechanism::vlan(),
            Mechanism::noop(),
            Mechanism::new(LOCAL, "kernel"),
        ];
        let views: Vec<usize> = mechanisms
            .iter()
            .map(|m| {
                usize::from(m.as_kernel().is_some())
                    + usize::from(m.as_vfio().is_some())
                    + usize::from(m.as_memif().is_some())
                    + usize::from(m.as_vxlan().is_some())
                    + usize::from(m.as_wireguard().is_some())
                    + usize::from(m.as_ipsec().is_some())
                    + usize::from(m.as_srv6().is_some())
                    + usize::from(m.as_vlan().is_some())
            })
            .collect();
        assert_eq!(views, [1, 1, 1, 1, 1, 1, 1, 1, 0, 0]);
        assert!(mechanisms[0].as_kernel_mut().is_some() && mechanisms[1].as_kernel_mut().is_none());
    }

    #[test]
    fn an_empty_parameter_is_no_parameter() {
        let mut mechanism = Mechanism::vxlan();
        mechanism.set_parameter("vni", "5");
        assert_eq!(mechanism.parameter("vni"), Some("5"));
        mechanism.set_parameter("vni", "");
        assert_eq!(mechanism.parameter("vni"), None);
        assert!(mechanism.parameters.is_empty());
    }
}
