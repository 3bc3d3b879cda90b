//! DPDK as the peer: `dpdk-testpmd` with its `net_memif` driver, which sends back what it gets.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nsm_memif::{Address, Closed, Config, Error, Memif, Server};

use crate::common::{Directory, frame, soon};

/// Without the program a test fails where this is set, and says that it was skipped elsewhere.
const REQUIRED: &str = "NSM_MEMIF_PEER_REQUIRED";

/// A testpmd that runs, and what it says. Ended with this.
struct Testpmd {
    child: Child,
    log: std::path::PathBuf,
}

/// One of its ports.
fn port(role: &str, id: u32, socket: &str) -> String {
    format!("--vdev=net_memif{id},role={role},id={id},{socket},rsize=8,secret=hush")
}

fn at(file: &Path) -> String {
    format!("socket={},socket-abstract=no", file.display())
}

impl Testpmd {
    /// Starts it with these ports. `None`, and a word about it, if it is not there and need not be.
    fn start(directory: &Directory, forward: &str, ports: &[String]) -> Option<Self> {
        let log = directory.file().with_extension("log");
        let log_file = File::create(&log).unwrap();
        let mut command = Command::new("dpdk-testpmd");
        command.args(["--no-huge", "-m", "128", "--no-pci", "--no-telemetry", "--no-shconf"]);
        // Two threads on one core: one only waits for the end.
        command.args(["--lcores", "0@0,1@0"]).args(ports).arg("--");
        command.arg(format!("--forward-mode={forward}"));
        command.args(["--auto-start", "--no-flush-rx", "--total-num-mbufs=2048", "--port-topology=loop"]);
        // It runs until it can read something.
        command.stdin(Stdio::piped()).stdout(log_file.try_clone().unwrap()).stderr(log_file);
        command.current_dir(log.parent().unwrap()).env("RUNTIME_DIRECTORY", log.parent().unwrap());
        match command.spawn() {
            Ok(child) => Some(Self { child, log }),
            Err(error) => {
                let missing = format!("dpdk-testpmd cannot be started ({error}); install Debian's package dpdk-dev");
                assert!(std::env::var_os(REQUIRED).is_none(), "{missing}");
                println!("SKIPPED: {missing}");
                None
            }
        }
    }

    /// Waits until its ports are there. Whoever connects before disturbs it: sometimes it never answers then.
    async fn has_started(&self) {
        let started = async {
            while !self.said().contains("Checking link statuses") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon(started).await;
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _ended_by_itself = self.child.kill();
        let _no_zombie = self.child.wait();
        if std::thread::panicking() {
            eprintln!("testpmd said:\n{}", self.said());
        }
    }
}

fn config(id: u32) -> Config {
    Config::new(id).ring_size(256).unwrap().secret("hush").unwrap()
}

/// Connects once it has noticed that the client before is gone; until then it closes, with a word or without.
async fn connected(address: &Address) -> Memif {
    let connecting = async {
        loop {
            match Memif::connect(address, &config(0)).await {
                Ok(memif) => return memif,
                Err(Error::Refused { .. } | Error::Closed(Closed::PeerGone)) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    soon(connecting).await
}

/// Sends these, also to a client that has not given buffers yet.
async fn sent_all(memif: &mut Memif, mut frames: &[Vec<u8>]) {
    let sending = async {
        while !frames.is_empty() {
            frames = &frames[memif.send_burst(frames).unwrap()..];
            tokio::task::yield_now().await;
        }
    };
    soon(sending).await;
}

/// Sends frames of many lengths in bursts; all come back as `expected` says, in order.
async fn looped(memif: &mut Memif, expected: impl Fn(Vec<u8>) -> Vec<u8>) {
    let lengths: Vec<usize> = (60..1500).step_by(7).chain([2048, 64, 1514]).collect();
    for (round, burst) in lengths.chunks(32).enumerate().cycle().take(60) {
        let seeds = round as u64 * 32..;
        let frames: Vec<_> = burst.iter().zip(seeds).map(|(length, seed)| frame(*length, seed)).collect();
        sent_all(memif, &frames).await;
        let mut got = Vec::new();
        while got.len() < frames.len() {
            soon(memif.ready()).await.unwrap();
            memif.recv_burst(64, |packet| got.push(packet.to_vec())).unwrap();
        }
        for (got, sent) in got.into_iter().zip(frames) {
            assert_eq!(got, expected(sent));
        }
    }
}

/// What testpmd makes of a frame in its mode macswap.
fn with_addresses_swapped(mut frame: Vec<u8>) -> Vec<u8> {
    let (first, rest) = frame.split_at_mut(6);
    first.swap_with_slice(&mut rest[..6]);
    frame
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_here_serves_dpdk_as_a_client() {
    let directory = Directory::new("dpdk-client");
    let server = Server::bind(&directory.address()).unwrap();
    let mut lan = server.open(config(0)).unwrap();
    let Some(testpmd) = Testpmd::start(&directory, "macswap", &[port("client", 0, &at(&directory.file()))]) else {
        return;
    };
    let mut memif = soon(lan.accept()).await.unwrap();
    assert!(memif.peer().program.contains("DPDK"), "{:?}", memif.peer());
    looped(&mut memif, with_addresses_swapped).await;
    // It is killed while the interface is up.
    drop(testpmd);
    assert_eq!(soon(memif.closed()).await, Closed::PeerGone);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_here_is_served_by_dpdk() {
    let directory = Directory::new("dpdk-server");
    let Some(testpmd) = Testpmd::start(&directory, "macswap", &[port("server", 0, &at(&directory.file()))]) else {
        return;
    };
    testpmd.has_started().await;
    for _ in 0..2 {
        let mut memif = connected(&directory.address()).await;
        assert!(memif.peer().program.contains("DPDK"), "{:?}", memif.peer());
        looped(&mut memif, with_addresses_swapped).await;
        // Packets of several buffers, there and back.
        let long = frame(5000, 1);
        assert_eq!(memif.send_burst([&long]).unwrap(), 1);
        soon(memif.ready()).await.unwrap();
        let expected = with_addresses_swapped(long);
        assert_eq!(memif.recv_burst(8, |packet| assert_eq!(packet, expected)).unwrap(), 1);
    }
    // Without the secret. It says so, or closes first.
    let error = soon(Memif::connect(&directory.address(), &Config::new(0))).await.unwrap_err();
    let refused = matches!(&error, Error::Refused { reason } if reason.contains("ecret"));
    assert!(refused || matches!(error, Error::Closed(Closed::PeerGone)), "{error}");
    drop(testpmd);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abstract_socket_is_the_same_for_dpdk() {
    let directory = Directory::new("dpdk-abstract");
    let name = format!("memif-dpdk-{}", std::process::id());
    let Some(testpmd) = Testpmd::start(&directory, "io", &[port("server", 0, &format!("socket={name}"))]) else {
        return;
    };
    testpmd.has_started().await;
    let mut memif = soon(Memif::connect(&Address::abstract_name(name), &config(0))).await.unwrap();
    looped(&mut memif, |frame| frame).await;
}
