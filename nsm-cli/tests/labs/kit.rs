//! A lab under test.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nsm_kernel::{Netns, Pinger};
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// The program under test.
pub(crate) const NSM: &str = env!("CARGO_BIN_EXE_nsm");
/// The lab of the documentation.
pub(crate) const TWO_NODES: &str = include_str!("../../../examples/labs/two-nodes.yaml");
/// How long anything may take, on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// A directory for one test: the file of its lab, and where that keeps its state. All is removed at the end.
pub(crate) struct Room {
    path: PathBuf,
    /// The name of the lab: no other test has it.
    pub(crate) lab: String,
}

impl Room {
    pub(crate) fn new(text: &str) -> Self {
        let path = nix::unistd::mkdtemp("/tmp/nsmlabs-XXXXXX").unwrap();
        // Whoever the program runs as may use it.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        let lab = format!("t{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let room = Self { path, lab };
        room.write(text);
        room
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.path.join(format!("{}.yaml", self.lab))
    }

    /// Puts another file in the place of the lab's, as editors do.
    pub(crate) fn write(&self, text: &str) {
        let new = self.path.join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    pub(crate) fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.file()).unwrap();
        assert!(text.contains(from), "{from}");
        self.write(&text.replacen(from, to, 1));
    }

    pub(crate) fn nsm(&self, command: &str, arguments: &[&str]) -> Command {
        let mut nsm = Command::new(NSM);
        nsm.arg(command).args(arguments).env("NSM_RUN_DIR", self.path.join("run"));
        nsm.env_remove("RUST_LOG").env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        nsm
    }

    /// With the file of the lab as its last argument.
    pub(crate) fn of_file(&self, command: &str, arguments: &[&str]) -> Command {
        let mut nsm = self.nsm(command, arguments);
        nsm.arg(self.file());
        nsm
    }

    /// Brings it up in the foreground; none where that needs privileges that cannot be had, which is said.
    pub(crate) async fn up(&self, arguments: &[&str]) -> Option<Lab<'_>> {
        self.start(self.of_file("up", arguments)).await
    }

    pub(crate) async fn start(&self, mut command: Command) -> Option<Lab<'_>> {
        let log = self.path.join("story");
        let story = File::create(&log).unwrap();
        let child = command.stdout(story.try_clone().unwrap()).stderr(story).spawn().unwrap();
        let mut lab = Lab { room: self, child, log };
        lab.until("It stays up", "privileges").await;
        if lab.story().contains("privileges") {
            println!("SKIPPED: {}", lab.story());
            return None;
        }
        Some(lab)
    }

    /// Whether its lab can be talked to.
    pub(crate) fn listens(&self) -> bool {
        self.path.join("run").join(&self.lab).join("control.sock").exists()
    }

    /// What `nsm graph --json` says.
    pub(crate) fn view(&self) -> Value {
        let output = self.of_file("graph", &["--json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// Nothing is left where it kept its state, and no name of its namespaces.
    pub(crate) fn assert_gone(&self) {
        let left: Vec<_> = std::fs::read_dir(self.path.join("run")).unwrap().flatten().map(|it| it.path()).collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(self.names(), [""; 0]);
    }

    /// The names of its namespaces, without what they all begin with.
    pub(crate) fn names(&self) -> Vec<String> {
        let prefix = format!("nsm-{}.", self.lab);
        let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let names = entries.filter_map(|it| it.file_name().to_str()?.strip_prefix(&prefix).map(str::to_owned));
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        names
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // What a test that failed has left.
        let _down = self.of_file("down", &[]).output();
        std::fs::remove_dir_all(&self.path).unwrap();
    }
}

/// A lab that runs in the foreground.
pub(crate) struct Lab<'r> {
    room: &'r Room,
    pub(crate) child: Child,
    log: PathBuf,
}

impl Lab<'_> {
    /// What it has said.
    pub(crate) fn story(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it has said one of two things, or has ended.
    pub(crate) async fn until(&mut self, text: &str, or: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.story().contains(text) && !self.story().contains(or) {
            assert!(Instant::now() < end, "no {text:?} in time: {}", self.story());
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() || self.story().contains(or), "it ended before {text:?}: {}", self.story());
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < end, "it has not ended: {}", self.story());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends it by Ctrl-C; nothing may be left.
    pub(crate) async fn end(self) {
        self.signal(Signal::SIGINT);
        self.end_by_itself().await;
    }

    /// It ends, because somebody took it down; nothing may be left.
    pub(crate) async fn end_by_itself(mut self) {
        assert_eq!(self.ended().await, Some(0), "{}", self.story());
        assert!(self.story().contains("nothing left"), "{}", self.story());
        self.room.assert_gone();
    }
}

impl Drop for Lab<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.story());
        }
        if self.child.try_wait().unwrap().is_none() {
            self.signal(Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}

/// One wire of `nsm graph --json`.
pub(crate) fn wire<'v>(view: &'v Value, pod: &str, interface: &str) -> &'v Value {
    let mut wires = view["wires"].as_array().unwrap().iter();
    let found = wires.find(|wire| wire["pod"] == pod && wire["interface"] == interface);
    found.unwrap_or_else(|| panic!("no {interface} of {pod} in {view:#}"))
}

/// The texts of a list.
pub(crate) fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// The namespace of a workload or a node.
pub(crate) fn netns(view: &Value, name: &str) -> Netns {
    let lists = ["pods", "endpoints", "nodes"].map(|list| view[list].as_array().unwrap());
    let found = lists.into_iter().flatten().find(|one| one["name"] == name);
    let path = found.unwrap_or_else(|| panic!("no {name} in {view:#}"))["netns"].as_str().unwrap();
    Netns::open(Path::new(path)).unwrap()
}

/// Sends a packet each way through every wire; gives how many answers came.
pub(crate) async fn ping_all(view: &Value) -> usize {
    let mut answers = 0;
    for wire in view["wires"].as_array().unwrap() {
        assert_eq!(wire["state"], "Up", "{wire:#}");
        let (pod, endpoint) = (wire["pod"].as_str().unwrap(), wire["endpoint"].as_str().unwrap());
        let (here, there) = (netns(view, pod), netns(view, endpoint));
        for (own, peer) in texts(&wire["addresses"]).into_iter().zip(texts(&wire["peers"])) {
            let (own, peer) = (address(own), address(peer));
            Pinger::new(&here).await.unwrap().ping(own, peer, PATIENCE).await.unwrap();
            Pinger::new(&there).await.unwrap().ping(peer, own, PATIENCE).await.unwrap();
            answers += 2;
        }
    }
    answers
}

fn address(net: &str) -> IpAddr {
    net.split('/').next().unwrap().parse().unwrap()
}

/// The numbers that the kernel gave to interfaces, by pod and name: another one is another interface.
pub(crate) async fn indexes(view: &Value) -> BTreeMap<String, u32> {
    let mut indexes = BTreeMap::new();
    for wire in view["wires"].as_array().unwrap() {
        let (pod, name) = (wire["pod"].as_str().unwrap(), wire["interface"].as_str().unwrap().to_owned());
        let key = format!("{pod}/{name}");
        let netns = netns(view, pod);
        let index = netns.run(move || nix::net::if_::if_nametoindex(&*name).map_err(std::io::Error::from)).await;
        indexes.insert(key, index.unwrap());
    }
    indexes
}

/// What a command printed, if it ended well.
pub(crate) fn printed(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
