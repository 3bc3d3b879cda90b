//! A peer whose process is killed in the middle of a burst.

use std::process::{Child, Command, Stdio};

use nsm_memif::{Closed, Config, Error, Memif, Server};

use crate::common::{Directory, soon};

/// Says where the other process finds its server.
const SOCKET: &str = "NSM_MEMIF_TEST_SOCKET";

/// Killed also if the test fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ended_by_itself = self.0.kill();
        let _no_zombie = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_killed_mid_burst_is_noticed_and_what_it_had_sent_stays_readable() {
    let directory = Directory::new("killed");
    let server = Server::bind(&directory.address()).unwrap();
    let mut port = server.open(Config::new(0)).unwrap();
    for _ in 0..3 {
        let mut other = Command::new("/proc/self/exe");
        let other = other.args(["--exact", "killed::the_other_process", "--nocapture"]).env(SOCKET, directory.file());
        let mut other = Killed(other.stdout(Stdio::null()).spawn().unwrap());
        let mut memif = soon(port.accept()).await.unwrap();
        let mut next = 0u64;
        // It sends as fast as it can; it is killed while it does.
        let outcome = loop {
            if next > 20_000 {
                other.0.kill().unwrap();
            }
            soon(memif.ready()).await.ok();
            let burst = memif.recv_burst(256, |packet| {
                assert_eq!(packet, next.to_ne_bytes().repeat(100), "every packet is whole");
                next += 1;
            });
            if let Err(error) = burst {
                break error;
            }
        };
        assert!(matches!(outcome, Error::Closed(Closed::PeerGone)), "{outcome}");
        assert!(matches!(memif.send_burst(["x"]), Err(Error::Closed(Closed::PeerGone))));
        assert!(matches!(soon(memif.ready()).await, Err(Error::Closed(Closed::PeerGone))));
    }
}

/// Does something only when the test above starts this program again.
#[tokio::test]
async fn the_other_process() {
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    let address = std::path::PathBuf::from(socket).into();
    let mut memif = soon(Memif::connect(&address, &Config::new(0))).await.unwrap();
    for number in 0u64.. {
        let packet = number.to_ne_bytes().repeat(100);
        while memif.send_burst([&packet]).unwrap() == 0 {
            tokio::task::yield_now().await;
        }
    }
}
