//! A gRPC channel as the end of a chain.

use std::fmt;
use std::sync::Arc;

use futures::StreamExt;
use nsm_api::connection::monitor_connection_client::MonitorConnectionClient;
use nsm_api::networkservice::NetworkServiceRequest;
use nsm_api::networkservice::network_service_client::NetworkServiceClient;
use nsm_api::registry::network_service_endpoint_registry_client::NetworkServiceEndpointRegistryClient;
use nsm_api::registry::network_service_registry_client::NetworkServiceRegistryClient;
use nsm_api::registry::{NetworkService, NetworkServiceEndpoint};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::headers;
use super::status::received;
use crate::{
    Call, Change, Closed, Element, EventStream, Next, Order, Peer, Registry, RegistryPath, Result,
    Service, Token, Watch,
};

/// Who we are towards the peer of a channel, and who it is towards us.
pub trait Outgoing: Send + Sync + 'static {
    /// The token to send, made for the peer as its last handshake showed it; none: this link carries no tokens.
    ///
    /// # Errors
    /// When none can be made.
    fn token(&self) -> Result<Option<Token>>;

    /// The peer, as the last handshake showed it.
    fn peer(&self) -> Option<Arc<Peer>>;
}

/// The next hop behind a gRPC channel. It answers: nothing may follow it in a chain.
#[derive(Clone)]
pub struct GrpcLink {
    channel: Channel,
    outgoing: Arc<dyn Outgoing>,
    address: Arc<str>,
}

/// The server's identity, left in a call that came back from it.
#[derive(Debug, Clone)]
pub struct ServerPeer(
    /// As its last handshake showed it.
    pub Arc<Peer>,
);

impl GrpcLink {
    /// The peer behind `channel`, called `address` in errors.
    #[must_use]
    pub fn new(
        channel: Channel,
        outgoing: Arc<dyn Outgoing>,
        address: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            channel,
            outgoing,
            address: address.into(),
        }
    }

    fn outgoing<T>(&self, message: T) -> Result<Request<T>> {
        let mut request = Request::new(message);
        if let Some(token) = self.outgoing.token()? {
            headers::send_token(request.metadata_mut(), &token)?;
        }
        Ok(request)
    }

    /// One unary RPC under the caller's deadline and patience.
    async fn unary<P: crate::Protocol, T, R>(
        &self,
        call: &Call<P>,
        mut request: Request<T>,
        rpc: impl AsyncFnOnce(Request<T>) -> Result<Response<R>, Status>,
    ) -> Result<Response<R>> {
        if let Some(remaining) = call.remaining() {
            request.set_timeout(remaining);
        }
        call.patiently(rpc(request))
            .await?
            .map_err(|status| received(&status, &self.address))
    }

    fn came_back<P: crate::Protocol>(&self, call: &mut Call<P>) {
        if let Some(peer) = self.outgoing.peer() {
            call.set_fact(ServerPeer(peer));
        }
    }
}

/// Whether the answer to a Close says that there was nothing to close.
fn closed(response: &Response<()>) -> Closed {
    match response.metadata().get(super::server::CLOSED) {
        Some(value) if value == super::server::UNKNOWN => Closed::Unknown,
        _ => Closed::Done,
    }
}

impl Element<Service> for GrpcLink {
    async fn request(&self, mut call: Call, _next: Next<'_>) -> Result<Call> {
        let message = NetworkServiceRequest {
            connection: Some(call.body().clone()),
            mechanism_preferences: call.extra().clone(),
        };
        let request = self.outgoing(message)?;
        let mut client = NetworkServiceClient::new(self.channel.clone());
        let response = self
            .unary(&call, request, async |request| {
                client.request(request).await
            })
            .await?;
        call.set_body(response.into_inner());
        self.came_back(&mut call);
        Ok(call)
    }

    async fn close(&self, mut call: Call, _next: Next<'_>) -> Result<Call> {
        let request = self.outgoing(call.body().clone())?;
        let mut client = NetworkServiceClient::new(self.channel.clone());
        let response = self
            .unary(&call, request, async |request| client.close(request).await)
            .await?;
        call.set_closed(closed(&response));
        Ok(call)
    }

    async fn monitor(&self, watch: Watch, _next: Next<'_>) -> Result<EventStream<Service>> {
        let request = self.outgoing(watch.query)?;
        let mut client = MonitorConnectionClient::new(self.channel.clone());
        let response = client
            .monitor_connections(request)
            .await
            .map_err(|status| received(&status, &self.address))?;
        let address = Arc::clone(&self.address);
        Ok(response
            .into_inner()
            .map(move |event| {
                event
                    .map(Arc::new)
                    .map_err(|status| received(&status, &address))
            })
            .boxed())
    }

    fn order(&self) -> Order {
        Order::LAST
    }
}

/// The two registries differ in nothing but the generated names.
macro_rules! registry {
    ($record:ty, $client:ident, $field:ident) => {
        impl Element<Registry<$record>> for GrpcLink {
            async fn request(
                &self,
                mut call: Call<Registry<$record>>,
                _next: Next<'_, Registry<$record>>,
            ) -> Result<Call<Registry<$record>>> {
                let mut request = self.outgoing(call.body().clone())?;
                headers::send_path(
                    request.metadata_mut(),
                    call.extra().as_ref().unwrap_or(&RegistryPath::default()),
                )?;
                let mut client = $client::new(self.channel.clone());
                let response = self
                    .unary(&call, request, async |request| {
                        client.register(request).await
                    })
                    .await?;
                if let Some(path) = headers::receive_path(response.metadata())? {
                    *call.extra_mut() = Some(path);
                }
                call.set_body(response.into_inner());
                self.came_back(&mut call);
                Ok(call)
            }

            async fn close(
                &self,
                call: Call<Registry<$record>>,
                _next: Next<'_, Registry<$record>>,
            ) -> Result<Call<Registry<$record>>> {
                let mut request = self.outgoing(call.body().clone())?;
                headers::send_path(
                    request.metadata_mut(),
                    call.extra().as_ref().unwrap_or(&RegistryPath::default()),
                )?;
                let mut client = $client::new(self.channel.clone());
                self.unary(&call, request, async |request| {
                    client.unregister(request).await
                })
                .await?;
                Ok(call)
            }

            async fn monitor(
                &self,
                watch: Watch<Registry<$record>>,
                _next: Next<'_, Registry<$record>>,
            ) -> Result<EventStream<Registry<$record>>> {
                let request = self.outgoing(watch.query)?;
                let mut client = $client::new(self.channel.clone());
                let response = client
                    .find(request)
                    .await
                    .map_err(|status| received(&status, &self.address))?;
                let address = Arc::clone(&self.address);
                let found = response.into_inner().filter_map(move |found| {
                    // An answer without the record inside says nothing.
                    let found = match found {
                        Ok(found) => found.$field.map(|record| {
                            Ok(Change {
                                record: Arc::new(record),
                                deleted: found.deleted,
                            })
                        }),
                        Err(status) => Some(Err(received(&status, &address))),
                    };
                    std::future::ready(found)
                });
                Ok(found.boxed())
            }

            fn order(&self) -> Order {
                Order::LAST
            }
        }
    };
}

registry!(
    NetworkService,
    NetworkServiceRegistryClient,
    network_service
);
registry!(
    NetworkServiceEndpoint,
    NetworkServiceEndpointRegistryClient,
    network_service_endpoint
);

impl fmt::Debug for GrpcLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrpcLink({})", self.address)
    }
}
