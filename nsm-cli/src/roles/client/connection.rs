//! One connection, from its URL on.

use std::time::Duration;

use nsm_api::mechanism::KERNEL;
use nsm_api::{NetworkServiceRequest, ServiceUrl};
use nsm_mechanisms::KernelLiveness;
use nsm_sdk::lifetime::Backoff;
use nsm_sdk::stacks::Client;

use super::{Options, earlier};
use crate::failure::Failure;

/// A connection that is wanted.
#[derive(Debug)]
pub(super) struct Wanted {
    id: String,
    url: ServiceUrl,
    /// How long a look for an earlier life may take.
    looking: Duration,
    /// How long it is tried before it is said why it does not work.
    patience: Duration,
    /// How long a ping of an earlier life's interface may take, if pinging is wanted.
    ping: Option<Duration>,
}

impl Wanted {
    pub(super) fn new(id: String, url: ServiceUrl, options: &Options) -> Self {
        // Shared memory is another program's to send through.
        let pings = options.liveness_check_enabled.0 && url.mechanism == KERNEL;
        let ping = pings.then_some(options.liveness_check_timeout.0);
        Self { id, url, looking: options.dial_timeout.0, patience: options.request_timeout.0.saturating_mul(2), ping }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Asks until it is there.
    pub(super) async fn obtain(&self, client: &Client) {
        let mut pauses = Backoff::of(Duration::from_millis(200), Duration::from_secs(15), &self.id);
        loop {
            pauses.wait().await;
            let request = self.request(client).await;
            match client.request(request, self.patience).await {
                Ok(_) => return,
                Err(error) => {
                    let Failure { hop, cause, remedy, .. } = Failure::of(&self.id, &error);
                    tracing::warn!(connection = self.id, hop, remedy, "not there yet: {cause}");
                }
            }
        }
    }

    /// The first Request: for what an earlier life of this connection left, if there was one.
    async fn request(&self, client: &Client) -> NetworkServiceRequest {
        let mut request = self.url.to_request(&*self.id);
        let Some(mut found) = earlier::find(client, &self.id, &self.url.mechanism, self.looking).await else {
            return request;
        };
        let packets_flow = match self.ping {
            Some(within) => KernelLiveness.is_alive(&found, within).await,
            None => false,
        };
        let reselects = earlier::is_down(&found) && !packets_flow;
        tracing::info!(
            connection = self.id,
            endpoint = found.network_service_endpoint_name,
            reselects,
            "an earlier life is continued"
        );
        if reselects {
            earlier::reselect(&mut found);
        }
        request.connection = Some(found);
        request
    }
}
