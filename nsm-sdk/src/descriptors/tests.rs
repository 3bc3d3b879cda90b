//! Chains on both sides of real unix sockets, with mutual TLS.

use std::io::{PipeReader, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use nsm_api::mechanism::{KERNEL, keys};
use nsm_api::networkservice::network_service_server::NetworkServiceServer;
use nsm_api::{Connection, Mechanism};
use nsm_chain::{
    Begin, Call, Chain, Code, Congested, Descriptors, Element, Error, FileId, LinkInfo, Next, Node, Order, Result,
    elements, grpc,
};

use super::*;
use crate::connect::Connect;
use crate::identity::DevAuthority;
use crate::transport::{Address, BindOptions, Channels, DialOptions, Server, ServerHandle, Transport};

/// A file that tells when nobody has it any more: the writing end of a pipe.
struct Probe {
    reader: PipeReader,
    file: Mutex<Option<OwnedFd>>,
}

impl Probe {
    fn new() -> Self {
        let (reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        Self { reader, file: Mutex::new(Some(writer.into())) }
    }

    fn url(&self) -> String {
        let file = self.file.lock().unwrap();
        format!("file:///proc/{}/fd/{}", std::process::id(), file.as_ref().unwrap().as_raw_fd())
    }

    fn id(&self) -> FileId {
        open(Path::new(self.url().strip_prefix("file://").unwrap())).unwrap().0
    }

    fn mechanism(&self) -> Mechanism {
        let mut mechanism = Mechanism::kernel();
        mechanism.set_parameter(keys::INODE_URL, self.url());
        mechanism
    }

    /// Waits until nobody but us, and then nobody, has it.
    async fn is_released(&self) {
        self.file.lock().unwrap().take();
        let released = async {
            while !matches!((&mut &self.reader).read(&mut [0]), Ok(0)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), released).await.expect("everybody has let go of it");
    }
}

/// The end of a chain: notes what it was asked for, chooses the first preference, answers or fails as it is told.
#[derive(Default)]
struct End {
    seen: Mutex<Vec<(FileId, String)>>,
    fails: Mutex<bool>,
    answers: Mutex<Option<Mechanism>>,
    prefers: Mutex<usize>,
}

impl End {
    fn paths(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|(_, path)| path.clone()).collect()
    }

    fn files(&self) -> Vec<FileId> {
        self.seen.lock().unwrap().iter().map(|(id, _)| *id).collect()
    }
}

impl Element for End {
    async fn request(&self, mut call: Call, _next: Next<'_>) -> Result<Call> {
        let chosen = call.connection().mechanism.clone();
        let chosen = chosen.unwrap_or_else(|| call.preferences()[*self.prefers.lock().unwrap()].clone());
        if let Some(path) = chosen.parameter(keys::INODE_URL).and_then(|url| url.strip_prefix("file://")) {
            let (id, _) = open(Path::new(path)).map_err(|error| Error::internal("not there").because(error))?;
            self.seen.lock().unwrap().push((id, path.to_owned()));
        }
        if *self.fails.lock().unwrap() {
            return Err(Error::unavailable("told to fail"));
        }
        call.connection_mut().mechanism = Some(self.answers.lock().unwrap().clone().unwrap_or(chosen));
        Ok(call)
    }

    fn order(&self) -> Order {
        Order::LAST
    }
}

/// Hops on sockets in a directory of their own.
struct Hops {
    directory: PathBuf,
    authority: DevAuthority,
    servers: Vec<ServerHandle>,
}

impl Hops {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("nsm-fds-{}-{name}", std::process::id()));
        Self { directory, authority: DevAuthority::new("example.org").unwrap(), servers: Vec::new() }
    }

    fn transport(&self, name: &str) -> Transport {
        Transport::mtls(self.authority.issue(&format!("/{name}")).unwrap(), Duration::from_secs(60))
    }

    fn channels(&self, name: &str) -> Arc<Channels> {
        Arc::new(Channels::new(self.transport(name), DialOptions::default()))
    }

    /// Serves these elements behind `Begin`; says where.
    async fn serve(&mut self, name: &str, address: &str, elements: Vec<Node>) -> String {
        let mut list = elements![Begin::default()];
        list.extend(elements);
        let chain = grpc::Server::new(Chain::new(name, list).unwrap());
        let server = Server::new(self.transport(name)).with(NetworkServiceServer::new(chain));
        let address: Address = address.parse().unwrap();
        let server = server.bind(&[address], &BindOptions::default()).await.unwrap();
        let url = server.addresses()[0].to_string();
        self.servers.push(server);
        url
    }

    fn socket(&self, name: &str) -> String {
        format!("unix://{}/{name}.sock", self.directory.display())
    }

    fn client(&self, url: &str) -> Chain {
        let connect = Connect::new(self.channels("nsc")).to(url);
        Chain::new("nsc", elements![Begin::initiator(), SendFd::to(url), connect]).unwrap()
    }
}

impl Drop for Hops {
    fn drop(&mut self) {
        self.servers.clear();
        let _best_effort = std::fs::remove_dir_all(&self.directory);
    }
}

fn asked(preferences: Vec<Mechanism>) -> Call {
    let connection = Connection { id: "c-1".into(), ..Default::default() };
    Call::request(connection, preferences).within(Duration::from_secs(20))
}

async fn endpoint(name: &str) -> (Hops, Arc<End>, String) {
    let (mut hops, end) = (Hops::new(name), Arc::new(End::default()));
    let socket = hops.socket("nse");
    let url = hops.serve("nse", &socket, elements![RecvFd::new(), Arc::clone(&end)]).await;
    (hops, end, url)
}

fn url(mechanism: &Mechanism) -> &str {
    mechanism.parameter(keys::INODE_URL).unwrap()
}

#[tokio::test]
async fn the_next_hop_gets_the_file_and_the_caller_its_own_names_back() {
    let (hops, end, server) = endpoint("there-and-back").await;
    let (client, probe) = (hops.client(&server), Probe::new());
    for _ in 0..3 {
        let call = client.request(asked(vec![probe.mechanism()])).await.unwrap();
        assert_eq!(call.connection().mechanism, Some(probe.mechanism()));
        assert_eq!(call.preferences(), [probe.mechanism()]);
    }
    let paths = end.paths();
    assert_eq!(end.files(), [probe.id(); 3]);
    assert!(paths[0] == paths[1] && paths[1] == paths[2], "{paths:?}");
    assert_ne!(format!("file://{}", paths[0]), probe.url());

    client.close(asked(vec![])).await.unwrap();
    probe.is_released().await;
}

#[tokio::test]
async fn a_failed_refresh_keeps_the_file_and_a_failed_first_request_does_not() {
    let (hops, end, server) = endpoint("failures").await;
    let (client, probe, other) = (hops.client(&server), Probe::new(), Probe::new());
    client.request(asked(vec![probe.mechanism()])).await.unwrap();
    let path = end.paths()[0].clone();
    *end.fails.lock().unwrap() = true;
    client.request(asked(vec![])).await.unwrap_err();
    assert_eq!(open(Path::new(&path)).unwrap().0, probe.id());

    let mut first = asked(vec![other.mechanism()]);
    first.connection_mut().id = "c-2".into();
    assert_eq!(client.request(first).await.unwrap_err().code(), Code::Unavailable);
    other.is_released().await;
    client.close(asked(vec![])).await.unwrap();
    probe.is_released().await;
}

#[tokio::test]
async fn what_was_not_chosen_is_closed() {
    let (hops, end, server) = endpoint("unselected").await;
    let (client, probes) = (hops.client(&server), [Probe::new(), Probe::new(), Probe::new()]);
    *end.prefers.lock().unwrap() = 1;
    let preferences = probes.iter().map(Probe::mechanism).collect();
    let call = client.request(asked(preferences)).await.unwrap();
    assert_eq!(call.connection().mechanism, Some(probes[1].mechanism()));
    probes[0].is_released().await;
    probes[2].is_released().await;
    let path = end.paths()[0].clone();
    assert_eq!(open(Path::new(&path)).unwrap().0, probes[1].id());
}

#[tokio::test]
async fn a_file_of_the_next_hop_comes_with_its_answer() {
    let (hops, end, server) = endpoint("answer").await;
    let (client, probe) = (hops.client(&server), Probe::new());
    *end.answers.lock().unwrap() = Some(probe.mechanism());
    let mut paths = Vec::new();
    for _ in 0..3 {
        let call = client.request(asked(vec![Mechanism::kernel()])).await.unwrap();
        let path = url(call.connection().mechanism.as_ref().unwrap()).to_owned();
        assert_ne!(path, probe.url());
        assert_eq!(open(Path::new(path.strip_prefix("file://").unwrap())).unwrap().0, probe.id());
        paths.push(path);
    }
    assert!(paths[0] == paths[1] && paths[1] == paths[2], "{paths:?}");
    client.close(asked(vec![])).await.unwrap();
    probe.is_released().await;
}

#[tokio::test]
async fn a_next_hop_that_was_restarted_is_sent_the_file_again() {
    let (mut hops, _, server) = endpoint("restarted").await;
    let (client, probe) = (hops.client(&server), Probe::new());
    client.request(asked(vec![probe.mechanism()])).await.unwrap();
    hops.servers.remove(0).shutdown().await;
    let end = Arc::new(End::default());
    hops.serve("nse", &server, elements![RecvFd::new(), Arc::clone(&end)]).await;
    // On a connection of its own, of which nothing is known yet.
    client.request(asked(vec![])).await.unwrap();
    assert_eq!(end.files(), [probe.id()]);
    client.close(asked(vec![])).await.unwrap();
    probe.is_released().await;
}

/// Asks what follows once for each URL, on clones, until one accepts: as a manager does with forwarders.
struct Each(Vec<String>);

impl Element for Each {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let mut causes = Vec::new();
        for url in &self.0 {
            let mut attempt = call.clone();
            attempt.set_fact(nsm_chain::NextHop(url.as_str().into()));
            match next.request(attempt).await {
                Ok(call) => return Ok(call),
                Err(error) => causes.push(error),
            }
        }
        Err(Error::all_failed("none", causes))
    }
}

#[tokio::test]
async fn when_the_first_forwarder_fails_the_second_gets_the_file_too() {
    let mut hops = Hops::new("candidates");
    let forwarders = [Arc::new(End::default()), Arc::new(End::default())];
    *forwarders[0].fails.lock().unwrap() = true;
    let mut urls = Vec::new();
    for (at, end) in forwarders.iter().enumerate() {
        let socket = hops.socket(&format!("forwarder-{at}"));
        urls.push(hops.serve("forwarder", &socket, elements![RecvFd::new(), Arc::clone(end)]).await);
    }
    let onward = elements![RecvFd::new(), Each(urls), SendFd::new(), Connect::new(hops.channels("nsmgr"))];
    let socket = hops.socket("nsmgr");
    let manager = hops.serve("nsmgr", &socket, onward).await;
    let (client, probe) = (hops.client(&manager), Probe::new());
    let call = client.request(asked(vec![probe.mechanism()])).await.unwrap();
    assert_eq!(call.connection().mechanism, Some(probe.mechanism()));
    assert_eq!([forwarders[0].files(), forwarders[1].files()], [[probe.id()], [probe.id()]]);
    client.close(asked(vec![])).await.unwrap();
    probe.is_released().await;
}

#[tokio::test]
async fn a_path_from_another_process_is_refused_in_both_directions() {
    let (mut hops, end, server) = endpoint("paths").await;
    let probe = Probe::new();
    let connect = Connect::new(hops.channels("nsc")).to(&*server);
    let bare = Chain::new("nsc", elements![Begin::initiator(), connect]).unwrap();
    let error = bare.request(asked(vec![probe.mechanism()])).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.to_string().contains("SendFd"), "{error}");
    assert!(end.files().is_empty());

    // One that answers with a path of its own, or somebody's.
    let end = Arc::new(End::default());
    *end.answers.lock().unwrap() = Some(probe.mechanism());
    let socket = hops.socket("bare");
    let server = hops.serve("bare", &socket, elements![end]).await;
    let error = hops.client(&server).request(asked(vec![Mechanism::kernel()])).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn over_tcp_no_file_is_named() {
    let mut hops = Hops::new("tcp");
    let end = Arc::new(End::default());
    let url = hops.serve("nse", "tcp://127.0.0.1:0", elements![RecvFd::new(), Arc::clone(&end)]).await;
    let error = hops.client(&url).request(asked(vec![Probe::new().mechanism()])).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let mut inode = Mechanism::kernel();
    inode.set_parameter(keys::INODE_URL, "inode://4/7");
    let error = hops.client(&url).request(asked(vec![inode])).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.to_string().contains("unix sockets only"), "{error}");
}

/// A link on which nothing ever comes.
#[derive(Debug)]
struct Silent;

impl Descriptors for Silent {
    fn send(&self, _files: &[Arc<OwnedFd>]) -> Result<(), Congested> {
        Ok(())
    }

    fn take(&self, _file: FileId) -> Option<Arc<OwnedFd>> {
        None
    }

    fn release(self: Arc<Self>, _file: FileId) {}

    fn receive(&self, _file: FileId) -> futures::future::BoxFuture<'_, Option<Arc<OwnedFd>>> {
        Box::pin(std::future::pending())
    }
}

fn unsent(count: u64) -> Call {
    let mechanism = |inode: u64| {
        let mut mechanism = Mechanism::new("LOCAL", KERNEL);
        mechanism.set_parameter(keys::INODE_URL, format!("inode://4/{inode}"));
        mechanism
    };
    let mut call = asked((0..count).map(mechanism).collect());
    call.set_fact(LinkInfo { descriptors: Some(Arc::new(Silent)), ..Default::default() });
    call
}

#[tokio::test(start_paused = true)]
async fn a_descriptor_that_never_arrives_is_an_error_that_says_so() {
    let end = Arc::new(End::default());
    let chain = Chain::new("nse", elements![Begin::default(), RecvFd::new(), Arc::clone(&end)]).unwrap();
    let error = chain.request(unsent(1)).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.is_caused_by::<NeverArrived>());
    assert!(error.to_string().contains("inode://4/0") && error.to_string().contains("grpcfd"), "{error}");
    // However many are named, and however short the caller's patience.
    let started = tokio::time::Instant::now();
    let error = chain.request(unsent(5000).within(Duration::from_secs(2))).await.unwrap_err();
    assert_eq!((error.code(), started.elapsed().as_secs()), (Code::DeadlineExceeded, 2));
    assert!(end.files().is_empty());
}
