//! DPDK as the client with shared memory: `dpdk-testpmd` answers the pings of a kernel on the other side of the forwarder.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nsm_mechanisms::{Dataplane, Linux};

use super::memif::{PATIENCE, needs_tun, to_kernel};
use super::*;

/// Without the program a test fails where this is set, and says that it was skipped elsewhere.
const REQUIRED: &str = "NSM_MEMIF_PEER_REQUIRED";

/// A testpmd that runs, with a directory of its own. Ended with this.
struct Testpmd {
    child: Child,
    directory: PathBuf,
}

impl Testpmd {
    fn start(socket: &nsm_memif::Address) -> Option<Self> {
        let directory = std::env::temp_dir().join(format!("nsm-testpmd-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let log = File::create(directory.join("log")).unwrap();
        let mut command = Command::new("dpdk-testpmd");
        command.args(["--no-huge", "-m", "128", "--no-pci", "--no-telemetry", "--no-shconf", "--lcores", "0@0,1@0"]);
        command.arg(format!("--vdev=net_memif0,role=client,id=0,socket={socket},socket-abstract=no,rsize=8"));
        command.args(["--", "--forward-mode=icmpecho", "--auto-start", "--no-flush-rx", "--total-num-mbufs=2048"]);
        command.arg("--port-topology=loop");
        // It runs until it can read something.
        command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        command.current_dir(&directory).env("RUNTIME_DIRECTORY", &directory);
        match command.spawn() {
            Ok(child) => Some(Self { child, directory }),
            Err(error) => {
                let missing = format!("dpdk-testpmd cannot be started ({error}); install Debian's package dpdk-dev");
                assert!(std::env::var_os(REQUIRED).is_none(), "{missing}");
                eprintln!("SKIPPED: {missing}");
                None
            }
        }
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _ended_by_itself = self.child.kill();
        let _no_zombie = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.directory.join("log")).unwrap_or_default());
        }
        let _best_effort = std::fs::remove_dir_all(&self.directory);
    }
}

#[tokio::test]
async fn dpdk_answers_the_pings_of_a_kernel_through_the_forwarder_also_when_started_again() {
    needs_tun!();
    let Some(ns) = netns().await else { return };
    let linux = Linux::new("fwd").unwrap();
    let (wire, address) = to_kernel(&linux, &ns, payload::ETHERNET);
    linux.connect(&wire).await.unwrap();
    let [own, other] = [addresses(1, 0)[0], addresses(1, 1)[0]];
    for _ in 0..2 {
        let Some(_testpmd) = Testpmd::start(&address) else { return };
        // It needs some seconds until it forwards.
        let answered = async { while !answers(&ns, own, other).await {} };
        tokio::time::timeout(3 * PATIENCE, answered).await.unwrap_or_else(|_| panic!("{:?}", linux.copied("1")));
        // Each is dropped without a word, as if it were killed.
    }
    linux.disconnect("1").await.unwrap();
}
