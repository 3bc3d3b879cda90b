//! A gRPC channel as the end of a chain.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::StreamExt;
use nsm_api::connection::monitor_connection_client::MonitorConnectionClient;
use nsm_api::networkservice::NetworkServiceRequest;
use nsm_api::networkservice::network_service_client::NetworkServiceClient;
use nsm_api::registry::network_service_endpoint_registry_client::NetworkServiceEndpointRegistryClient;
use nsm_api::registry::network_service_registry_client::NetworkServiceRegistryClient;
use nsm_api::registry::{NetworkService, NetworkServiceEndpoint};
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::Body as HttpBody;
use tonic::{Request, Response, Status};

use super::headers;
use super::status::received;
use crate::{
    BoxError, Call, Change, Closed, Element, EventStream, LinkInfo, Next, Order, Protocol, Registry, RegistryPath,
    Result, SendBeside, ServerLink, Service, Watch,
};

/// The next hop behind a gRPC channel. It answers: nothing may follow it in a chain.
///
/// The channel is any tower service that carries gRPC; what must travel beside each call, such as tokens, is its
/// concern. What [`SendBeside`] names it finds in a request's extensions. If it leaves a [`LinkInfo`] in an answer's, the call comes back
/// with a [`ServerLink`].
#[derive(Clone)]
pub struct GrpcLink<S> {
    channel: S,
    address: Arc<str>,
}

/// What gRPC needs of a channel, in one name.
pub trait Channel:
    GrpcService<Body, Future: Send, ResponseBody: HttpBody<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Channel for S where
    S: GrpcService<
            Body,
            Future: Send,
            ResponseBody: HttpBody<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

impl<S> GrpcLink<S> {
    /// The peer behind `channel`, called `address` in errors.
    #[must_use]
    pub fn new(channel: S, address: impl Into<Arc<str>>) -> Self {
        Self { channel, address: address.into() }
    }

    /// One unary RPC under the caller's deadline and patience.
    async fn unary<P: Protocol, R>(
        &self,
        call: &mut Call<P>,
        rpc: impl Future<Output = Result<Response<R>, Status>>,
    ) -> Result<Response<R>> {
        let response = call.patiently(rpc).await?.map_err(|status| received(&status, &self.address))?;
        if let Some(link) = response.extensions().get::<LinkInfo>() {
            call.set_fact(ServerLink(link.clone()));
        }
        Ok(response)
    }
}

/// A message under the caller's deadline, with the descriptors that travel beside it.
fn outgoing<P: Protocol, T>(call: &mut Call<P>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(beside) = call.fact::<SendBeside>().cloned() {
        // They go with this call and no other.
        call.clear_fact::<SendBeside>();
        request.extensions_mut().insert(beside);
    }
    if let Some(remaining) = call.remaining() {
        request.set_timeout(remaining);
    }
    request
}

/// Tells a watcher who wants to know over which link he is answered.
fn answered<T>(server: &Option<Arc<OnceLock<LinkInfo>>>, response: &Response<T>) {
    if let (Some(server), Some(link)) = (server, response.extensions().get::<LinkInfo>()) {
        // Told once: a question has one answer.
        let _told = server.set(link.clone());
    }
}

/// Whether the answer to a Close says that there was nothing to close.
fn closed(response: &Response<()>) -> Closed {
    match response.metadata().get(super::server::CLOSED) {
        Some(value) if value == super::server::UNKNOWN => Closed::Unknown,
        _ => Closed::Done,
    }
}

impl<S: Channel> Element<Service> for GrpcLink<S> {
    async fn request(&self, mut call: Call, _next: Next<'_>) -> Result<Call> {
        let message = NetworkServiceRequest {
            connection: Some(call.body().clone()),
            mechanism_preferences: call.extra().clone(),
        };
        let request = outgoing(&mut call, message);
        let mut client = NetworkServiceClient::new(self.channel.clone());
        let response = self.unary(&mut call, client.request(request)).await?;
        call.set_body(response.into_inner());
        Ok(call)
    }

    async fn close(&self, mut call: Call, _next: Next<'_>) -> Result<Call> {
        let body = call.body().clone();
        let request = outgoing(&mut call, body);
        let mut client = NetworkServiceClient::new(self.channel.clone());
        let response = self.unary(&mut call, client.close(request)).await?;
        call.set_closed(closed(&response));
        Ok(call)
    }

    async fn monitor(&self, watch: Watch, _next: Next<'_>) -> Result<EventStream<Service>> {
        let mut client = MonitorConnectionClient::new(self.channel.clone());
        let response =
            client.monitor_connections(watch.query).await.map_err(|status| received(&status, &self.address))?;
        answered(&watch.server, &response);
        let address = Arc::clone(&self.address);
        Ok(response
            .into_inner()
            .map(move |event| event.map(Arc::new).map_err(|status| received(&status, &address)))
            .boxed())
    }

    fn order(&self) -> Order {
        Order::LAST
    }
}

/// The two registries differ in nothing but the generated names.
macro_rules! registry {
    ($record:ty, $client:ident, $field:ident) => {
        impl<S: Channel> Element<Registry<$record>> for GrpcLink<S> {
            async fn request(
                &self,
                mut call: Call<Registry<$record>>,
                _next: Next<'_, Registry<$record>>,
            ) -> Result<Call<Registry<$record>>> {
                let body = call.body().clone();
                let mut request = outgoing(&mut call, body);
                headers::send_path(request.metadata_mut(), call.extra().as_ref().unwrap_or(&RegistryPath::default()))?;
                let mut client = $client::new(self.channel.clone());
                let response = self.unary(&mut call, client.register(request)).await?;
                if let Some(path) = headers::receive_path(response.metadata())? {
                    *call.extra_mut() = Some(path);
                }
                call.set_body(response.into_inner());
                Ok(call)
            }

            async fn close(
                &self,
                mut call: Call<Registry<$record>>,
                _next: Next<'_, Registry<$record>>,
            ) -> Result<Call<Registry<$record>>> {
                let body = call.body().clone();
                let mut request = outgoing(&mut call, body);
                headers::send_path(request.metadata_mut(), call.extra().as_ref().unwrap_or(&RegistryPath::default()))?;
                let mut client = $client::new(self.channel.clone());
                let response = self.unary(&mut call, client.unregister(request)).await?;
                if let Some(path) = headers::receive_path(response.metadata())? {
                    *call.extra_mut() = Some(path);
                }
                Ok(call)
            }

            async fn monitor(
                &self,
                watch: Watch<Registry<$record>>,
                _next: Next<'_, Registry<$record>>,
            ) -> Result<EventStream<Registry<$record>>> {
                let mut client = $client::new(self.channel.clone());
                let response = client.find(watch.query).await.map_err(|status| received(&status, &self.address))?;
                answered(&watch.server, &response);
                let address = Arc::clone(&self.address);
                let found = response.into_inner().filter_map(move |found| {
                    // An answer without the record inside says nothing.
                    let found = match found {
                        Ok(found) => {
                            found.$field.map(|record| Ok(Change { record: Arc::new(record), deleted: found.deleted }))
                        }
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

registry!(NetworkService, NetworkServiceRegistryClient, network_service);
registry!(NetworkServiceEndpoint, NetworkServiceEndpointRegistryClient, network_service_endpoint);

impl<S> fmt::Debug for GrpcLink<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrpcLink({})", self.address)
    }
}
