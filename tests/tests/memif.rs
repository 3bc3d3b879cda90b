//! Packets by shared memory from a client to its endpoint, through a manager and a forwarder, all on real sockets: only
//! descriptors lead from one to the next.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nsm_api::mechanism::MEMIF;
use nsm_api::{Connection, NetworkService, payload};
use nsm_chain::{Call, elements};
use nsm_mechanisms::memory::{Fabric, Memory};
use nsm_mechanisms::{CrossConnect, Mechanisms, MemifAccept, MemifOffer, PacketProcessor, WithMemif};
use nsm_memif::Memif;
use nsm_sdk::identity::HmacTokens;
use nsm_sdk::registry::stacks::RegistryClient;
use nsm_sdk::roles::{self, EndpointRole, ForwarderRole, ManagerRole, Running, Site};
use nsm_sdk::transport::Transport;
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(60);

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_dir_all(&self.0);
    }
}

fn socket(directory: &Path, name: &str) -> String {
    format!("unix://{}/{name}.sock", directory.display())
}

fn site(name: &str) -> Site {
    let id = format!("spiffe://example.org/{name}").parse().unwrap();
    Site::over(Transport::insecure(Arc::new(HmacTokens::new(&id))))
}

/// An endpoint that sends back what it gets, behind its name.
async fn endpoint(directory: &Path, name: &'static str) -> Running {
    let answer = move |mut memif: Memif, _connection: Arc<Connection>| async move {
        while memif.ready().await.is_ok() {
            let mut answers = Vec::new();
            let _closed = memif.recv_burst(64, |packet| answers.push([name.as_bytes(), packet].concat()));
            let _closed = memif.send_burst(answers);
        }
    };
    let memif = Mechanisms::new().with(MEMIF, MemifAccept::new(answer).in_directory(directory)).unwrap();
    EndpointRole::new(name, site(name))
        .listen_on(socket(directory, name))
        .registers_at(socket(directory, "nsmgr"))
        .serves("firewall")
        .with(elements![memif])
        .serve()
        .await
        .unwrap()
}

async fn forwarder(directory: &Path) -> (Running, WithMemif<Memory>) {
    let dataplane = WithMemif::over(Fabric::new().forwarder("forwarder", None));
    let wire = elements![CrossConnect::new(dataplane.clone())];
    let role = ForwarderRole::new("forwarder", site("forwarder"), socket(directory, "nsmgr"), wire);
    (role.listen_on(socket(directory, "forwarder")).serve().await.unwrap(), dataplane)
}

/// Hands over each interface as it comes up, and keeps it until it is closed.
fn hands_over(to: mpsc::UnboundedSender<Memif>) -> impl PacketProcessor {
    move |memif: Memif, _connection: Arc<Connection>| {
        let to = to.clone();
        async move {
            let (closed, closes) = tokio::sync::oneshot::channel::<()>();
            let closer = memif.closer();
            let _nobody_listens = to.send(memif);
            // Nothing to do meanwhile: whoever has it works on it.
            let _kept = (closed, closer);
            let _never = closes.await;
        }
    }
}

/// Sends a packet, and gives the answer.
async fn answer(memif: &mut Memif, packet: &[u8]) -> Vec<u8> {
    let asking = async {
        assert_eq!(memif.send_burst([packet]).unwrap(), 1);
        memif.ready().await.unwrap();
        let mut answer = Vec::new();
        memif.recv_burst(8, |packet| answer.extend_from_slice(packet)).unwrap();
        answer
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("an answer comes")
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never came: {what}"));
}

/// How many files of memif's kind this process has: memory, in both of its ends.
fn memories() -> usize {
    let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let open = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    open.filter(|to| to.to_string_lossy().contains("memfd:memif")).count() + maps.matches("memfd:memif").count()
}

/// Sockets of memif's in the endpoints' directories.
fn sockets(directory: &Path) -> usize {
    let list = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let private = list(directory).filter(|path| path.to_string_lossy().contains("nsm-memif-"));
    private.map(|path| list(&path).count()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_of_a_client_reach_its_endpoint_by_shared_memory_and_find_the_next_one_when_it_goes() {
    let directory = Directory(std::env::temp_dir().join(format!("nsm-tests-memif-{}", std::process::id())));
    std::fs::create_dir_all(&directory.0).unwrap();
    let url = |name: &str| socket(&directory.0, name);
    let manager = ManagerRole::new("nsmgr", site("nsmgr")).listen_on(url("nsmgr")).serve().await.unwrap();
    let (forwarder, dataplane) = forwarder(&directory.0).await;
    let registry =
        RegistryClient::builder("operator").connect(site("operator").channels(), url("nsmgr")).build().unwrap();
    let service = NetworkService { name: "firewall".into(), payload: payload::ETHERNET.into(), ..Default::default() };
    registry.services.request(Call::new(service)).await.unwrap();
    let first = endpoint(&directory.0, "nse-1").await;

    let (to, mut interfaces) = mpsc::unbounded_channel();
    let client = roles::client("nsc", &site("nsc"), &url("nsmgr"));
    let client = client.with(elements![MemifOffer::new(hands_over(to))]).build().unwrap();
    let memif = "memif://firewall".parse().unwrap();
    let connection = client.request_url(&memif, "c-1", PATIENCE).await.unwrap();
    assert!(connection.mechanism.as_ref().unwrap().is(MEMIF));
    let mut interface = interfaces.recv().await.unwrap();
    let long = vec![7; 9000];
    assert_eq!(answer(&mut interface, &long).await, [&b"nse-1"[..], &long].concat());
    assert_eq!((dataplane.wires(), sockets(&directory.0)), (1, 1));

    // Asked for again, nothing changes: the same interface, still up.
    client.request_url(&memif, "c-1", PATIENCE).await.unwrap();
    assert_eq!(answer(&mut interface, b" again").await, b"nse-1 again");
    assert!(interfaces.try_recv().is_err());

    // The forwarder crashes, and knows nothing of before when it starts anew. Packets flow on by the same memory.
    drop(forwarder);
    assert_eq!(answer(&mut interface, b" without").await, b"nse-1 without");
    let (forwarder, dataplane) = self::forwarder(&directory.0).await;
    until("the wire is known again", || dataplane.wires() == 1).await;
    assert_eq!(answer(&mut interface, b" still").await, b"nse-1 still");
    assert!(interfaces.try_recv().is_err());

    // The endpoint goes, and there is another one.
    let second = endpoint(&directory.0, "nse-2").await;
    first.shutdown().await.unwrap();
    let mut next = tokio::time::timeout(PATIENCE, interfaces.recv()).await.expect("it is healed").unwrap();
    assert_eq!(answer(&mut next, b" now").await, b"nse-2 now");
    drop(interface);

    let connection = client.session("c-1").unwrap().current();
    client.close(Connection::clone(&connection), PATIENCE).await.unwrap();
    let closed = tokio::time::timeout(PATIENCE, next.closed()).await.expect("it is closed");
    assert_eq!(closed, nsm_memif::Closed::ByUs);
    drop(next);
    until("no wire, no socket and no memory is left", || {
        (dataplane.wires(), sockets(&directory.0), memories()) == (0, 0, 0)
    })
    .await;

    client.shutdown(PATIENCE).await.unwrap();
    for role in [second, forwarder, manager] {
        role.shutdown().await.unwrap();
    }
}
