//! A mesh over loopback and mutual TLS, and a caller that sends what no honest one does.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nsm_api::mechanism::KERNEL;
use nsm_api::{Connection, NetworkService};
use nsm_chain::{Node, elements};
use nsm_mechanisms::memory::Fabric;
use nsm_mechanisms::{CrossConnect, KernelAccept, Mechanisms};
use nsm_sdk::identity::{DevAuthority, SvidSource, TlsConfigs};
use nsm_sdk::roles::{EndpointRole, ForwarderRole, ManagerRole, RegistryRole, Running, Site, apply, client};
use nsm_sdk::stacks::Client;
use nsm_sdk::transport::Address;
use tokio::net::TcpStream;
use tonic::body::Body;

pub(crate) const SOON: Duration = Duration::from_secs(20);
/// On this node to its forwarder, as a unix socket is.
pub(crate) fn on_this_node() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("mem://authorization-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) const HERE: &str = "tcp://127.0.0.1:0";

/// Registry, manager and forwarder of one node.
pub(crate) struct Mesh {
    pub(crate) authority: DevAuthority,
    pub(crate) registry: Running,
    pub(crate) manager: Running,
    pub(crate) forwarder: Running,
}

impl Mesh {
    pub(crate) async fn start() -> Self {
        let authority = DevAuthority::new("example.org").unwrap();
        let site = |name: &str| Site::mtls(authority.issue(&format!("/{name}")).unwrap());
        let registry = RegistryRole::new("registry", site("registry")).listen_on(HERE).serve().await.unwrap();
        let manager = ManagerRole::new("nsmgr", site("nsmgr")).listen_on(HERE).registry(registry.url());
        let manager = manager.serve().await.unwrap();
        let wire = elements![CrossConnect::new(Fabric::new().forwarder("forwarder", None))];
        let forwarder = ForwarderRole::new("forwarder", site("forwarder"), manager.url(), wire).listen_on(HERE);
        let forwarder = forwarder.serve().await.unwrap();
        let vpn = NetworkService { name: "vpn".into(), payload: nsm_api::payload::IP.into(), ..Default::default() };
        apply(&site("operator"), &manager.url(), vpn).await.unwrap();
        Self { authority, registry, manager, forwarder }
    }

    pub(crate) fn site(&self, name: &str) -> Site {
        Site::mtls(self.authority.issue(&format!("/{name}")).unwrap())
    }

    pub(crate) async fn endpoint(&self, name: &str, elements: Vec<Node>) -> Running {
        let kernel = Mechanisms::new().with(KERNEL, KernelAccept::new()).unwrap();
        let mut all = elements![kernel];
        all.extend(elements);
        let endpoint = EndpointRole::new(name, self.site(name)).listen_on(on_this_node()).serves("vpn");
        endpoint.registers_at(self.manager.url()).with(all).serve().await.unwrap()
    }

    pub(crate) fn client(&self, name: &str) -> Client {
        client(name, &self.site(name), &self.manager.url()).build().unwrap()
    }
}

pub(crate) async fn ask(client: &Client, id: &str) -> Connection {
    client.request_url(&"kernel://vpn/nsm-1".parse().unwrap(), id, SOON).await.unwrap()
}

/// Waits for something that comes by itself.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("never came: {what}"));
}

/// HTTP/2 over mutual TLS, with nothing added to what the test sends. For generated clients.
#[derive(Clone)]
pub(crate) struct Raw(hyper::client::conn::http2::SendRequest<Body>);

impl Raw {
    pub(crate) async fn to(role: &Running, who: Arc<dyn SvidSource>) -> Self {
        let Some(Address::Tcp { host, port }) = role.addresses().first() else { panic!("{role} is not on TCP") };
        let tls = TlsConfigs::new(who).current().unwrap();
        let stream = TcpStream::connect((host.as_str(), *port)).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::clone(&tls.client)).connect(name, stream).await.unwrap();
        let http2 =
            hyper::client::conn::http2::Builder::new(TokioExecutor::new()).max_header_list_size(1 << 20).clone();
        let (sender, connection) = http2.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }
}

impl tower::Service<http::Request<Body>> for Raw {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, hyper::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let mut uri = std::mem::take(request.uri_mut()).into_parts();
        uri.scheme = Some(http::uri::Scheme::HTTPS);
        uri.authority = Some(http::uri::Authority::from_static("localhost"));
        *request.uri_mut() = http::Uri::from_parts(uri).unwrap();
        self.0.send_request(request).boxed()
    }
}

/// What is logged, at the level an operator sees, by tasks of this thread as long as the guard lives.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_ansi(false)
            .with_writer(move || log.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    /// What has been logged since the last look.
    pub(crate) fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
