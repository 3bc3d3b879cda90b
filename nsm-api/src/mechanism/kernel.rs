//! KERNEL: a network interface of the Linux kernel.

use super::interface_name::{InterfaceNameError, check_interface_name};
use super::parameter::{ParameterError, flag, invalid, keys, number, set_number};
use super::view::view;
use super::{FileUrl, KERNEL};
use crate::Mechanism;

/// Largest VLAN tag: twelve bits.
const LARGEST_VLAN: u16 = 0xfff;

view!(Kernel, KernelMut, KERNEL, as_kernel, as_kernel_mut);

impl<'a> Kernel<'a> {
    /// Wanted name of the interface, `None` when the mesh may choose one.
    ///
    /// # Errors
    /// [`ParameterError`] when the kernel would refuse the name.
    pub fn interface_name(&self) -> Result<Option<&'a str>, ParameterError> {
        let Some(name) = self.0.parameter(keys::INTERFACE_NAME) else {
            return Ok(None);
        };
        check_interface_name(name).map_err(|flaw| bad_name(self.0, name, &flaw))?;
        Ok(Some(name))
    }

    /// The network namespace the interface belongs in.
    ///
    /// # Errors
    /// [`ParameterError`] when the URL names no file.
    pub fn netns(&self) -> Result<Option<FileUrl>, ParameterError> {
        file_url(self.0)
    }

    /// Inode number of the network namespace.
    ///
    /// # Errors
    /// [`ParameterError`] when it is not a number.
    pub fn netns_inode(&self) -> Result<Option<u64>, ParameterError> {
        number(self.0, keys::NETNS_INODE, u64::MAX)
    }

    /// PCI address of the virtual function that stands behind the interface.
    pub fn pci_address(&self) -> Option<&'a str> {
        self.0.parameter(keys::PCI_ADDRESS)
    }

    /// Id of the SR-IOV token that was given to the workload.
    pub fn token_id(&self) -> Option<&'a str> {
        self.0.parameter(keys::TOKEN_ID)
    }

    /// Whether the client can use tagged frames; false when absent or not a truth value.
    pub fn supports_vlan(&self) -> bool {
        flag(self.0, keys::SUPPORTS_VLAN)
    }

    /// VLAN tag of the interface.
    ///
    /// # Errors
    /// [`ParameterError`] when it is not a number of twelve bits.
    pub fn vlan(&self) -> Result<Option<u16>, ParameterError> {
        number(self.0, keys::VLAN, LARGEST_VLAN)
    }

    /// Whether the interface routes loopback addresses (sysctl `route_localnet`).
    pub fn route_local_net(&self) -> bool {
        flag(self.0, keys::ROUTE_LOCAL_NET)
    }

    /// Rules for the IPv4 nat table, joined by `;`, as a template over the interface name and source and
    /// destination addresses.
    pub fn iptables4_nat_template(&self) -> Option<&'a str> {
        self.0.parameter(keys::IPTABLES4_NAT_TEMPLATE)
    }
}

impl KernelMut<'_> {
    /// Sets the name of the interface.
    ///
    /// # Errors
    /// [`ParameterError`] when the kernel would refuse the name.
    pub fn set_interface_name(&mut self, name: &str) -> Result<&mut Self, ParameterError> {
        check_interface_name(name).map_err(|flaw| bad_name(self.0, name, &flaw))?;
        self.0.set_parameter(keys::INTERFACE_NAME, name);
        Ok(self)
    }

    /// Sets the network namespace.
    pub fn set_netns(&mut self, netns: &FileUrl) -> &mut Self {
        self.0.set_parameter(keys::INODE_URL, netns.to_string());
        self
    }

    /// Sets the inode number of the network namespace.
    pub fn set_netns_inode(&mut self, inode: u64) -> &mut Self {
        self.0.set_parameter(keys::NETNS_INODE, inode.to_string());
        self
    }

    /// Sets the PCI address.
    pub fn set_pci_address(&mut self, address: &str) -> &mut Self {
        self.0.set_parameter(keys::PCI_ADDRESS, address);
        self
    }

    /// Sets the id of the SR-IOV token.
    pub fn set_token_id(&mut self, id: &str) -> &mut Self {
        self.0.set_parameter(keys::TOKEN_ID, id);
        self
    }

    /// Sets whether the client can use tagged frames.
    pub fn set_supports_vlan(&mut self, supports: bool) -> &mut Self {
        self.0.set_parameter(keys::SUPPORTS_VLAN, supports.to_string());
        self
    }

    /// Sets the VLAN tag.
    ///
    /// # Errors
    /// [`ParameterError`] when it has more than twelve bits.
    pub fn set_vlan(&mut self, tag: u16) -> Result<&mut Self, ParameterError> {
        set_number(self.0, keys::VLAN, tag.into(), LARGEST_VLAN.into())?;
        Ok(self)
    }

    /// Sets whether the interface routes loopback addresses.
    pub fn set_route_local_net(&mut self, routes: bool) -> &mut Self {
        self.0.set_parameter(keys::ROUTE_LOCAL_NET, routes.to_string());
        self
    }

    /// Sets the rules for the IPv4 nat table.
    pub fn set_iptables4_nat_template(&mut self, template: &str) -> &mut Self {
        self.0.set_parameter(keys::IPTABLES4_NAT_TEMPLATE, template);
        self
    }
}

/// The file of the parameter `inodeURL`.
pub(super) fn file_url(mechanism: &Mechanism) -> Result<Option<FileUrl>, ParameterError> {
    let Some(text) = mechanism.parameter(keys::INODE_URL) else {
        return Ok(None);
    };
    let expected = "file:///absolute/path or inode://device/inode";
    text.parse().map(Some).map_err(|_| invalid(mechanism, keys::INODE_URL, text, expected))
}

fn bad_name(mechanism: &Mechanism, name: &str, flaw: &InterfaceNameError) -> ParameterError {
    let expected = format_args!("a name of 1 to 15 octets that the kernel takes ({})", flaw.reason);
    invalid(mechanism, keys::INTERFACE_NAME, name, expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_read_back() {
        let mut mechanism = Mechanism::kernel();
        let netns = FileUrl::Inode { device: 4, inode: 7 };
        let mut view = mechanism.as_kernel_mut().unwrap();
        view.set_interface_name("nsm-1").unwrap().set_netns(&netns).set_netns_inode(7);
        view.set_vlan(4095).unwrap().set_supports_vlan(true).set_route_local_net(false);
        view.set_pci_address("0000:01:00.0").set_token_id("t").set_iptables4_nat_template("-A X");

        let view = mechanism.as_kernel().unwrap();
        assert_eq!(view.interface_name(), Ok(Some("nsm-1")));
        assert_eq!(view.netns(), Ok(Some(netns)));
        assert_eq!(view.netns_inode(), Ok(Some(7)));
        assert_eq!(view.vlan(), Ok(Some(4095)));
        assert!(view.supports_vlan() && !view.route_local_net());
        assert_eq!(view.pci_address(), Some("0000:01:00.0"));
        assert_eq!(view.token_id(), Some("t"));
        assert_eq!(view.iptables4_nat_template(), Some("-A X"));
        assert_eq!(mechanism.parameters["inodeURL"], "inode://4/7");
        assert_eq!(mechanism.parameters["supportsVlan"], "true");
    }

    #[test]
    fn bad_values_are_refused_both_ways() {
        let mut mechanism = Mechanism::kernel();
        let mut view = mechanism.as_kernel_mut().unwrap();
        assert!(view.set_interface_name("a-name-that-is-too-long").is_err());
        assert!(view.set_vlan(4096).is_err());
        assert!(mechanism.parameters.is_empty());

        for (key, value) in [("name", "a/b"), ("vlan", "4096"), ("inodeURL", "x"), ("netnsInode", "-1")] {
            mechanism.set_parameter(key, value);
        }
        let view = mechanism.as_kernel().unwrap();
        assert!(view.interface_name().is_err() && view.vlan().is_err());
        assert!(view.netns().is_err() && view.netns_inode().is_err());
    }
}
