//! A chain behind the generated gRPC services.

use std::fmt;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use nsm_api::connection::monitor_connection_server::MonitorConnection;
use nsm_api::connection::{Connection, ConnectionEvent, MonitorScopeSelector};
use nsm_api::networkservice::NetworkServiceRequest;
use nsm_api::networkservice::network_service_server::NetworkService as NetworkServiceRpc;
use nsm_api::registry::network_service_endpoint_registry_server::NetworkServiceEndpointRegistry;
use nsm_api::registry::network_service_registry_server::NetworkServiceRegistry;
use nsm_api::registry::{
    NetworkService, NetworkServiceEndpoint, NetworkServiceEndpointQuery, NetworkServiceEndpointResponse,
    NetworkServiceQuery, NetworkServiceResponse,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::headers;
use crate::tower::Verb;
use crate::{Call, Chain, Closed, Error, LinkInfo, Protocol, Registry, RegistryPath, Result, Service, Watch};

/// Beside the answer to a Close: what was found.
pub(super) const CLOSED: &str = "nsm-closed";
pub(super) const UNKNOWN: &str = "unknown";

/// A chain as the generated gRPC services: `Server<Service>` is NetworkService and MonitorConnection,
/// `Server<Registry<R>>` the registry of that record.
///
/// When a caller gives up, tonic drops the handler in the middle of an await. So each call is [detached](Chain::detached):
/// it learns of it by its [`cancellation`](Call::cancellation), and finishes or rolls back.
pub struct Server<P: Protocol = Service> {
    chain: Chain<P>,
    running: TaskTracker,
    stopping: CancellationToken,
}

impl<P: Protocol> Server<P> {
    /// Serves this chain.
    #[must_use]
    pub fn new(chain: Chain<P>) -> Self {
        Self { chain, running: TaskTracker::new(), stopping: CancellationToken::new() }
    }

    /// Ends the streams it serves when `stopping` is cancelled.
    #[must_use]
    pub fn stopped_by(mut self, stopping: CancellationToken) -> Self {
        self.stopping = stopping;
        self
    }

    /// Tracks the tasks of calls in flight, so that a stopping program can wait for them.
    #[must_use]
    pub fn tracked_by(mut self, running: TaskTracker) -> Self {
        self.running = running;
        self
    }

    async fn run(&self, verb: Verb<P>) -> Result<Call<P>> {
        let result = self.chain.detached(verb, &self.running).await;
        if let Err(error) = &result {
            tracing::debug!(target: "nsm::grpc", hop = &**self.chain.hop(), ?error, "refused");
        }
        result
    }

    async fn watch(
        &self,
        query: P::Query,
        metadata: &MetadataMap,
        link: Option<&LinkInfo>,
    ) -> Result<BoxStream<'static, Result<P::Event>>> {
        let link = link.cloned().unwrap_or_default();
        let token = headers::receive_token(metadata)?;
        let watch = Watch { peer: link.peer.clone(), token, link: Some(link), ..Watch::new(query) };
        let events = self.chain.monitor(watch).await?;
        Ok(events.take_until(self.stopping.clone().cancelled_owned()).boxed())
    }
}

/// The call that a request begins, and its extensions' link.
fn incoming<P: Protocol>(body: P::Body, metadata: &MetadataMap, link: Option<&LinkInfo>) -> Result<Call<P>> {
    let token = headers::receive_token(metadata)?;
    let link = link.cloned().unwrap_or_default();
    let mut call = Call::new(body).from_peer(link.peer.clone(), token);
    call.set_fact(link);
    call.set_deadline(timeout(metadata).map(|timeout| Instant::now() + timeout));
    Ok(call)
}

/// The caller's `grpc-timeout`: up to eight digits and a unit
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
fn timeout(metadata: &MetadataMap) -> Option<std::time::Duration> {
    use std::time::Duration;
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[tonic::async_trait]
impl NetworkServiceRpc for Server<Service> {
    async fn request(&self, request: Request<NetworkServiceRequest>) -> Result<Response<Connection>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let connection = message.connection.ok_or_else(|| {
            Error::invalid("the request has no connection").hint("fill in NetworkServiceRequest.connection")
        })?;
        let mut call = incoming::<Service>(connection, &metadata, extensions.get())?;
        *call.extra_mut() = message.mechanism_preferences;
        Ok(Response::new(self.run(Verb::Request(call)).await?.into_body()))
    }

    async fn close(&self, request: Request<Connection>) -> Result<Response<()>, Status> {
        let (metadata, extensions, connection) = request.into_parts();
        let call = self.run(Verb::Close(incoming::<Service>(connection, &metadata, extensions.get())?)).await?;
        let mut response = Response::new(());
        if call.closed() == Closed::Unknown {
            response.metadata_mut().insert(CLOSED, tonic::metadata::MetadataValue::from_static(UNKNOWN));
        }
        Ok(response)
    }
}

#[tonic::async_trait]
impl MonitorConnection for Server<Service> {
    type MonitorConnectionsStream = BoxStream<'static, Result<ConnectionEvent, Status>>;

    async fn monitor_connections(
        &self,
        request: Request<MonitorScopeSelector>,
    ) -> Result<Response<Self::MonitorConnectionsStream>, Status> {
        let (metadata, extensions, selector) = request.into_parts();
        let events = self.watch(selector, &metadata, extensions.get()).await?;
        Ok(Response::new(events.map(|event| event.map(Arc::unwrap_or_clone).map_err(Status::from)).boxed()))
    }
}

/// An answer with the path beside it, if there is one.
fn along<T>(path: Option<RegistryPath>, answer: T) -> Result<Response<T>, Status> {
    let mut response = Response::new(answer);
    if let Some(path) = path {
        headers::send_path(response.metadata_mut(), &path)?;
    }
    Ok(response)
}

/// The two registries differ in nothing but the generated names.
macro_rules! registry {
    ($record:ty, $service:ident, $query:ty, $response:ident, $field:ident) => {
        #[tonic::async_trait]
        impl $service for Server<Registry<$record>> {
            type FindStream = BoxStream<'static, Result<$response, Status>>;

            async fn register(&self, request: Request<$record>) -> Result<Response<$record>, Status> {
                let (metadata, extensions, record) = request.into_parts();
                let mut call = incoming::<Registry<$record>>(record, &metadata, extensions.get())?;
                *call.extra_mut() = headers::receive_path(&metadata)?;
                let call = self.run(Verb::Request(call)).await?;
                let path = call.extra().clone();
                along(path, call.into_body())
            }

            async fn find(&self, request: Request<$query>) -> Result<Response<Self::FindStream>, Status> {
                let (metadata, extensions, query) = request.into_parts();
                let found = self.watch(query, &metadata, extensions.get()).await?;
                let found = found.map(|found| match found {
                    Ok(found) => {
                        Ok($response { $field: Some(Arc::unwrap_or_clone(found.record)), deleted: found.deleted })
                    }
                    Err(error) => Err(Status::from(error)),
                });
                Ok(Response::new(found.boxed()))
            }

            async fn unregister(&self, request: Request<$record>) -> Result<Response<()>, Status> {
                let (metadata, extensions, record) = request.into_parts();
                let mut call = incoming::<Registry<$record>>(record, &metadata, extensions.get())?;
                *call.extra_mut() = headers::receive_path(&metadata)?;
                let call = self.run(Verb::Close(call)).await?;
                // Also here: the caller's policies judge the path that comes back.
                along(call.extra().clone(), ())
            }
        }
    };
}

registry!(NetworkService, NetworkServiceRegistry, NetworkServiceQuery, NetworkServiceResponse, network_service);
registry!(
    NetworkServiceEndpoint,
    NetworkServiceEndpointRegistry,
    NetworkServiceEndpointQuery,
    NetworkServiceEndpointResponse,
    network_service_endpoint
);

impl<P: Protocol> Clone for Server<P> {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), running: self.running.clone(), stopping: self.stopping.clone() }
    }
}

impl<P: Protocol> fmt::Debug for Server<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&self.chain).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PathToken;

    #[tokio::test]
    async fn register_and_unregister_answer_with_the_path() {
        let server = Server::new(Chain::<Registry<NetworkService>>::new("registry", Vec::new()).unwrap());
        let path = RegistryPath { index: 0, tokens: vec![PathToken("a".into())] };
        let asked = || {
            let mut request = Request::new(NetworkService { name: "vpn".into(), ..Default::default() });
            headers::send_path(request.metadata_mut(), &path).unwrap();
            request
        };
        let registered = NetworkServiceRegistry::register(&server, asked()).await.unwrap();
        assert_eq!(headers::receive_path(registered.metadata()).unwrap().as_ref(), Some(&path));
        let unregistered = NetworkServiceRegistry::unregister(&server, asked()).await.unwrap();
        assert_eq!(headers::receive_path(unregistered.metadata()).unwrap().as_ref(), Some(&path));
    }
}
