use nsm_chain::{Call, Element, Next, Result};

/// Asks for a hardware address on the client's side.
///
/// *Request*: sets the Ethernet context's source address, unless one is set. *Close* passes. It stands anywhere in a
/// client's or endpoint's chain before the next hop.
#[derive(Debug, Clone, Copy)]
pub struct ClientMac(
    /// Six octets; neither zero nor a group address.
    pub [u8; 6],
);

impl Element for ClientMac {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let context = call.connection_mut().context.get_or_insert_default();
        let ethernet = context.ethernet_context.get_or_insert_default();
        if ethernet.src_mac.is_empty() {
            let octets = self.0.map(|octet| format!("{octet:02x}"));
            ethernet.src_mac = octets.join(":");
        }
        next.request(call).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsm_chain::{Chain, elements};

    #[tokio::test]
    async fn the_first_to_ask_decides() {
        let chain = Chain::new("nsc", elements![ClientMac([2, 0, 0, 0, 0, 0xab]), ClientMac([2; 6])]).unwrap();
        let call = chain.request(Call::default()).await.unwrap();
        let ethernet = call.connection().context.as_ref().and_then(|c| c.ethernet_context.as_ref()).unwrap();
        assert_eq!(ethernet.src_mac, "02:00:00:00:00:ab");
    }
}
