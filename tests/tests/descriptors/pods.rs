//! Processes in namespaces of their own: this same program, started by unshare(1).

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nsm_api::Connection;
use nsm_api::mechanism::KERNEL;
use nsm_chain::elements;
use nsm_kernel::{Netns, Pinger};
use nsm_mechanisms::{KernelAccept, KernelOffer, Mechanisms};
use nsm_sdk::ipam::{PointToPoint, Pool};
use nsm_sdk::roles::{self, EndpointRole};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{site, socket};

const ROLE: &str = "NSM_TEST_POD";
const DIRECTORY: &str = "NSM_TEST_DIRECTORY";
/// What a pod has to say begins so, among what the test harness prints.
const SAYS: &str = "pod: ";
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory that goes with the test.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("nsm-pods-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_dir_all(&self.0);
    }
}

/// A process that ends with the test.
pub(crate) struct Pod {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

const UNSHARE: [&str; 6] = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];

impl Pod {
    /// Why there can be no pods here.
    pub(crate) fn possible() -> Result<(), String> {
        match std::process::Command::new("unshare").args(UNSHARE).arg("true").output() {
            Ok(done) if done.status.success() => Ok(()),
            Ok(done) => Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()),
            Err(error) => Err(format!("unshare: {error}")),
        }
    }

    /// Starts one, with a directory of its name that only it sees.
    pub(crate) fn start(role: &str, directory: &Path) -> Self {
        std::fs::create_dir_all(directory.join(role)).unwrap();
        let script = format!("mount -t tmpfs none \"${DIRECTORY}/${ROLE}\" && exec \"$0\" \"$@\"");
        let mut child = Command::new("unshare")
            .args(UNSHARE)
            .args(["sh", "-c", &script])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "pod", "--ignored", "--nocapture"])
            .env(ROLE, role)
            .env(DIRECTORY, directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, lines: BufReader::new(output).lines() }
    }

    /// The next thing it says.
    pub(crate) async fn says(&mut self) -> String {
        let saying = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                if let Some(said) = line.strip_prefix(SAYS) {
                    return said.to_owned();
                }
                eprintln!("{line}");
            }
            panic!("the pod ended");
        };
        tokio::time::timeout(PATIENCE, saying).await.expect("the pod says something")
    }

    pub(crate) async fn tell(&mut self, what: &str) {
        self.input.write_all(format!("{what}\n").as_bytes()).await.unwrap();
    }

    pub(crate) async fn ends(mut self) {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("the pod ends");
        assert!(ended.unwrap().success());
    }
}

/// Which pod this process is, if it is one, and where the others are.
pub(crate) fn am() -> Option<(String, PathBuf)> {
    Some((std::env::var(ROLE).ok()?, std::env::var_os(DIRECTORY)?.into()))
}

fn say(what: &str) {
    // On a line of its own, whatever the harness has printed.
    println!("\n{SAYS}{what}");
}

/// Waits to be told to go on.
async fn told() {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("close"));
}

/// An endpoint whose socket nobody else can see.
pub(crate) async fn endpoint(directory: &Path) {
    let addresses = PointToPoint::new(Pool::new(["172.31.1.0/24".parse().unwrap()]).unwrap());
    let interfaces = Mechanisms::new().with(KERNEL, KernelAccept::new()).unwrap();
    let endpoint = EndpointRole::new("nse", site("nse"))
        .listen_on(socket(&directory.join("endpoint"), "nse"))
        .registers_at(socket(directory, "nsmgr"))
        .serves("vpn")
        .with(elements![addresses, interfaces])
        .serve()
        .await
        .unwrap();
    say("registered");
    told().await;
    endpoint.shutdown().await.unwrap();
    say("closed");
}

/// A client whose network namespace nobody else can name.
pub(crate) async fn client(directory: &Path) {
    let client = roles::client("nsc", &site("nsc"), &socket(directory, "nsmgr"));
    let client = client.with(elements![KernelOffer::new()]).build().unwrap();
    let url = "kernel://vpn/nsm-1".parse().unwrap();
    for _ in 0..2 {
        let connection = client.request_url(&url, "c-1", PATIENCE).await.unwrap();
        let own = format!("file:///proc/{}/ns/net", std::process::id());
        assert_eq!(connection.mechanism.as_ref().unwrap().parameter("inodeURL"), Some(&*own));
        ping(&connection).await;
    }
    say("connected");
    told().await;
    client.shutdown(PATIENCE).await.unwrap();
    say("closed");
}

async fn ping(connection: &Connection) {
    let ip = connection.context.as_ref().unwrap().ip_context.as_ref().unwrap();
    let first = |list: &[String]| -> IpAddr { list[0].split('/').next().unwrap().parse().unwrap() };
    let pinger = Pinger::new(&Netns::current().unwrap()).await.unwrap();
    pinger.ping(first(&ip.src_ip_addrs), first(&ip.dst_ip_addrs), Duration::from_secs(5)).await.unwrap();
}
