use std::net::IpAddr;
use std::sync::Arc;

use nsm_api::Mechanism;
use nsm_api::mechanism::{ParameterError, Vxlan};
use nsm_chain::{Error, Result};

use crate::{Vni, Vnis};

/// What VXLAN adds to an inner IP packet: Ethernet 14, VXLAN 8, UDP 8, IP 20 or 40 octets, and 4 more for a tag, as the
/// reference counts them.
const OVERHEAD_V4: u32 = 54;
const OVERHEAD_V6: u32 = 74;

/// This node's place in the network that carries its tunnels.
#[derive(Debug, Clone)]
pub struct Underlay {
    /// Our address there.
    pub address: IpAddr,
    /// UDP port of VXLAN; 4789 where nothing else is agreed.
    pub port: u16,
    /// Largest IP packet in octets that passes unfragmented.
    pub mtu: u32,
    vnis: Arc<Vnis>,
}

impl Underlay {
    /// At this address, on the standard port, with the MTU of Ethernet: 1500 octets.
    #[must_use]
    pub fn new(address: IpAddr) -> Self {
        Self { address, port: Vxlan::DEFAULT_PORT, mtu: 1500, vnis: Vnis::new() }
    }

    /// On another UDP port. Both ends of a tunnel tell each other theirs.
    #[must_use]
    pub fn on_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// With this MTU.
    #[must_use]
    pub fn with_mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// With identifiers from elsewhere: shared with another data plane of this node, or drawn in a fixed order.
    #[must_use]
    pub fn with_vnis(mut self, vnis: Arc<Vnis>) -> Self {
        self.vnis = vnis;
        self
    }

    /// The identifiers in use on this node.
    #[must_use]
    pub fn vnis(&self) -> &Arc<Vnis> {
        &self.vnis
    }

    /// Largest packet in octets that fits through a tunnel to an address of our family.
    #[must_use]
    pub fn tunnel_mtu(&self) -> u32 {
        self.mtu.saturating_sub(if self.address.is_ipv4() { OVERHEAD_V4 } else { OVERHEAD_V6 })
    }

    /// A VXLAN mechanism to offer to a next hop: our address, port and MTU. The other side adds its own, and the
    /// identifier.
    #[must_use]
    pub fn offer(&self) -> Mechanism {
        let mut mechanism = Mechanism::vxlan();
        if let Some(mut vxlan) = mechanism.as_vxlan_mut() {
            vxlan.set_src_ip(self.address).set_src_port(self.port).set_mtu(self.tunnel_mtu());
        }
        mechanism
    }

    /// Completes a VXLAN mechanism that a caller offers: our address, port and MTU, and the identifier, which is the
    /// caller's if it names one, else the one `held` for this connection, else a new one.
    ///
    /// # Errors
    /// A mechanism without a source address or of the other family, an identifier that another connection has, or none
    /// left.
    pub fn accept(&self, mechanism: &mut Mechanism, held: Option<&Arc<Vni>>) -> Result<Arc<Vni>> {
        if let Some(mut vxlan) = mechanism.as_vxlan_mut() {
            vxlan.set_dst_ip(self.address).set_dst_port(self.port);
        }
        let Some(vxlan) = mechanism.as_vxlan() else {
            return Err(Error::unsupported(format!("{} is not VXLAN", mechanism.r#type)));
        };
        let src = vxlan.src_ip().map_err(bad)?.ok_or_else(|| {
            Error::invalid("the caller's VXLAN mechanism has no source address")
                .hint("the offering side must set src_ip")
        })?;
        if src.is_ipv4() != self.address.is_ipv4() {
            return Err(Error::unsupported(format!("no tunnel between {src} and {}", self.address))
                .hint("use underlay addresses of one family"));
        }
        let mtu = vxlan.mtu().map_err(bad)?.map_or(self.tunnel_mtu(), |mtu| mtu.min(self.tunnel_mtu()));
        let asked = vxlan.vni().map_err(bad)?;
        let vni = match (asked, held) {
            (Some(number), Some(held)) if held.number() == number && held.peer() == src => Arc::clone(held),
            (None, Some(held)) if held.peer() == src => Arc::clone(held),
            (Some(number), _) => Arc::new(self.vnis.claim(number, src).map_err(no_vni)?),
            (None, _) => Arc::new(self.vnis.draw(vxlan.vni_parity().map_err(bad)?, src).map_err(no_vni)?),
        };
        if let Some(mut vxlan) = mechanism.as_vxlan_mut() {
            vxlan.set_vni(vni.number()).map_err(bad)?.set_mtu(mtu);
        }
        Ok(vni)
    }
}

fn bad(error: ParameterError) -> Error {
    Error::invalid("the VXLAN mechanism cannot be used").because(error)
}

fn no_vni(error: crate::VniError) -> Error {
    match error {
        crate::VniError::Taken(_) => Error::taken("the tunnel cannot be identified").because(error),
        crate::VniError::OutOfRange(_) => Error::invalid("the tunnel cannot be identified").because(error),
        crate::VniError::Exhausted => Error::exhausted("the tunnel cannot be identified").because(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsm_chain::Code;

    fn underlay(address: &str) -> Underlay {
        Underlay::new(address.parse().unwrap()).with_mtu(1500)
    }

    fn vni(mechanism: &Mechanism) -> u32 {
        mechanism.as_vxlan().unwrap().vni().unwrap().unwrap()
    }

    #[test]
    fn each_side_adds_its_address_and_the_callee_the_identifier() {
        let mut mechanism = underlay("10.0.0.2").on_port(4790).offer();
        let guard = underlay("10.0.0.1").with_mtu(1400).accept(&mut mechanism, None).unwrap();
        let vxlan = mechanism.as_vxlan().unwrap();
        assert_eq!(vxlan.src_ip(), Ok("10.0.0.2".parse().ok()));
        assert_eq!(vxlan.dst_ip(), Ok("10.0.0.1".parse().ok()));
        assert_eq!((vxlan.src_port(), vxlan.dst_port()), (Ok(Some(4790)), Ok(Some(4789))));
        assert_eq!(vxlan.mtu(), Ok(Some(1346)));
        // The higher address asks, the lower one issues: an odd number.
        assert_eq!((vni(&mechanism), vni(&mechanism) % 2), (guard.number(), 1));
        assert_eq!(underlay("fd00::1").tunnel_mtu(), 1426);
    }

    #[test]
    fn a_refresh_keeps_the_identifier_whether_the_caller_names_it_or_not() {
        let callee = underlay("10.0.0.2");
        let mut mechanism = underlay("10.0.0.1").offer();
        let held = callee.accept(&mut mechanism, None).unwrap();
        let again = callee.accept(&mut mechanism, Some(&held)).unwrap();
        assert!(Arc::ptr_eq(&held, &again));
        let again = callee.accept(&mut underlay("10.0.0.1").offer(), Some(&held)).unwrap();
        assert!(Arc::ptr_eq(&held, &again));
        assert_eq!(callee.vnis().in_use(), 1);
    }

    #[test]
    fn after_a_restart_the_callers_identifier_is_taken_up_unless_somebody_else_has_it() {
        let mut mechanism = underlay("10.0.0.1").offer();
        mechanism.as_vxlan_mut().unwrap().set_vni(42).unwrap();
        let callee = underlay("10.0.0.2");
        let _held = callee.accept(&mut mechanism, None).unwrap();
        assert_eq!(vni(&mechanism), 42);
        let error = callee.accept(&mut mechanism, None).unwrap_err();
        assert_eq!(error.code(), Code::AlreadyExists);
    }

    #[test]
    fn what_cannot_be_a_tunnel_is_refused() {
        let callee = underlay("10.0.0.2");
        assert_eq!(callee.accept(&mut Mechanism::vxlan(), None).unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(callee.accept(&mut underlay("fd00::1").offer(), None).unwrap_err().code(), Code::Unimplemented);
        assert_eq!(callee.accept(&mut Mechanism::kernel(), None).unwrap_err().code(), Code::Unimplemented);
        assert_eq!(callee.vnis().in_use(), 0);
    }
}
