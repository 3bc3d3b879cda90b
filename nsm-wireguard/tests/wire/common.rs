//! What the tests share.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nsm_kernel::{Interface, InterfaceSpec, Netns, Underlay};
use nsm_wireguard::{Node, Peering, PrivateKey, Tunnel};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const PORT: u16 = 51_820;
pub(crate) const MTU: u32 = 1420;

/// Leaves the test, saying why past the harness, where interfaces cannot be made.
#[macro_export]
macro_rules! needs_tun {
    () => {
        if let Some(obstacle) = nsm_kernel::privileges().obstacle {
            $crate::common::skipped(&obstacle.to_string());
            return;
        }
        if let Err(error) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
            $crate::common::missing(&format!("/dev/net/tun cannot be opened: {error}"));
            return;
        }
    };
}

/// As `needs_tun`, and where Debian's programs are not installed.
#[macro_export]
macro_rules! needs_wireguard_go {
    () => {
        $crate::needs_tun!();
        let missing = $crate::common::missing_programs();
        if !missing.is_empty() {
            let packages = "apt-get install wireguard-go wireguard-tools iproute2";
            $crate::common::missing(&format!("{} not found: {packages}", missing.join(", ")));
            return;
        }
    };
}

pub(crate) fn missing_programs() -> Vec<&'static str> {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = |program: &str| path.split(':').any(|folder| fs::metadata(format!("{folder}/{program}")).is_ok());
    ["wireguard-go", "wg", "ip"].into_iter().filter(|program| !found(program)).collect()
}

/// Where everything must run it is a failure that something is not installed.
pub(crate) fn missing(what: &str) {
    assert!(std::env::var_os("NSM_INTEROP_REQUIRED").is_none(), "{what}");
    skipped(what);
}

pub(crate) fn skipped(why: &str) {
    use std::io::Write;
    let test = std::thread::current();
    let text = format!("SKIPPED {}: {why}\n", test.name().unwrap_or_default());
    io::stderr().write_all(text.as_bytes()).unwrap();
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Interface `nsm-1` with 10.9.0.1 and fd09::1, or `nsm-2` with ...2.
pub(crate) fn spec(number: usize) -> InterfaceSpec {
    InterfaceSpec::new(&format!("nsm-{number}"), "nsm:test")
        .unwrap()
        .with_mtu(MTU)
        .with_address(format!("10.9.0.{number}/24").parse().unwrap())
        .with_address(format!("fd09::{number}/64").parse().unwrap())
}

pub(crate) fn peering(private_key: &PrivateKey, peer: &PrivateKey, endpoint: SocketAddr) -> Peering {
    Peering { private_key: private_key.clone(), peer: peer.public_key(), endpoint, keepalive: None }
}

/// Two nodes, each with a workload.
pub(crate) struct Lab {
    pub(crate) underlay: Underlay,
    pub(crate) workloads: [Netns; 2],
    pub(crate) keys: [PrivateKey; 2],
}

impl Lab {
    pub(crate) async fn new(prefix: &str) -> Self {
        Self {
            underlay: Underlay::create(2, prefix.parse().unwrap()).await.unwrap(),
            workloads: [Netns::create().await.unwrap(), Netns::create().await.unwrap()],
            keys: [PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap()],
        }
    }

    pub(crate) fn place(&self, at: usize) -> &Netns {
        &self.underlay.nodes()[at].netns
    }

    pub(crate) fn socket(&self, at: usize) -> SocketAddr {
        (self.underlay.nodes()[at].ip(), PORT).into()
    }

    pub(crate) async fn bind(&self, at: usize) -> Node {
        Node::bind(self.place(at), self.socket(at)).await.unwrap()
    }

    pub(crate) fn peering(&self, at: usize) -> Peering {
        peering(&self.keys[at], &self.keys[1 - at], self.socket(1 - at))
    }

    pub(crate) async fn tunnel(&self, at: usize, node: &Node) -> (Interface, Tunnel) {
        node.create(&self.peering(at), (&self.workloads[at], &spec(at + 1))).await.unwrap()
    }
}

/// Sends a datagram from `from` (in `a`) to a socket on `to` (in `b`), which answers; checks both. What is lost is sent again:
/// a handshake may be under way.
pub(crate) async fn datagram_and_back(a: &Netns, from: &str, b: &Netns, to: &str, size: usize) {
    let server = b.udp_socket((ip(to), 0).into()).await.unwrap();
    let client = a.udp_socket((ip(from), 0).into()).await.unwrap();
    let sent: Vec<u8> = (0..size).map(|at| at as u8).collect();
    let mut buffer = vec![0; 65_536];
    let exchange = async {
        loop {
            client.send_to(&sent, server.local_addr().unwrap()).await.unwrap();
            let waited = tokio::time::timeout(Duration::from_millis(500), server.recv_from(&mut buffer)).await;
            let Ok(received) = waited else { continue };
            let (length, peer) = received.unwrap();
            assert_eq!((&buffer[..length], peer), (&sent[..], client.local_addr().unwrap()));
            server.send_to(&buffer[..length], peer).await.unwrap();
            let waited = tokio::time::timeout(Duration::from_millis(500), client.recv_from(&mut buffer)).await;
            let Ok(received) = waited else { continue };
            let (length, peer) = received.unwrap();
            assert_eq!((&buffer[..length], peer), (&sent[..], server.local_addr().unwrap()));
            return;
        }
    };
    tokio::time::timeout(PATIENCE, exchange).await.expect("packets flow");
}

/// Sends this many octets over TCP and has them compared.
pub(crate) async fn stream(a: &Netns, b: &Netns, to: &str, octets: usize) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = b.tcp_listener((ip(to), 0).into()).await.unwrap();
    let content: Vec<u8> = (0..octets).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect();
    let address = listener.local_addr().unwrap();
    let send = async {
        let mut client = a.tcp_connect(address).await.unwrap();
        client.write_all(&content).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let receive = async {
        let (mut server, _) = listener.accept().await.unwrap();
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.unwrap();
        received
    };
    let both = async { tokio::join!(send, receive).1 };
    let received = tokio::time::timeout(PATIENCE, both).await.expect("the stream flows");
    assert!(received == content, "{} of {octets} octets came", received.len());
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, mut is_it: impl AsyncFnMut() -> bool) {
    let begun = tokio::time::Instant::now();
    while !is_it().await {
        assert!(begun.elapsed() < PATIENCE, "not so: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A child that ends with this.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

pub(crate) async fn spawn(netns: &Netns, program: &'static str, arguments: &[&str]) -> Child {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let spawn = move || -> io::Result<Child> {
        Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    };
    netns.run(spawn).await.unwrap()
}

/// Runs a program to its end, which must be a good one.
pub(crate) async fn run(netns: &Netns, program: &'static str, arguments: &[&str]) -> String {
    let child = spawn(netns, program, arguments).await;
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap();
    let Output { status, stdout, stderr } = ended.unwrap();
    assert!(status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}
