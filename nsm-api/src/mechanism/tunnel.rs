//! VXLAN, WIREGUARD and IPSEC: tunnels between two addresses.

use std::net::IpAddr;

use super::parameter::{ParameterError, invalid, ip, keys, missing, number};
use super::parity::VniParity;
use super::view::view;
use super::{IPSEC, VXLAN, WIREGUARD};

view!(Vxlan, VxlanMut, VXLAN, as_vxlan, as_vxlan_mut);
view!(Wireguard, WireguardMut, WIREGUARD, as_wireguard, as_wireguard_mut);
view!(Ipsec, IpsecMut, IPSEC, as_ipsec, as_ipsec_mut);

/// What all tunnels have: addresses, ports, MTU.
macro_rules! ends {
    ($view:ident, $view_mut:ident) => {
        impl $view<'_> {
            /// Address of the client's side of the tunnel.
            ///
            /// # Errors
            /// [`ParameterError`] when it is not an IP address.
            pub fn src_ip(&self) -> Result<Option<IpAddr>, ParameterError> {
                ip(self.0, keys::SRC_IP)
            }

            /// Address of the endpoint's side of the tunnel.
            ///
            /// # Errors
            /// [`ParameterError`] when it is not an IP address.
            pub fn dst_ip(&self) -> Result<Option<IpAddr>, ParameterError> {
                ip(self.0, keys::DST_IP)
            }

            /// UDP port of the client's side.
            ///
            /// # Errors
            /// [`ParameterError`] when it is not a port number.
            pub fn src_port(&self) -> Result<Option<u16>, ParameterError> {
                number(self.0, keys::SRC_PORT, u16::MAX)
            }

            /// UDP port of the endpoint's side.
            ///
            /// # Errors
            /// [`ParameterError`] when it is not a port number.
            pub fn dst_port(&self) -> Result<Option<u16>, ParameterError> {
                number(self.0, keys::DST_PORT, u16::MAX)
            }

            /// MTU of the tunnel in octets, `None` when not set.
            ///
            /// # Errors
            /// [`ParameterError`] when it is not a number.
            pub fn mtu(&self) -> Result<Option<u32>, ParameterError> {
                Ok(number(self.0, keys::MTU, u32::MAX)?.filter(|mtu| *mtu != 0))
            }
        }

        impl $view_mut<'_> {
            /// Sets the address of the client's side.
            pub fn set_src_ip(&mut self, address: IpAddr) -> &mut Self {
                self.0.set_parameter(keys::SRC_IP, address.to_string());
                self
            }

            /// Sets the address of the endpoint's side.
            pub fn set_dst_ip(&mut self, address: IpAddr) -> &mut Self {
                self.0.set_parameter(keys::DST_IP, address.to_string());
                self
            }

            /// Sets the UDP port of the client's side.
            pub fn set_src_port(&mut self, port: u16) -> &mut Self {
                self.0.set_parameter(keys::SRC_PORT, port.to_string());
                self
            }

            /// Sets the UDP port of the endpoint's side.
            pub fn set_dst_port(&mut self, port: u16) -> &mut Self {
                self.0.set_parameter(keys::DST_PORT, port.to_string());
                self
            }

            /// Sets the MTU of the tunnel in octets.
            pub fn set_mtu(&mut self, mtu: u32) -> &mut Self {
                self.0.set_parameter(keys::MTU, mtu.to_string());
                self
            }
        }
    };
}

/// What keyed tunnels have beside their ends: a public key on each side.
macro_rules! public_keys {
    ($view:ident, $view_mut:ident) => {
        impl<'a> $view<'a> {
            /// Public key of the client's side, as its tunnel writes keys.
            pub fn src_public_key(&self) -> Option<&'a str> {
                self.0.parameter(keys::SRC_PUBLIC_KEY)
            }

            /// Public key of the endpoint's side, as its tunnel writes keys.
            pub fn dst_public_key(&self) -> Option<&'a str> {
                self.0.parameter(keys::DST_PUBLIC_KEY)
            }
        }

        impl $view_mut<'_> {
            /// Sets the public key of the client's side.
            pub fn set_src_public_key(&mut self, key: &str) -> &mut Self {
                self.0.set_parameter(keys::SRC_PUBLIC_KEY, key);
                self
            }

            /// Sets the public key of the endpoint's side.
            pub fn set_dst_public_key(&mut self, key: &str) -> &mut Self {
                self.0.set_parameter(keys::DST_PUBLIC_KEY, key);
                self
            }
        }
    };
}

ends!(Vxlan, VxlanMut);
ends!(Wireguard, WireguardMut);
ends!(Ipsec, IpsecMut);
public_keys!(Wireguard, WireguardMut);
public_keys!(Ipsec, IpsecMut);

impl Vxlan<'_> {
    /// UDP port of VXLAN (RFC 7348, section 5); the reference's default, too.
    pub const DEFAULT_PORT: u16 = 4789;
    /// Largest network identifier: 24 bits (RFC 7348, section 5).
    pub const LARGEST_VNI: u32 = 0xff_ffff;

    /// The VXLAN network identifier, `None` when none is set yet; 0 counts as not set.
    ///
    /// # Errors
    /// [`ParameterError`] when it is not a number of 24 bits.
    pub fn vni(&self) -> Result<Option<u32>, ParameterError> {
        Ok(number(self.0, keys::VNI, Self::LARGEST_VNI)?.filter(|vni| *vni != 0))
    }

    /// Which identifiers this side of the tunnel may issue, so that both sides never issue the same.
    ///
    /// Issued are even ones where the source address is at most the destination address (compared as 16
    /// octets), else odd ones. An original address (`orig_src_ip`, `orig_dst_ip`), kept when addresses
    /// were translated on the way, stands in place of the current one when its *key is present*.
    /// Beware: the reference leaves these keys present and empty after it translated back; an empty
    /// original then counts as lower than every address, and the parity changes.
    ///
    /// # Errors
    /// [`ParameterError`] when `src_ip` or `dst_ip` is absent or not an address.
    pub fn vni_parity(&self) -> Result<VniParity, ParameterError> {
        let src = self.src_ip()?.ok_or_else(|| missing(self.0, keys::SRC_IP))?;
        let dst = self.dst_ip()?.ok_or_else(|| missing(self.0, keys::DST_IP))?;
        let original = |key: &str, current: IpAddr| match self.0.parameters.get(key) {
            None => Some(current),
            Some(text) => text.parse().ok(),
        };
        Ok(VniParity::between(original(keys::ORIG_SRC_IP, src), original(keys::ORIG_DST_IP, dst)))
    }
}

impl VxlanMut<'_> {
    /// Sets the network identifier.
    ///
    /// # Errors
    /// [`ParameterError`] when it is 0 or has more than 24 bits.
    pub fn set_vni(&mut self, vni: u32) -> Result<&mut Self, ParameterError> {
        if vni == 0 || vni > Vxlan::LARGEST_VNI {
            return Err(invalid(self.0, keys::VNI, &vni.to_string(), "a number from 1 to 16777215"));
        }
        self.0.set_parameter(keys::VNI, vni.to_string());
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mechanism;

    const LOW: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const HIGH: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn vxlan(src: IpAddr, dst: IpAddr) -> Mechanism {
        let mut mechanism = Mechanism::vxlan();
        mechanism.as_vxlan_mut().unwrap().set_src_ip(src).set_dst_ip(dst);
        mechanism
    }

    fn parity(mechanism: &Mechanism) -> VniParity {
        mechanism.as_vxlan().unwrap().vni_parity().unwrap()
    }

    #[test]
    fn what_is_set_is_read_back() {
        let mut mechanism = vxlan(LOW, HIGH);
        let mut view = mechanism.as_vxlan_mut().unwrap();
        view.set_vni(0xff_ffff).unwrap().set_src_port(1).set_dst_port(4789).set_mtu(1450);
        let view = mechanism.as_vxlan().unwrap();
        assert_eq!((view.src_ip(), view.dst_ip()), (Ok(Some(LOW)), Ok(Some(HIGH))));
        assert_eq!((view.src_port(), view.dst_port()), (Ok(Some(1)), Ok(Some(4789))));
        assert_eq!((view.vni(), view.mtu()), (Ok(Some(0xff_ffff)), Ok(Some(1450))));

        let mut mechanism = Mechanism::wireguard();
        mechanism.as_wireguard_mut().unwrap().set_src_public_key("s").set_dst_public_key("d");
        let view = mechanism.as_wireguard().unwrap();
        assert_eq!((view.src_public_key(), view.dst_public_key()), (Some("s"), Some("d")));
        assert_eq!(mechanism.parameters["src_public_key"], "s");
    }

    #[test]
    fn numbers_outside_their_domain_are_errors() {
        let mut mechanism = Mechanism::vxlan();
        assert!(mechanism.as_vxlan_mut().unwrap().set_vni(0).is_err());
        assert!(mechanism.as_vxlan_mut().unwrap().set_vni(1 << 24).is_err());
        for (key, value) in [("vni", "16777216"), ("src_port", "65536"), ("dst_ip", "host"), ("MTU", "")] {
            mechanism.parameters.insert(key.into(), value.into());
        }
        let view = mechanism.as_vxlan().unwrap();
        assert!(view.vni().is_err() && view.src_port().is_err() && view.dst_ip().is_err());
        assert_eq!(view.mtu(), Ok(None));
    }

    #[test]
    fn the_two_sides_issue_different_parities() {
        assert_eq!(parity(&vxlan(LOW, HIGH)), VniParity::Even);
        assert_eq!(parity(&vxlan(HIGH, LOW)), VniParity::Odd);
        assert_eq!(parity(&vxlan(LOW, LOW)), VniParity::Even);
    }

    #[test]
    fn an_original_address_stands_in_when_its_key_is_present() {
        let mut mechanism = vxlan(LOW, HIGH);
        mechanism.parameters.insert("orig_src_ip".into(), "10.0.0.3".into());
        assert_eq!(parity(&mechanism), VniParity::Odd);
        // Present and empty: lower than anything on the source side, so greater on the other.
        mechanism.parameters.insert("orig_src_ip".into(), String::new());
        assert_eq!(parity(&mechanism), VniParity::Even);
        let mut mechanism = vxlan(LOW, HIGH);
        mechanism.parameters.insert("orig_dst_ip".into(), String::new());
        assert_eq!(parity(&mechanism), VniParity::Odd);
    }

    #[test]
    fn no_parity_without_both_addresses() {
        let error = Mechanism::vxlan().as_vxlan().unwrap().vni_parity().unwrap_err();
        assert_eq!(error, ParameterError::Missing { mechanism: "VXLAN".into(), key: "src_ip" });
    }
}
