use nsm_chain::{Call, Element, Next, Result};

use super::Services;

/// Gives a network service that does not say what it carries a payload.
///
/// *Register*: an empty payload becomes `IP`, or what the stack says. *Unregister*, *Find*: pass. It stands
/// before the store, so that queries by payload find the service.
#[derive(Debug, Clone)]
pub struct DefaultPayload(String);

impl DefaultPayload {
    /// Another payload than `IP`.
    #[must_use]
    pub fn new(payload: impl Into<String>) -> Self {
        Self(payload.into())
    }
}

impl Default for DefaultPayload {
    fn default() -> Self {
        Self::new(nsm_api::payload::IP)
    }
}

impl Element<Services> for DefaultPayload {
    async fn request(&self, mut call: Call<Services>, next: Next<'_, Services>) -> Result<Call<Services>> {
        if call.body().payload.is_empty() {
            call.body_mut().payload.clone_from(&self.0);
        }
        next.request(call).await
    }
}

#[cfg(test)]
mod tests {
    use nsm_api::registry::NetworkService;
    use nsm_chain::{Chain, elements};

    use super::*;

    #[tokio::test]
    async fn a_service_without_a_payload_carries_ip() {
        let chain = Chain::new("registry", elements![DefaultPayload::default()]).unwrap();
        for (said, settled) in [("", "IP"), ("ETHERNET", "ETHERNET")] {
            let service = NetworkService { name: "ns".into(), payload: said.into(), ..Default::default() };
            assert_eq!(chain.request(Call::new(service)).await.unwrap().body().payload, settled);
        }
    }
}
