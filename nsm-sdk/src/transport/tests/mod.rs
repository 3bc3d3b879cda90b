//! Whole servers and links over every kind of socket.

mod hops;
mod idle;
mod refusals;
mod rotation;
mod server;
mod sharing;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use nsm_api::connection::monitor_connection_client::MonitorConnectionClient;
use nsm_api::connection::monitor_connection_server::{MonitorConnection, MonitorConnectionServer};
use nsm_api::connection::{Connection, ConnectionEvent, MonitorScopeSelector};
use nsm_api::networkservice::NetworkServiceRequest;
use nsm_api::networkservice::network_service_client::NetworkServiceClient;
use nsm_api::networkservice::network_service_server::{NetworkService, NetworkServiceServer};
use nsm_api::{NetworkServiceEndpoint, SpiffeId};
use nsm_chain::grpc::headers::receive_token;
use nsm_chain::{LinkInfo, Token, time};
use tokio::sync::Notify;
use tonic::{Request, Response, Status};

use super::{Address, BindOptions, Channels, DialOptions, Link, ServeOptions, Server, ServerHandle, Transport};
use crate::identity::{DevAuthority, HmacTokens, TokenVerifier};

/// A service that answers with what it has learnt of its caller.
#[derive(Clone, Default)]
struct Echo {
    /// Requests for the name `wait` stay until this is notified, and tell here that they came.
    release: Arc<Notify>,
    waiting: Arc<Notify>,
    calls: Arc<AtomicUsize>,
    verifier: Arc<TokenVerifier>,
}

#[tonic::async_trait]
impl NetworkService for Echo {
    /// The connection comes back with the caller's SPIFFE ID as its id, after the caller's token was verified.
    async fn request(&self, request: Request<NetworkServiceRequest>) -> Result<Response<Connection>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let token: Token = receive_token(request.metadata())?.ok_or_else(|| Status::invalid_argument("no token"))?;
        let link: LinkInfo = request.extensions().get().cloned().ok_or_else(|| Status::internal("no link"))?;
        let mut connection = request.into_inner().connection.unwrap_or_default();
        if connection.network_service == "wait" {
            self.waiting.notify_one();
            self.release.notified().await;
        }
        if let Some(peer) = link.peer {
            let denied = |error: crate::identity::TokenRejected| Status::permission_denied(error.to_string());
            self.verifier.verify(&token.text, &peer.certificate, time::now()).map_err(denied)?;
            connection.id = peer.id.to_string();
        }
        Ok(Response::new(connection))
    }

    async fn close(&self, _request: Request<Connection>) -> Result<Response<()>, Status> {
        Ok(Response::new(()))
    }
}

#[tonic::async_trait]
impl MonitorConnection for Echo {
    type MonitorConnectionsStream = BoxStream<'static, Result<ConnectionEvent, Status>>;

    /// One event at once, then one with each release.
    async fn monitor_connections(
        &self,
        _request: Request<MonitorScopeSelector>,
    ) -> Result<Response<Self::MonitorConnectionsStream>, Status> {
        let release = Arc::clone(&self.release);
        let later = stream::unfold(release, |release| async move {
            release.notified().await;
            Some((Ok(ConnectionEvent::default()), release))
        });
        Ok(Response::new(stream::once(async { Ok(ConnectionEvent::default()) }).chain(later).boxed()))
    }
}

impl Echo {
    async fn serve(&self, transport: &Transport, address: &Address) -> ServerHandle {
        self.serve_with(transport, address, ServeOptions::default()).await
    }

    async fn serve_with(&self, transport: &Transport, address: &Address, options: ServeOptions) -> ServerHandle {
        Server::new(transport.clone())
            .with(NetworkServiceServer::new(self.clone()))
            .with(MonitorConnectionServer::new(self.clone()))
            .with_options(options)
            .bind(std::slice::from_ref(address), &BindOptions::default())
            .await
            .unwrap()
    }
}

/// Asks once; the answer's id is who the server takes us for.
async fn ask(link: &Link, service: &str) -> Result<String, Status> {
    let connection = Connection { network_service: service.to_owned(), ..Connection::default() };
    let request = NetworkServiceRequest { connection: Some(connection), ..NetworkServiceRequest::default() };
    Ok(NetworkServiceClient::new(link.clone()).request(request).await?.into_inner().id)
}

async fn watch(link: &Link) -> Result<tonic::Streaming<ConnectionEvent>, Status> {
    let mut client = MonitorConnectionClient::new(link.clone());
    let mut events = client.monitor_connections(MonitorScopeSelector::default()).await?.into_inner();
    events.message().await?.ok_or_else(|| Status::internal("no first event"))?;
    Ok(events)
}

fn mtls(authority: &DevAuthority, path: &str) -> Transport {
    Transport::mtls(authority.issue(path).unwrap(), Duration::from_secs(600))
}

fn insecure() -> Transport {
    let id = SpiffeId::new("spiffe://test.com/subject").unwrap();
    Transport::insecure(Arc::new(HmacTokens::new(&id)))
}

fn channels(transport: &Transport) -> Channels {
    Channels::new(transport.clone(), DialOptions::default())
}

fn memory() -> Address {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    Address::Memory(format!("transport-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// A directory of its own below the system's one for temporary files, removed on drop.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("nsm-transport-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn socket(&self, name: &str) -> Address {
        Address::Unix(self.0.join(name))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn path(address: &Address) -> &std::path::Path {
    match address {
        Address::Unix(path) => path,
        other => panic!("{other} is no unix socket"),
    }
}

fn any_port() -> Address {
    "tcp://127.0.0.1:0".parse().unwrap()
}

#[tokio::test]
async fn both_ends_know_each_other_over_every_kind_of_socket() {
    let authority = DevAuthority::new("example.org").unwrap();
    let (client, server) = (mtls(&authority, "/client"), mtls(&authority, "/server"));
    let directory = Directory::new();
    for address in [directory.socket("deep/er/a.sock"), any_port(), memory()] {
        let handle = Echo::default().serve(&server, &address).await;
        let link = channels(&client).get(&handle.addresses()[0]).await.unwrap();
        assert_eq!(link.peer().unwrap().id.path(), "/server");
        assert_eq!(ask(&link, "").await.unwrap(), "spiffe://example.org/client");
        handle.shutdown().await;
    }
}

#[tokio::test]
async fn an_insecure_link_has_no_peer_but_carries_tokens() {
    let directory = Directory::new();
    for address in [directory.socket("a.sock"), any_port(), memory()] {
        let handle = Echo::default().serve(&insecure(), &address).await;
        let link = channels(&insecure()).get(&handle.addresses()[0]).await.unwrap();
        assert!(link.peer().is_none());
        assert_eq!(ask(&link, "").await.unwrap(), "");
    }
}

#[tokio::test]
async fn the_reported_end_of_a_token_is_bounded_by_the_peers_certificate() {
    let authority = DevAuthority::new("example.org").unwrap();
    let short = authority.sign("/server", Duration::from_secs(100)).unwrap();
    let end = short.not_after();
    let bundles = crate::identity::Bundles::clone(&authority.bundles());
    let server = Transport::mtls(Arc::new(crate::identity::FixedSvid::new(short, bundles)), Duration::from_secs(600));
    let address = memory();
    let _handle = Echo::default().serve(&server, &address).await;
    let link = channels(&mtls(&authority, "/client")).get(&address).await.unwrap();
    let token = link.token().unwrap();
    assert_eq!(token.expires, end);
    assert!(crate::identity::claims(&token.text).unwrap().expires().unwrap() > end);
}

#[tokio::test]
async fn an_answer_tells_whose_it_is() {
    let authority = DevAuthority::new("example.org").unwrap();
    let address = memory();
    let _handle = Echo::default().serve(&mtls(&authority, "/server"), &address).await;
    let link = channels(&mtls(&authority, "/client")).get(&address).await.unwrap();
    let response = NetworkServiceClient::new(link).request(NetworkServiceRequest::default()).await.unwrap();
    let info: &LinkInfo = response.extensions().get().unwrap();
    assert_eq!(info.peer.as_ref().unwrap().id.path(), "/server");
}

#[tokio::test]
async fn a_service_that_is_not_served_is_unimplemented() {
    use nsm_api::registry::network_service_endpoint_registry_client::NetworkServiceEndpointRegistryClient;
    let address = memory();
    let _handle = Echo::default().serve(&insecure(), &address).await;
    let link = channels(&insecure()).get(&address).await.unwrap();
    let mut client = NetworkServiceEndpointRegistryClient::new(link);
    let status = client.register(NetworkServiceEndpoint::default()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
}
