//! One role, as a process.

use std::ffi::OsString;
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nsm_api::mechanism::KERNEL;
use nsm_chain::elements;
use nsm_kernel::Netns;
use nsm_mechanisms::{CrossConnect, KernelAccept, Linux, Mechanisms, Pace, Reconcile, Underlay};
use nsm_sdk::identity::DevAuthority;
use nsm_sdk::ipam::{PointToPoint, Pool};
use nsm_sdk::roles::{EndpointRole, ForwarderRole, ManagerRole, RegistryRole, Running, Site};
use nsm_sdk::transport::Transport;
use nsm_store::Store;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UdpSocket;
use tokio::runtime::Handle;

use super::client::Client;
use super::{Failure, TRUST_DOMAIN};
use crate::heap;

/// Where managers listen for those of other nodes.
const MANAGER_PORT: u16 = 5001;
/// Where endpoints send every packet back: a dead endpoint's interface still answers pings, its echo does not.
pub(super) const ECHO_PORT: u16 = 7;

/// How a role is started.
#[derive(Debug, Clone, Args)]
pub struct Start {
    #[arg(long)]
    pub(super) name: String,
    /// Of the sockets, the authority and the store.
    #[arg(long)]
    pub(super) directory: PathBuf,
    /// Its network namespace.
    #[arg(long)]
    pub(super) netns: PathBuf,
    /// Its node's address between nodes.
    #[arg(long)]
    pub(super) node: IpAddr,
    /// The manager of its node.
    #[arg(long)]
    pub(super) manager: String,
    /// How many seconds its tokens live.
    #[arg(long)]
    pub(super) tokens: u64,
    #[command(subcommand)]
    pub(super) role: Role,
}

/// What a process is.
#[derive(Debug, Clone, Subcommand)]
pub enum Role {
    /// A registry with a store on disk.
    Registry,
    /// A manager.
    Manager,
    /// A Linux forwarder.
    Forwarder,
    /// An endpoint of one network service, which also sends back what it gets by UDP.
    Endpoint {
        /// What it serves.
        service: String,
        /// Of what it gives addresses.
        prefix: String,
    },
    /// A client, told what to do on its standard input.
    Client {
        /// Milliseconds between two checks whether packets flow; 0: it does not check.
        liveness: u64,
    },
}

impl Start {
    /// The arguments that make this program this role.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["role".into()];
        let (node, tokens) = (self.node.to_string(), self.tokens.to_string());
        let flags: [(&str, &std::ffi::OsStr); 6] = [
            ("--name", self.name.as_ref()),
            ("--directory", self.directory.as_ref()),
            ("--netns", self.netns.as_ref()),
            ("--node", node.as_ref()),
            ("--manager", self.manager.as_ref()),
            ("--tokens", tokens.as_ref()),
        ];
        arguments.extend(flags.into_iter().flat_map(|(flag, value)| [flag.into(), value.to_owned()]));
        let role: Vec<String> = match &self.role {
            Role::Registry => vec!["registry".into()],
            Role::Manager => vec!["manager".into()],
            Role::Forwarder => vec!["forwarder".into()],
            Role::Endpoint { service, prefix } => vec!["endpoint".into(), service.clone(), prefix.clone()],
            Role::Client { liveness } => vec!["client".into(), liveness.to_string()],
        };
        arguments.extend(role.into_iter().map(OsString::from));
        arguments
    }

    /// Who registers somewhere leaves before that is gone.
    pub(super) fn leaves(&self) -> u8 {
        match self.role {
            Role::Client { .. } => 0,
            Role::Endpoint { .. } => 1,
            Role::Forwarder => 2,
            Role::Manager => 3,
            Role::Registry => 4,
        }
    }

    /// Is this role until it is told to leave, or until whoever started it is gone.
    ///
    /// # Errors
    /// When it cannot be it.
    pub fn enter(self) -> Result<(), Failure> {
        // Also if it is stopped just then.
        set_pdeathsig(Signal::SIGKILL)?;
        // Before there is another thread.
        setns(File::open(&self.netns)?, CloneFlags::CLONE_NEWNET)?;
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        // By it a line of the log says whose it is.
        runtime.worker_threads(2).thread_name(&self.name).enable_all().build()?.block_on(self.serve())
    }

    async fn serve(self) -> Result<(), Failure> {
        let site = site(&self.directory, &self.name, Duration::from_secs(self.tokens))?;
        let url = |name: &str| url(&self.directory, name);
        let (own, manager, name) = (url(&self.name), url(&self.manager), self.name.as_str());
        let running = match &self.role {
            Role::Registry => {
                let store = Store::open(self.directory.join("store"))?;
                RegistryRole::new(name, site).store(store.journals()).listen_on(own).serve().await?
            }
            Role::Manager => {
                let role = ManagerRole::new(name, site).listen_on(own).registry(url("registry"));
                role.listen_on(format!("tcp://{}:{MANAGER_PORT}", self.node)).serve().await?
            }
            Role::Forwarder => self.forwarder(site, own, manager).await?,
            Role::Endpoint { service, prefix } => {
                tokio::spawn(echo(UdpSocket::bind(("0.0.0.0", ECHO_PORT)).await?, self.name.clone()));
                let addresses = PointToPoint::new(Pool::new([prefix.parse()?])?);
                let interfaces = Mechanisms::new().with(KERNEL, KernelAccept::new())?;
                let role = EndpointRole::new(name, site).listen_on(own).registers_at(manager).serves(service);
                role.with(elements![addresses, interfaces]).serve().await?
            }
            Role::Client { liveness } => {
                let client = Client::new(name, &site, &manager, Duration::from_millis(*liveness)).await?;
                return client.obey().await;
            }
        };
        say("ready");
        obey(&running).await?;
        running.shutdown().await?;
        Ok(())
    }

    async fn forwarder(&self, site: Site, own: String, manager: String) -> Result<Running, Failure> {
        let linux = Linux::with_underlay(&self.name, Underlay::new(self.node), Netns::current()?)?;
        let pace = Pace { grace: Duration::from_secs(self.tokens), ..Pace::default() };
        let wire = elements![Reconcile::start(linux.clone(), pace).await, CrossConnect::new(linux)];
        Ok(ForwarderRole::new(&self.name, site, manager, wire).listen_on(own).serve().await?)
    }
}

/// Who somebody of that name is.
pub(super) fn site(directory: &Path, name: &str, tokens: Duration) -> Result<Site, Failure> {
    let authority = DevAuthority::open_or_create(&directory.join("authority"), TRUST_DOMAIN)?;
    Ok(Site::over(Transport::mtls(authority.issue(&format!("/{name}"))?, tokens)))
}

/// Where a role of that name listens.
pub(super) fn url(directory: &Path, name: &str) -> String {
    format!("unix://{}", directory.join(format!("{name}.sock")).display())
}

/// Answers what it is asked until it is told to leave.
async fn obey(running: &Running) -> Result<(), Failure> {
    let mut lines = orders();
    while let Some(order) = lines.next_line().await? {
        match order.as_str() {
            "leave" => return Ok(()),
            _ => say(&count(running.connections() + running.passing())),
        }
    }
    gone()
}

/// What it is told to do.
pub(super) fn orders() -> tokio::io::Lines<BufReader<tokio::io::Stdin>> {
    BufReader::new(tokio::io::stdin()).lines()
}

/// Ends at once: whoever started this is gone.
pub(super) fn gone() -> ! {
    std::process::exit(1)
}

pub(super) fn say(what: &str) {
    println!("{what}");
}

/// What this process has: tasks, bytes of memory that are held, and as many connections.
pub(super) fn count(connections: usize) -> String {
    format!("{} {} {connections}", Handle::current().metrics().num_alive_tasks(), heap::held())
}

/// Sends every packet back, with the name of this endpoint at its end.
async fn echo(socket: UdpSocket, name: String) {
    let socket = Arc::new(socket);
    let mut packet = [0; 1500];
    loop {
        // An error is an ICMP message about an earlier answer.
        if let Ok((length, from)) = socket.recv_from(&mut packet).await
            && let Some(asked) = packet.get(..length)
        {
            let answer = [asked, name.as_bytes()].concat();
            let _nobody_there = socket.send_to(&answer, from).await;
        }
    }
}
