use std::sync::Arc;

use nsm_chain::{Call, Element, Next, Order, Result, Slot};

use super::Endpoints;
use crate::transport::{Address, Channels, Link};

/// Opens the connection to whoever registers for a service, before the first call needs it.
///
/// *Register*: on success the endpoint's URL is dialled, without waiting for it, if it serves that network service; the
/// connection stays open while the endpoint is registered. *Unregister*: it goes with the registration's state.
/// *Find* passes.
///
/// A manager has one for its forwarders, so that no client waits for the handshake with them. It stands before
/// `LocalBypass`, which replaces the URL.
#[derive(Debug)]
pub struct OpenAhead {
    channels: Arc<Channels>,
    service: Arc<str>,
    open: Slot<Link>,
}

impl OpenAhead {
    /// For those who register for this network service.
    #[must_use]
    pub fn new(channels: Arc<Channels>, service: impl Into<Arc<str>>) -> Self {
        Self { channels, service: service.into(), open: Slot::new() }
    }
}

impl Element<Endpoints> for OpenAhead {
    async fn request(&self, call: Call<Endpoints>, next: Next<'_, Endpoints>) -> Result<Call<Endpoints>> {
        let serves = call.body().network_service_names.iter().any(|name| **name == *self.service);
        let address = call.body().url.parse::<Address>().ok().filter(|_| serves);
        let call = next.request(call).await?;
        if let Some(address) = address {
            let link = self.channels.link(&address);
            self.open.set(call.state()?, link.clone());
            tokio::spawn(async move {
                if let Err(error) = link.connected().await {
                    tracing::debug!(%address, %error, "cannot be reached yet");
                }
            });
        }
        Ok(call)
    }

    fn order(&self) -> Order {
        Order { after: &["Begin"], before: &["LocalBypass"], last: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::HmacTokens;
    use crate::transport::{DialOptions, Transport};
    use nsm_api::NetworkServiceEndpoint;
    use nsm_chain::{Begin, Chain, elements};

    #[tokio::test]
    async fn a_connection_is_kept_to_those_who_serve_and_only_while_they_are_registered() {
        let tokens = HmacTokens::new(&"spiffe://example.org/nsmgr".parse().unwrap());
        let options = DialOptions { idle: std::time::Duration::ZERO, ..DialOptions::default() };
        let channels = Arc::new(Channels::new(Transport::insecure(Arc::new(tokens)), options));
        let ahead = OpenAhead::new(Arc::clone(&channels), "forwarder");
        let chain = Chain::new("nsmgr", elements![Begin::default(), ahead]).unwrap();
        let endpoint = |name: &str, service: &str| NetworkServiceEndpoint {
            name: name.into(),
            network_service_names: vec![service.into()],
            url: format!("mem://{name}"),
            ..Default::default()
        };
        chain.request(Call::new(endpoint("nse", "vpn"))).await.unwrap();
        assert!(channels.is_empty());
        chain.request(Call::new(endpoint("forwarder-1", "forwarder"))).await.unwrap();
        assert_eq!(channels.len(), 1);
        chain.close(Call::new(endpoint("forwarder-1", "forwarder"))).await.unwrap();
        while !channels.is_empty() {
            tokio::task::yield_now().await;
        }
    }
}
