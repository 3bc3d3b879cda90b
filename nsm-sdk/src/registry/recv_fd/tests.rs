use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nsm_api::registry::network_service_endpoint_registry_server::NetworkServiceEndpointRegistryServer;
use nsm_chain::{Begin, Chain, Code, Congested, Descriptors, FileId, Node, OwnedNext, Record, from_fn, grpc};

use super::*;
use crate::identity::{HmacTokens, PolicySet};
use crate::registry::stacks::{Admission, ManagerRegistry, RegistryClient};
use crate::registry::{Cache, LocalBypass, Memory};
use crate::transport::{Address, BindOptions, Channels, DialOptions, Server, ServerHandle, Transport};

/// A manager's registry and an endpoint on sockets, in a directory that goes with the test.
struct Site {
    directory: PathBuf,
    manager: String,
    servers: Vec<ServerHandle>,
}

fn transport(name: &str) -> Transport {
    Transport::insecure(Arc::new(HmacTokens::new(&format!("spiffe://example.org/{name}").parse().unwrap())))
}

fn channels(name: &str) -> Arc<Channels> {
    Arc::new(Channels::new(transport(name), DialOptions::default()))
}

impl Site {
    async fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("nsm-sockets-{}-{name}", std::process::id()));
        let mut site = Self { directory, manager: String::new(), servers: Vec::new() };
        let admission = Admission::by(transport("nsmgr").tokens()).policies(PolicySet::allow_all());
        let registry = ManagerRegistry::builder("nsmgr", "tcp://nsmgr:5001", admission).build().unwrap();
        site.manager = site.serve("nsmgr", registry.endpoints).await;
        site
    }

    async fn serve(&mut self, name: &str, chain: Chain<Endpoints>) -> String {
        let address = format!("unix://{}/{name}.sock", self.directory.display());
        let service = NetworkServiceEndpointRegistryServer::new(grpc::Server::new(chain));
        let server = Server::new(transport(name)).with(service);
        self.servers.push(server.bind(&[address.parse().unwrap()], &BindOptions::default()).await.unwrap());
        address
    }

    /// Moves a socket away from where its endpoint believes it to be: as it is for everybody in another mount namespace.
    fn hide(&self, name: &str) {
        let path = self.directory.join(format!("{name}.sock"));
        std::fs::rename(&path, path.with_extension("hidden")).unwrap();
    }

    fn client(&self, name: &str) -> RegistryClient {
        RegistryClient::builder(name)
            .before_endpoints(Node::new(Cache::default()))
            .connect(channels(name), self.manager.as_str())
            .build()
            .unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.servers.clear();
        let _best_effort = std::fs::remove_dir_all(&self.directory);
    }
}

fn nse(name: &str, url: &str) -> Call<Endpoints> {
    let record = NetworkServiceEndpoint { name: name.into(), url: url.into(), ..Default::default() };
    Call::new(record).within(Duration::from_secs(10))
}

async fn found(client: &RegistryClient, name: &str) -> Option<String> {
    client.finder().endpoint(name).await.ok().map(|endpoint| endpoint.url.clone())
}

#[tokio::test]
async fn an_endpoint_is_reached_by_its_descriptor_wherever_its_socket_is() {
    let mut site = Site::new("reached").await;
    let url = site.serve("nse", Chain::new("nse", vec![]).unwrap()).await;
    let (endpoint, forwarder) = (site.client("nse"), site.client("forwarder"));
    let answer = endpoint.endpoints.request(nse("nse", &url)).await.unwrap();
    assert_eq!(answer.body().url, url);
    site.hide("nse");
    let error = channels("x").get(&url.parse().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("nothing is at"), "{error}");

    let by_inode = found(&forwarder, "nse").await.unwrap();
    let address: Address = by_inode.parse().unwrap();
    assert!(matches!(address, Address::Held(_)), "{by_inode}");
    channels("forwarder").get(&address).await.unwrap();

    // Gone with the registration, for the manager and whoever found it.
    endpoint.endpoints.close(nse("nse", &url)).await.unwrap();
    let gone = async {
        while channels("late").get(&address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.expect("nobody holds it");
    assert_eq!(found(&forwarder, "nse").await, None);
}

#[tokio::test]
async fn a_socket_registered_by_path_is_found_by_path_and_not_opened_for_others() {
    let site = Site::new("by-path").await;
    // A client without SendFd; the path may be anything.
    let links = channels("nse");
    let connect = crate::connect::Connect::new(links as Arc<dyn crate::connect::Links<Endpoints>>).to(&*site.manager);
    let bare = Chain::new("nse", vec![Node::new(connect)]).unwrap();
    bare.request(nse("nse", "unix:///etc/passwd")).await.unwrap();
    assert_eq!(found(&site.client("forwarder"), "nse").await.as_deref(), Some("unix:///etc/passwd"));
    // Nor does an inode that was not sent lead anywhere.
    let passwd = crate::descriptors::open(std::path::Path::new("/etc/passwd")).unwrap().0;
    let call = nse("nse-2", &passwd.to_string()).within(Duration::from_millis(200));
    assert_eq!(bare.request(call).await.unwrap_err().code(), Code::DeadlineExceeded);
}

/// A link on which one descriptor came.
#[derive(Debug)]
struct Given(Mutex<Option<(FileId, Arc<OwnedFd>)>>);

impl Descriptors for Given {
    fn send(&self, _files: &[Arc<OwnedFd>]) -> Result<(), Congested> {
        Ok(())
    }

    fn take(&self, file: FileId) -> Option<Arc<OwnedFd>> {
        self.0.lock().unwrap().take_if(|(id, _)| *id == file).map(|(_, file)| file)
    }

    fn release(self: Arc<Self>, file: FileId) {
        drop(self.take(file));
    }

    fn receive(&self, file: FileId) -> future::BoxFuture<'_, Option<Arc<OwnedFd>>> {
        Box::pin(std::future::ready(self.take(file)))
    }
}

/// A Register with the descriptor of a new socket beside it.
fn given() -> (FileId, Call<Endpoints>) {
    let file: OwnedFd = std::os::unix::net::UnixDatagram::unbound().unwrap().into();
    let stat = rustix::fs::fstat(&file).unwrap();
    let id = FileId { device: stat.st_dev, inode: stat.st_ino };
    let port = Given(Mutex::new(Some((id, Arc::new(file)))));
    let mut call = nse("nse", &id.to_string());
    call.set_fact(LinkInfo { descriptors: Some(Arc::new(port)), ..Default::default() });
    (id, call)
}

#[tokio::test]
async fn a_register_that_fails_keeps_the_socket_that_was_there() {
    let fails = Arc::new(AtomicBool::new(false));
    let failing = Arc::clone(&fails);
    let may_fail = from_fn(move |call: Call<Endpoints>, next: OwnedNext<Endpoints>| {
        let fails = failing.load(Ordering::SeqCst);
        async move { if fails { Err(Error::unavailable("told to")) } else { next.request(call).await } }
    });
    let list = vec![
        Node::new(Begin::default()),
        Node::new(RecvFd::new()),
        Node::new(may_fail),
        Node::new(LocalBypass::new("tcp://nsmgr:5001")),
        Node::new(Memory::default()),
    ];
    let chain = Chain::new("nsmgr", list).unwrap();
    let is_held = |id: FileId| HeldSocket::get(id).is_some();

    let (one, call) = given();
    chain.request(call).await.unwrap();
    fails.store(true, Ordering::SeqCst);
    let (refused, call) = given();
    chain.request(call).await.unwrap_err();
    assert!(is_held(one) && !is_held(refused));
    fails.store(false, Ordering::SeqCst);
    let (other, call) = given();
    chain.request(call).await.unwrap();
    assert!(!is_held(one) && is_held(other));

    // It goes to who finds the endpoint; without a way to send it, the endpoint is not found.
    let find = async |call: &Call<Endpoints>| -> Vec<_> {
        let all = NetworkServiceEndpoint::query(NetworkServiceEndpoint::default(), false);
        let watch = Watch { link: call.fact::<LinkInfo>().cloned(), ..Watch::new(all) };
        chain.monitor(watch).await.unwrap().map(|change| change.unwrap().record.url.clone()).collect().await
    };
    assert_eq!(find(&given().1).await, [other.to_string()]);
    let mut over_tcp = nse("nse", "");
    over_tcp.set_fact(LinkInfo::default());
    assert!(find(&over_tcp).await.is_empty());

    chain.close(nse("nse", &other.to_string())).await.unwrap();
    assert!(!is_held(other));
}
