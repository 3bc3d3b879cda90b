//! VLAN: an IEEE 802.1Q tag on a shared link.

use super::VLAN;
use super::parameter::{ParameterError, keys, number, set_number};
use super::view::view;

/// Largest VLAN tag: twelve bits.
const LARGEST_ID: u16 = 0xfff;

view!(Vlan, VlanMut, VLAN, as_vlan, as_vlan_mut);

impl Vlan<'_> {
    /// The VLAN tag, `None` when not set.
    ///
    /// # Errors
    /// [`ParameterError`] when it is not a number of twelve bits.
    pub fn id(&self) -> Result<Option<u16>, ParameterError> {
        number(self.0, keys::VLAN_ID, LARGEST_ID)
    }
}

impl VlanMut<'_> {
    /// Sets the VLAN tag.
    ///
    /// # Errors
    /// [`ParameterError`] when it has more than twelve bits.
    pub fn set_id(&mut self, id: u16) -> Result<&mut Self, ParameterError> {
        set_number(self.0, keys::VLAN_ID, id.into(), LARGEST_ID.into())?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use crate::Mechanism;

    #[test]
    fn a_tag_has_twelve_bits() {
        let mut mechanism = Mechanism::vlan();
        assert!(mechanism.as_vlan_mut().unwrap().set_id(4096).is_err());
        mechanism.as_vlan_mut().unwrap().set_id(100).unwrap();
        assert_eq!(mechanism.as_vlan().unwrap().id(), Ok(Some(100)));
        assert_eq!(mechanism.parameters["vlan-id"], "100");
        mechanism.set_parameter("vlan-id", "5000");
        assert!(mechanism.as_vlan().unwrap().id().is_err());
    }
}
