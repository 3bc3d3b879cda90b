//! SRV6: segment routing over IPv6.

use std::net::IpAddr;

use super::SRV6;
use super::parameter::keys;
use super::view::view;

view!(Srv6, Srv6Mut, SRV6, as_srv6, as_srv6_mut);

/// Declares the accessors of address parameters.
macro_rules! addresses {
    ($($(#[$doc:meta])* $name:ident, $set:ident, $key:path;)*) => {
        impl Srv6<'_> {
            $($(#[$doc])*
            /// `None` when absent or not an address, as in the reference.
            pub fn $name(&self) -> Option<IpAddr> {
                self.0.parameter($key)?.parse().ok()
            })*
        }

        impl Srv6Mut<'_> {
            $(#[doc = concat!("Sets what [`Srv6::", stringify!($name), "`] reads.")]
            pub fn $set(&mut self, address: IpAddr) -> &mut Self {
                self.0.set_parameter($key, address.to_string());
                self
            })*
        }
    };
}

addresses! {
    /// Address of the client's host.
    src_host_ip, set_src_host_ip, keys::SRC_HOST_IP;
    /// Address of the endpoint's host.
    dst_host_ip, set_dst_host_ip, keys::DST_HOST_IP;
    /// Binding segment id of the client's side.
    src_bsid, set_src_bsid, keys::SRC_BSID;
    /// Binding segment id of the endpoint's side.
    dst_bsid, set_dst_bsid, keys::DST_BSID;
    /// Segment id that ends at the client's side.
    src_localsid, set_src_localsid, keys::SRC_LOCALSID;
    /// Segment id that ends at the endpoint's side.
    dst_localsid, set_dst_localsid, keys::DST_LOCALSID;
    /// Segment id of the client's host.
    src_host_localsid, set_src_host_localsid, keys::SRC_HOST_LOCALSID;
    /// Segment id of the endpoint's host.
    dst_host_localsid, set_dst_host_localsid, keys::DST_HOST_LOCALSID;
}

impl<'a> Srv6<'a> {
    /// Hardware address of the client's host.
    pub fn src_hw_addr(&self) -> Option<&'a str> {
        self.0.parameter(keys::SRC_HW_ADDR)
    }

    /// Hardware address of the endpoint's host.
    pub fn dst_hw_addr(&self) -> Option<&'a str> {
        self.0.parameter(keys::DST_HW_ADDR)
    }
}

impl Srv6Mut<'_> {
    /// Sets the hardware address of the client's host.
    pub fn set_src_hw_addr(&mut self, address: &str) -> &mut Self {
        self.0.set_parameter(keys::SRC_HW_ADDR, address);
        self
    }

    /// Sets the hardware address of the endpoint's host.
    pub fn set_dst_hw_addr(&mut self, address: &str) -> &mut Self {
        self.0.set_parameter(keys::DST_HW_ADDR, address);
        self
    }
}

#[cfg(test)]
mod tests {
    use crate::Mechanism;

    #[test]
    fn what_is_set_is_read_back_and_other_text_is_no_address() {
        let mut mechanism = Mechanism::srv6();
        let sid = "fc00::1".parse().unwrap();
        mechanism.as_srv6_mut().unwrap().set_src_bsid(sid).set_dst_hw_addr("02:00:00:00:00:01");
        mechanism.set_parameter("dst_host_localsid", "none");
        let view = mechanism.as_srv6().unwrap();
        assert_eq!(view.src_bsid(), Some(sid));
        assert_eq!(view.dst_hw_addr(), Some("02:00:00:00:00:01"));
        assert_eq!(view.dst_host_localsid(), None);
        assert_eq!(mechanism.parameters["src_bsid"], "fc00::1");
    }
}
