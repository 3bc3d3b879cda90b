//! One mesh of processes: who is whose, and over what.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nsm_sdk::identity::DevAuthority;
use nsm_spiffe::{AgentHandle, DevAgent, ENDPOINT_SOCKET};

use crate::language::Event;
use crate::programs::{Programs, Side};
use crate::role::{Outcome, Role};

/// The roles, in the order of a mix's letters.
pub(crate) const ROLES: [&str; 5] = ["registry", "manager", "forwarder", "endpoint", "client"];

/// Whose each role is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mix(pub(crate) [Side; 5]);

impl Mix {
    /// All of them: first all theirs, last all ours.
    pub(crate) fn all() -> Vec<Self> {
        let side = |bits: usize, at: usize| if bits >> (4 - at) & 1 == 0 { Side::Theirs } else { Side::Ours };
        (0..32).map(|bits| Self(std::array::from_fn(|at| side(bits, at)))).collect()
    }

    fn side(self, role: &str) -> Side {
        let at = ROLES.iter().position(|one| *one == role);
        at.and_then(|at| self.0.get(at)).copied().unwrap_or(Side::Ours)
    }
}

impl fmt::Display for Mix {
    /// `ttoto`: registry and manager theirs, forwarder ours, and so on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|side| f.write_str(if *side == Side::Theirs { "t" } else { "o" }))
    }
}

/// How the roles of a mesh talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// Over unix sockets, without TLS; sockets and namespaces of others are passed by descriptor.
    Unix,
    /// The same with mutual TLS under identities of an agent, ES256 tokens and the stock policies.
    Mtls,
    /// As [`Mtls`](Self::Mtls), over two nodes that reach each other and the registry over TCP. The endpoint's node has
    /// a manager and a forwarder of the endpoint's side.
    Nodes,
}

impl Link {
    pub(crate) const ALL: [Self; 3] = [Self::Unix, Self::Mtls, Self::Nodes];
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unix => "unix",
            Self::Mtls => "mtls",
            Self::Nodes => "nodes",
        })
    }
}

/// The service that endpoints serve.
pub(crate) const SERVICE: &str = "interop";

/// A mesh of one node.
#[derive(Debug)]
pub(crate) struct Mesh {
    mix: Mix,
    link: Link,
    programs: Programs,
    /// Sockets and logs; removed with the mesh, unless kept.
    directory: PathBuf,
    /// An address of the loopback network that no other mesh has.
    host: String,
    roles: Vec<(String, Role)>,
    /// Who vouches for the roles, and the agents that each of them asks for its identity.
    authority: Option<DevAuthority>,
    agents: BTreeMap<String, AgentHandle>,
}

impl Mesh {
    /// One without roles. `number` tells it from others that run at the same time.
    pub(crate) fn new(programs: &Programs, mix: Mix, link: Link, number: usize) -> Outcome<Self> {
        let id = std::process::id();
        let directory = std::env::temp_dir().join(format!("nsm-interop-{id}-{number}"));
        fs::create_dir(&directory).map_err(|error| error.to_string())?;
        let authority = match link {
            Link::Unix => None,
            Link::Mtls | Link::Nodes => Some(DevAuthority::new("example.org").map_err(|error| error.to_string())?),
        };
        // 127.0.0.0/8 is this machine. A port of such an address cannot be in anybody's way.
        let host = format!("127.{}.{}.{}", 64 + id % 128, id / 128 % 250 + 1, number % 250 + 1);
        let (roles, agents) = (Vec::new(), BTreeMap::new());
        Ok(Self { mix, link, programs: programs.clone(), directory, host, roles, authority, agents })
    }

    /// The directory with the logs, which is not removed then.
    pub(crate) fn keep(mut self) -> PathBuf {
        std::mem::take(&mut self.directory)
    }

    fn socket(&self, name: &str) -> String {
        format!("unix://{}/{name}.sock", self.directory.display())
    }

    /// Where a role is reached from other nodes.
    fn url(&self, name: &str) -> String {
        match (self.link, name) {
            (Link::Nodes, "registry") => format!("tcp://{}:5001", self.host),
            (Link::Nodes, "manager") => format!("tcp://{}:5002", self.host),
            (Link::Nodes, "manager-2") => format!("tcp://{}:5003", self.host),
            _ => self.socket(name),
        }
    }

    /// The names on the path of the client's connection, without the endpoint's.
    pub(crate) fn hops(&self) -> &'static [&'static str] {
        match self.link {
            Link::Nodes => &["client", "manager", "forwarder", "manager-2", "forwarder-2"],
            Link::Unix | Link::Mtls => &["client", "manager", "forwarder"],
        }
    }

    /// The manager of the endpoint's node.
    fn endpoints_manager(&self) -> &'static str {
        if self.hops().contains(&"manager-2") { "manager-2" } else { "manager" }
    }

    /// Whether a watch at the manager may miss that an endpoint has gone. The reference's manager sends the socket of an
    /// endpoint along with every event, also with the last one, and ends the watch if it has closed the socket by then;
    /// the watch that follows does not tell of what is no longer there.
    pub(crate) fn loses_departures(&self) -> bool {
        self.link != Link::Nodes && self.mix.side("manager") == Side::Theirs
    }

    /// Whose role it is.
    fn side(&self, role: &str, name: &str) -> Side {
        self.mix.side(if name.ends_with("-2") { "endpoint" } else { role })
    }

    /// Starts a role, or starts it again. It is ready then.
    pub(crate) async fn start(&mut self, role: &str, name: &str) -> Outcome<Arc<Event>> {
        let side = self.side(role, name);
        let mut command = self.programs.role(side, role);
        let (outside, inside) = (self.url(name), self.socket(name));
        let listen = if outside == inside || role == "registry" { outside } else { format!("{outside},{inside}") };
        command.args(["--name", name, "--listen", &listen]);
        let upstream = match (role, name) {
            ("manager", _) => self.url("registry"),
            ("endpoint", _) | (_, "forwarder-2") => self.socket(self.endpoints_manager()),
            _ => self.socket("manager"),
        };
        command.args(["--upstream", &upstream]);
        if role == "forwarder" {
            command.args(["--tunnel", if name == "forwarder" { "192.0.2.1" } else { "192.0.2.2" }]);
        }
        if role == "endpoint" {
            let number = name.trim_start_matches(|c: char| !c.is_ascii_digit());
            command.args(["--service", SERVICE, "--prefix", &format!("172.16.{number}.0/24")]);
        }
        if let Some(agent) = self.agent(name).await? {
            command.args(["--security", "mtls"]).env(ENDPOINT_SOCKET, agent);
        }
        // Expiry headers with another offset than ours.
        command.env("TZ", "Asia/Kolkata");
        let log = self.directory.join(format!("{name}.log"));
        let (running, ready) = Role::start(command, name, &log).await?;
        self.roles.push((name.to_owned(), running));
        Ok(ready)
    }

    /// Where a role of this name asks who it is.
    async fn agent(&mut self, name: &str) -> Outcome<Option<String>> {
        let Some(authority) = &self.authority else { return Ok(None) };
        if let Some(agent) = self.agents.get(name) {
            return Ok(Some(agent.address().to_string()));
        }
        let socket = format!("unix://{}/{name}.agent", self.directory.display());
        let agent = DevAgent::new(authority.clone()).identity(&format!("/{name}"));
        let address = socket.parse().map_err(|error| format!("{socket}: {error}"))?;
        let agent = agent.serve(&address).await.map_err(|error| error.to_string())?;
        self.agents.insert(name.to_owned(), agent);
        Ok(Some(socket))
    }

    /// The role of this name.
    pub(crate) fn role(&self, name: &str) -> Outcome<&Role> {
        let found = self.roles.iter().find(|(of, _)| of == name);
        found.map(|(_, role)| role).ok_or_else(|| format!("{name} does not run"))
    }

    /// Kills the role of this name, as a crash would.
    pub(crate) async fn kill(&mut self, name: &str) -> Outcome {
        let at = self.roles.iter().position(|(of, _)| of == name).ok_or_else(|| format!("{name} does not run"))?;
        self.roles.swap_remove(at).1.kill().await;
        Ok(())
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.roles.clear();
        if self.directory != Path::new("") {
            // Left behind it is only a few files in the directory for such.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}
