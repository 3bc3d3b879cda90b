//! An endpoint in the middle of a service.

use std::collections::BTreeMap;

use nsm_chain::{Call, Element, Next, Order, Result};

use super::{ReplaceEndpointName, ReplaceLabels};

/// Sends a Request on with fixed labels, and to the endpoint that an earlier one of this connection found; answers
/// with the caller's labels and endpoint name.
/// To a Close it does the same.
///
/// It stands in an endpoint that passes traffic through to the next one of the same service (a firewall, say), after
/// `Begin`, before endpoints are chosen. It is [`ReplaceLabels`] and [`ReplaceEndpointName`] in one.
///
/// Reference: `passthrough` of the Go SDK.
#[derive(Debug)]
pub struct Passthrough {
    labels: ReplaceLabels,
    name: ReplaceEndpointName,
}

impl Passthrough {
    /// Goes on with these labels: those that the service's rule for the next endpoint asks of a client.
    #[must_use]
    pub fn new(labels: BTreeMap<String, String>) -> Self {
        Self { labels: ReplaceLabels::new(labels), name: ReplaceEndpointName::new() }
    }
}

impl Element for Passthrough {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let (labels, name) = (self.labels.replace(&mut call), self.name.replace(&mut call));
        let mut call = next.request(call).await?;
        self.name.remember(&mut call, name)?;
        call.connection_mut().labels = labels;
        Ok(call)
    }

    async fn close(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let (labels, name) = (self.labels.replace(&mut call), self.name.replace(&mut call));
        let mut call = next.close(call).await?;
        let connection = call.connection_mut();
        connection.network_service_endpoint_name = name;
        connection.labels = labels;
        Ok(call)
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}

#[cfg(test)]
mod tests {
    use nsm_api::connection::{Connection, State};
    use nsm_chain::{Node, elements};

    use super::super::testing::{Hop, connection};
    use super::*;

    fn labels(value: &str) -> BTreeMap<String, String> {
        [("app".to_owned(), value.to_owned())].into()
    }

    /// A further hop that chooses an endpoint where none is named.
    fn choose(connection: &mut Connection) -> Result<()> {
        if connection.network_service_endpoint_name.is_empty() {
            connection.network_service_endpoint_name = "vpn".into();
        }
        Ok(())
    }

    fn asked() -> Connection {
        Connection { labels: labels("client"), network_service_endpoint_name: "firewall".into(), ..connection("a") }
    }

    async fn passes_through(elements: Vec<Node>) {
        let hop = Hop::of(elements, choose);
        assert_eq!(hop.request(asked()).await.unwrap(), asked());
        assert_eq!(hop.requested(), Connection { labels: labels("firewall"), ..connection("a") });
        hop.request(asked()).await.unwrap();
        assert_eq!(hop.requested().network_service_endpoint_name, "vpn", "a refresh goes to who answered");
        hop.request(Connection { state: State::ReselectRequested.into(), ..asked() }).await.unwrap();
        assert_eq!(hop.requested().network_service_endpoint_name, "", "a reselect goes to nobody in particular");
        hop.close("a").await;
        for closed in hop.closed() {
            assert_eq!((closed.network_service_endpoint_name.as_str(), closed.labels), ("vpn", labels("firewall")));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_way_on_has_its_own_labels_and_endpoint_and_the_caller_keeps_his() {
        passes_through(elements![Passthrough::new(labels("firewall"))]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn its_parts_one_after_the_other_do_the_same() {
        passes_through(elements![ReplaceLabels::new(labels("firewall")), ReplaceEndpointName::new()]).await;
    }
}
