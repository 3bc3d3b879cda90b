use std::collections::HashMap;

use nsm_chain::{Call, Element, Error, Next, Result};

use crate::vlans::VIA;

/// Completes a VLAN mechanism with the VLAN of the connection's network service.
///
/// *Request*: the mechanism gets the VLAN's number, the connection the label `via`: by what each forwarder knows which of its
/// node's interfaces leads there. *Close* passes. Such an endpoint has no interface of its own, and forwarders reach it by TCP.
///
/// It stands in [`Mechanisms`](crate::Mechanisms):
///
/// ```
/// use nsm_api::mechanism::VLAN;
/// use nsm_mechanisms::{Mechanisms, VlanAccept};
///
/// let vlans = VlanAccept::new().serving("finance", 100, "gw1")?;
/// let mechanisms = Mechanisms::new().with(VLAN, vlans)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct VlanAccept {
    by_service: HashMap<String, (u16, String)>,
}

impl VlanAccept {
    /// Knows no network service yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Clients of `service` are put into the VLAN of this number, 1 to 4094, in the network that forwarders know as `via`;
    /// number 0: their frames have no tag.
    ///
    /// # Errors
    /// When there is no such VLAN, or no name for the network.
    pub fn serving(mut self, service: &str, vlan: u16, via: &str) -> Result<Self> {
        if vlan > 4094 || via.is_empty() {
            return Err(Error::invalid(format!("{service} cannot be in VLAN {vlan} via {via:?}"))
                .hint("number it 1 to 4094, or 0 for frames without tag, and name the network"));
        }
        self.by_service.insert(service.to_owned(), (vlan, via.to_owned()));
        Ok(self)
    }
}

impl Element for VlanAccept {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let connection = call.connection_mut();
        let service = &connection.network_service;
        let Some((id, via)) = self.by_service.get(service) else {
            return Err(Error::not_found(format!("this endpoint has no VLAN for network service {service}")));
        };
        if let Some(mut vlan) = connection.mechanism.as_mut().and_then(|mechanism| mechanism.as_vlan_mut()) {
            let set = vlan.set_id(*id).map(drop);
            set.map_err(|error| Error::internal("the VLAN mechanism cannot be completed").because(error))?;
        }
        connection.labels.insert(VIA.to_owned(), via.clone());
        next.request(call).await
    }
}
