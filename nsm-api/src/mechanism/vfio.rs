//! VFIO: a virtual function handed to user space.

use super::VFIO;
use super::parameter::keys;
use super::view::view;
use crate::Mechanism;
use crate::decimal::decimal;

view!(Vfio, VfioMut, VFIO, as_vfio, as_vfio_mut);

/// As in the reference, a number that cannot be read counts as 0.
fn number(mechanism: &Mechanism, key: &str) -> u32 {
    mechanism.parameter(key).and_then(decimal).unwrap_or(0)
}

impl<'a> Vfio<'a> {
    /// Folder of the workload's control group, in which the device is allowed.
    pub fn cgroup_dir(&self) -> Option<&'a str> {
        self.0.parameter(keys::CGROUP_DIR)
    }

    /// PCI address of the virtual function.
    pub fn pci_address(&self) -> Option<&'a str> {
        self.0.parameter(keys::PCI_ADDRESS)
    }

    /// Id of the SR-IOV token that was given to the workload.
    pub fn token_id(&self) -> Option<&'a str> {
        self.0.parameter(keys::TOKEN_ID)
    }

    /// IOMMU group; 0 when absent or unreadable.
    pub fn iommu_group(&self) -> u32 {
        number(self.0, keys::IOMMU_GROUP)
    }

    /// Major and minor number of `/dev/vfio/vfio`; 0 where absent or unreadable.
    pub fn vfio_device(&self) -> (u32, u32) {
        (number(self.0, keys::VFIO_MAJOR), number(self.0, keys::VFIO_MINOR))
    }

    /// Major and minor number of the group's device; 0 where absent or unreadable.
    pub fn group_device(&self) -> (u32, u32) {
        (number(self.0, keys::DEVICE_MAJOR), number(self.0, keys::DEVICE_MINOR))
    }
}

impl VfioMut<'_> {
    /// Sets the folder of the control group.
    pub fn set_cgroup_dir(&mut self, folder: &str) -> &mut Self {
        self.0.set_parameter(keys::CGROUP_DIR, folder);
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

    /// Sets the IOMMU group.
    pub fn set_iommu_group(&mut self, group: u32) -> &mut Self {
        self.0.set_parameter(keys::IOMMU_GROUP, group.to_string());
        self
    }

    /// Sets major and minor number of `/dev/vfio/vfio`.
    pub fn set_vfio_device(&mut self, (major, minor): (u32, u32)) -> &mut Self {
        self.0.set_parameter(keys::VFIO_MAJOR, major.to_string());
        self.0.set_parameter(keys::VFIO_MINOR, minor.to_string());
        self
    }

    /// Sets major and minor number of the group's device.
    pub fn set_group_device(&mut self, (major, minor): (u32, u32)) -> &mut Self {
        self.0.set_parameter(keys::DEVICE_MAJOR, major.to_string());
        self.0.set_parameter(keys::DEVICE_MINOR, minor.to_string());
        self
    }
}

#[cfg(test)]
mod tests {
    use crate::Mechanism;

    #[test]
    fn what_is_set_is_read_back_and_garbage_counts_as_zero() {
        let mut mechanism = Mechanism::vfio();
        let mut view = mechanism.as_vfio_mut().unwrap();
        view.set_cgroup_dir("/c").set_pci_address("p").set_token_id("t");
        view.set_iommu_group(7).set_vfio_device((10, 196)).set_group_device((241, 0));
        let view = mechanism.as_vfio().unwrap();
        assert_eq!((view.cgroup_dir(), view.pci_address(), view.token_id()), (Some("/c"), Some("p"), Some("t")));
        assert_eq!((view.iommu_group(), view.vfio_device(), view.group_device()), (7, (10, 196), (241, 0)));

        mechanism.set_parameter("iommuGroup", "seven");
        assert_eq!(mechanism.as_vfio().unwrap().iommu_group(), 0);
    }
}
