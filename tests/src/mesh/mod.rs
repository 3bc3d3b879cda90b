//! A mesh of real processes on this machine: every role a process, every node and workload a network namespace.
//!
//! Whatever kills roles for a living builds on it: `soak`, `gaps`. The program that uses it starts itself again for each
//! role ([`Start::enter`] says whether it is one). All namespaces are nameless: they end with the processes, and with them
//! every interface, however this program ends. So do the processes: each ends when its standard input does.

mod client;
mod process;
mod program;
mod pulse;
mod role;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use nsm_api::NetworkService;
use nsm_kernel::{Census, Item, Netns, Underlay};
use nsm_sdk::identity::DevAuthority;

pub use process::{Count, Process};
pub use program::{Part, play};
pub use pulse::{Missed, Pulse};
pub use role::{Role, Start};

/// What ends a run of such a mesh.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long anything here may take before that is a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The network between nodes: for documentation by RFC 5737, so nobody's real one.
const UNDERLAY: &str = "192.0.2.0/24";
const TRUST_DOMAIN: &str = "processes.nsm";

/// The processes, and where they are.
#[derive(Debug)]
pub struct Mesh {
    directory: Directory,
    network: Underlay,
    /// How every role is started, also again.
    known: BTreeMap<String, Start>,
    /// Namespaces of endpoints and clients, which outlive their processes.
    workloads: BTreeMap<String, Netns>,
    running: BTreeMap<String, Process>,
}

impl Mesh {
    /// Makes the namespaces of this many nodes, joined by a network, and nothing else.
    ///
    /// # Errors
    /// When this machine does not allow it.
    pub async fn new(nodes: usize) -> Result<Self, Failure> {
        let directory = Directory::new("nsm-mesh")?;
        DevAuthority::open_or_create(&directory.0.join("authority"), TRUST_DOMAIN)?;
        let network = Underlay::create(nodes, UNDERLAY.parse()?).await?;
        let (known, workloads, running) = Default::default();
        Ok(Self { directory, network, known, workloads, running })
    }

    /// Starts a role as a process, on the node of this number (from 1 on), and waits until it serves. Endpoints and
    /// clients get a namespace of their own; the rest is in the node's.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(&mut self, name: &str, node: usize, tokens: Duration, role: Role) -> Result<(), Failure> {
        let place = self.network.nodes().get(node - 1).ok_or("there is no such node")?;
        let netns = match role {
            Role::Endpoint { .. } | Role::Client { .. } => {
                let own = Netns::create().await?;
                self.workloads.insert(name.to_owned(), own.clone());
                own
            }
            Role::Registry | Role::Manager | Role::Forwarder => place.netns.clone(),
        };
        let start = Start {
            name: name.to_owned(),
            directory: self.directory.0.clone(),
            netns: netns.path(),
            node: place.ip(),
            manager: format!("nsmgr-{node}"),
            tokens: tokens.as_secs(),
            role,
        };
        self.known.insert(name.to_owned(), start);
        self.restart(name).await
    }

    /// Registers a network service that carries IP, as its operator.
    ///
    /// # Errors
    /// When the manager of the first node does not take it.
    pub async fn apply(&self, service: &str) -> Result<(), Failure> {
        let site = role::site(&self.directory.0, "operator", Duration::from_secs(60))?;
        let payload = nsm_api::payload::IP.to_owned();
        let service = NetworkService { name: service.to_owned(), payload, ..Default::default() };
        Ok(nsm_sdk::roles::apply(&site, &role::url(&self.directory.0, "nsmgr-1"), service).await?)
    }

    /// How many endpoints of a service the first node's manager finds.
    ///
    /// # Errors
    /// When there can be no client of it.
    pub async fn endpoints(&self, service: &str) -> Result<usize, Failure> {
        let site = role::site(&self.directory.0, "operator", Duration::from_secs(60))?;
        let manager = role::url(&self.directory.0, "nsmgr-1");
        let client = site.registry_client("operator", site.channels(), manager).build()?;
        // Whoever cannot be asked finds none.
        Ok(client.finder().endpoints_of(service).await.map_or(0, |found| found.len()))
    }

    /// Starts a role that was killed again, as it was and where it was.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart(&mut self, name: &str) -> Result<(), Failure> {
        let start = self.known.get(name).ok_or_else(|| format!("there is no role {name}"))?;
        let process = Process::start(name, &start.arguments()).await?;
        self.running.insert(name.to_owned(), process);
        Ok(())
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self, name: &str) -> Result<(), Failure> {
        let process = self.running.remove(name).ok_or_else(|| format!("{name} does not run"))?;
        process.kill().await
    }

    /// SIGKILL for all of these at the same time.
    ///
    /// # Errors
    /// When one does not run.
    pub async fn kill_all(&mut self, names: &[&str]) -> Result<(), Failure> {
        for name in names {
            self.process(name)?.signal(Signal::SIGKILL)?;
        }
        for name in names {
            self.kill(name).await?;
        }
        Ok(())
    }

    /// Whether a role runs.
    #[must_use]
    pub fn runs(&self, name: &str) -> bool {
        self.running.contains_key(name)
    }

    /// The namespace of the node of this number.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&self, number: usize) -> Result<&Netns, Failure> {
        self.network.nodes().get(number - 1).map(|node| &node.netns).ok_or_else(|| "there is no such node".into())
    }

    /// A role that runs.
    ///
    /// # Errors
    /// When it does not.
    pub fn process(&mut self, name: &str) -> Result<&mut Process, Failure> {
        self.running.get_mut(name).ok_or_else(|| format!("{name} does not run").into())
    }

    /// How many connections a role knows.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn connections(&mut self, name: &str) -> Result<usize, Failure> {
        Ok(self.process(name)?.count().await?.connections)
    }

    /// The namespace of an endpoint or a client.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn workload(&self, name: &str) -> Result<&Netns, Failure> {
        self.workloads.get(name).ok_or_else(|| format!("{name} has no namespace").into())
    }

    /// The directory of sockets.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory.0
    }

    /// How many interfaces carry the mark of a forwarder, in all namespaces.
    ///
    /// # Errors
    /// When a namespace cannot be looked at.
    pub async fn wire_ends(&self) -> Result<usize, Failure> {
        Ok(self.marked().await?.len())
    }

    /// The interfaces that carry the mark of a forwarder, in words.
    ///
    /// # Errors
    /// When a namespace cannot be looked at.
    pub async fn marked(&self) -> Result<Vec<String>, Failure> {
        let nodes = self.network.nodes().iter().map(|node| ("a node", &node.netns));
        let workloads = self.workloads.iter().map(|(name, netns)| (name.as_str(), netns));
        let mut found = Vec::new();
        for (name, netns) in nodes.chain(workloads) {
            let census = Census::take(netns).await?;
            let ours =
                |item: &&Item| matches!(item, Item::Link { alias: Some(alias), .. } if alias.starts_with("nsm:"));
            found.extend(census.items.iter().filter(ours).map(|item| format!("{name}: {item}")));
        }
        Ok(found)
    }

    /// Lets all leave in order: clients, endpoints, forwarders, managers, registry. Tells what is left then.
    ///
    /// # Errors
    /// When one does not leave.
    pub async fn leave(mut self) -> Result<Vec<String>, Failure> {
        let mut order: Vec<(u8, String)> =
            self.running.keys().map(|name| (self.known.get(name).map_or(0, Start::leaves), name.clone())).collect();
        order.sort();
        for (_, name) in order {
            if let Some(process) = self.running.remove(&name) {
                process.leave().await?;
            }
        }
        self.marked().await
    }
}

/// A directory of this process's own, removed on drop.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// One whose name begins so.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(name: &str) -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Nothing is lost when this fails.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
