//! The mesh, and its clients' pulses.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use nsm_kernel::Netns;
use nsm_tests::mesh::{Failure, Mesh, Missed, Pulse, Role};
use tokio::time::{Instant, sleep};

use crate::case::{Case, LIVENESS, Step};

/// One client, with one connection.
struct Client {
    name: &'static str,
    service: &'static str,
    wire: &'static str,
    checks: bool,
    pulse: Option<Pulse>,
}

const fn client(name: &'static str, service: &'static str, wire: &'static str, checks: bool) -> Client {
    Client { name, service, wire, checks, pulse: None }
}

/// Endpoints with their node, their service, and the second octet of their addresses.
const ENDPOINTS: [(&str, usize, &str, u8); 4] =
    [("near-1", 1, "near", 1), ("near-2", 1, "near", 2), ("far-2", 2, "far", 3), ("far-3", 3, "far", 4)];
const NODES: usize = 3;
const EVERY: Duration = Duration::from_millis(5);
const TOKENS: Duration = Duration::from_secs(30);
/// After it a case counts as failed.
const HEALED: Duration = Duration::from_secs(30);
/// A connection that breaks again sooner is healed more slowly: where that matters a try is not to be part of the one before.
const STEADY: Duration = Duration::from_secs(10);
/// Watched on after all is well; and once more, for answers that are on their way.
const AFTER: Duration = Duration::from_millis(300);

/// What one client saw of one try.
pub(crate) struct Observed {
    pub(crate) wire: &'static str,
    pub(crate) missed: Missed,
    /// Until managers and forwarders knew again what there is, from when the last process was back.
    pub(crate) well_after: Duration,
    /// It was not well again in time.
    pub(crate) stuck: Option<String>,
}

pub(crate) struct Lab {
    mesh: Mesh,
    clients: Vec<Client>,
    /// Endpoints that were killed and are to come back once all is well.
    dead: BTreeSet<String>,
    tries: usize,
}

impl Lab {
    pub(crate) async fn start() -> Result<Self, Failure> {
        let mut mesh = Mesh::new(NODES).await?;
        mesh.start("registry", 1, TOKENS, Role::Registry).await?;
        for node in 1..=NODES {
            mesh.start(&format!("nsmgr-{node}"), node, TOKENS, Role::Manager).await?;
            mesh.start(&format!("forwarder-{node}"), node, TOKENS, Role::Forwarder).await?;
        }
        for service in ["near", "far"] {
            mesh.apply(service).await?;
        }
        for (name, node, service, octet) in ENDPOINTS {
            let role = Role::Endpoint { service: service.to_owned(), prefix: format!("10.{octet}.0.0/16") };
            mesh.start(name, node, TOKENS, role).await?;
        }
        let clients = vec![
            client("nsc-1", "near", "local", true),
            client("nsc-2", "near", "local, unchecked", false),
            client("nsc-3", "far", "VXLAN", true),
            client("nsc-4", "far", "VXLAN, unchecked", false),
        ];
        let mut lab = Self { mesh, clients, dead: BTreeSet::new(), tries: 0 };
        for client in &mut lab.clients {
            let liveness = if client.checks { LIVENESS.as_millis() as u64 } else { 0 };
            lab.mesh.start(client.name, 1, TOKENS, Role::Client { liveness }).await?;
            let said =
                lab.mesh.process(client.name)?.ask(&format!("connect c kernel://{}/nsm-1", client.service)).await?;
            if !said.starts_with("connected") {
                return Err(format!("{}: {said}", client.name).into());
            }
            // An endpoint gives the first pairs that are free: those of connections it still knows are not.
            let targets =
                ENDPOINTS.iter().flat_map(|(.., octet)| (0..8).map(|at| Ipv4Addr::new(10, *octet, 0, at * 2)));
            client.pulse = Some(Pulse::start(lab.mesh.workload(client.name)?, targets.collect(), EVERY).await?);
        }
        match lab.well().await? {
            None => Ok(lab),
            Some(ill) => Err(format!("it does not start: {ill}").into()),
        }
    }

    /// Plays a case once. Tells what those clients saw whom it concerns.
    pub(crate) async fn play(&mut self, case: &Case) -> Result<Vec<Observed>, Failure> {
        self.tries += 1;
        if case.is_tight() {
            sleep(STEADY).await;
        }
        self.registered().await?;
        if let Some(ill) = self.well().await? {
            return Err(format!("before {}: {ill}", case.name).into());
        }
        let from = self.beats();
        sleep(EVERY * 4).await;
        let mut concerned: Option<BTreeSet<&'static str>> = None;
        let mut well_after = Duration::ZERO;
        let mut stuck = None;
        for step in case.steps {
            let of_step = self.take(*step).await?;
            concerned = concerned.map_or(of_step.clone(), |before| Some(before.into_iter().chain(of_step?).collect()));
            let begun = Instant::now();
            stuck = stuck.or(self.well().await?);
            well_after = well_after.max(begun.elapsed());
        }
        sleep(AFTER).await;
        let to = self.beats();
        sleep(AFTER).await;
        let observed = self
            .clients
            .iter()
            .zip(from.into_iter().zip(to))
            .filter(|(client, _)| concerned.as_ref().is_none_or(|names| names.contains(client.name)))
            .filter_map(|(client, (from, to))| {
                let missed = client.pulse.as_ref()?.missed(from..to);
                Some(Observed { wire: client.wire, missed, well_after, stuck: stuck.clone() })
            })
            .collect();
        self.revive().await?;
        Ok(observed)
    }

    /// Closes everything. Tells what is left.
    pub(crate) async fn leave(self) -> Result<Vec<String>, Failure> {
        // What nobody could close goes when its tokens end.
        let end = Instant::now() + TOKENS * 2;
        while self.mesh.wire_ends().await? > self.clients.len() * 2 && Instant::now() < end {
            sleep(AFTER).await;
        }
        self.mesh.leave().await
    }

    fn beats(&self) -> Vec<usize> {
        self.clients.iter().map(|client| client.pulse.as_ref().map_or(0, Pulse::beats)).collect()
    }

    /// Breaks something. Tells which clients that concerns, if not all.
    async fn take(&mut self, step: Step) -> Result<Option<BTreeSet<&'static str>>, Failure> {
        match step {
            Step::Restart(names) => {
                self.mesh.kill_all(names).await?;
                self.restart(names).await?;
                Ok(None)
            }
            Step::RestartAndEndpoint(names) => {
                let (victim, concerned) = self.victim().await?;
                let all: Vec<&str> = names.iter().copied().chain([victim.as_str()]).collect();
                self.mesh.kill_all(&all).await?;
                self.dead.insert(victim);
                self.restart(names).await?;
                Ok(Some(concerned))
            }
            Step::EndpointDies => {
                let (victim, concerned) = self.victim().await?;
                self.mesh.kill(&victim).await?;
                self.dead.insert(victim);
                Ok(Some(concerned))
            }
            Step::EndpointFreezes => {
                let (victim, mut concerned) = self.victim().await?;
                self.mesh.process(&victim)?.signal(Signal::SIGSTOP)?;
                answer_pings(self.mesh.workload(&victim)?, false)?;
                self.dead.insert(victim);
                // Who does not check cannot know.
                concerned.retain(|name| self.clients.iter().any(|client| client.name == *name && client.checks));
                Ok(Some(concerned))
            }
            Step::NodeDies => {
                let gone = ["nsmgr-2", "forwarder-2", "far-2"];
                let concerned = self.served_by("far-2").await?;
                set_link(self.mesh.node(2)?, "uplink", "down")?;
                self.mesh.kill_all(&gone).await?;
                self.dead.extend(gone.map(str::to_owned));
                Ok(Some(concerned.into_iter().filter(|name| *name == "nsc-3").collect()))
            }
            Step::LinkDown => {
                for client in &self.clients {
                    set_link(self.mesh.workload(client.name)?, "nsm-1", "down")?;
                }
                Ok(None)
            }
        }
    }

    async fn restart(&mut self, names: &[&str]) -> Result<(), Failure> {
        for name in names {
            self.mesh.restart(name).await?;
        }
        Ok(())
    }

    /// The endpoint of one client, each in turn, and all clients that it serves.
    async fn victim(&mut self) -> Result<(String, BTreeSet<&'static str>), Failure> {
        let name = self.clients[self.tries % self.clients.len()].name;
        let endpoint = self.mesh.process(name)?.ask("where c").await?;
        let concerned = self.served_by(&endpoint).await?;
        Ok((endpoint, concerned))
    }

    async fn served_by(&mut self, endpoint: &str) -> Result<BTreeSet<&'static str>, Failure> {
        let mut served = BTreeSet::new();
        for client in &self.clients {
            if self.mesh.process(client.name)?.ask("where c").await? == endpoint {
                served.insert(client.name);
            }
        }
        Ok(served)
    }

    /// Whoever is still dead comes back.
    async fn revive(&mut self) -> Result<(), Failure> {
        let dead = std::mem::take(&mut self.dead);
        let is_node = dead.contains("nsmgr-2");
        if is_node {
            set_link(self.mesh.node(2)?, "uplink", "up")?;
        }
        let mut order: Vec<String> = dead.into_iter().collect();
        // Managers first.
        order.sort_by_key(|name| (!name.starts_with("nsmgr"), !name.starts_with("forwarder")));
        for name in order {
            if self.mesh.runs(&name) {
                self.mesh.kill(&name).await?;
            }
            if let Ok(netns) = self.mesh.workload(&name) {
                answer_pings(netns, true)?;
            }
            self.mesh.restart(&name).await?;
        }
        Ok(())
    }

    /// Waits until all endpoints can be found again: else a try would be part of the one before.
    async fn registered(&self) -> Result<(), Failure> {
        let begun = Instant::now();
        for service in ["near", "far"] {
            let wanted = ENDPOINTS.iter().filter(|(_, _, of, _)| *of == service).count();
            while self.mesh.endpoints(service).await? < wanted {
                if begun.elapsed() > HEALED {
                    return Err(format!("the endpoints of {service} do not register again").into());
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Waits until packets flow, and managers and forwarders know again what there is. Tells what is still wrong when it took too long.
    async fn well(&mut self) -> Result<Option<String>, Failure> {
        let begun = Instant::now();
        loop {
            let Some(ill) = self.ill().await? else { return Ok(None) };
            if begun.elapsed() > HEALED {
                return Ok(Some(ill));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn ill(&mut self) -> Result<Option<String>, Failure> {
        let mut wanted = [0; NODES + 1];
        for client in &self.clients {
            let at = self.mesh.process(client.name)?.ask("where c").await?;
            let Some((_, node, ..)) = ENDPOINTS.iter().find(|(name, ..)| *name == at) else {
                return Ok(Some(format!("{} is nowhere: {at}", client.name)));
            };
            // A client that does not check cannot know that its endpoint froze.
            let excused = self.dead.contains(&at) && !client.checks;
            if !excused && (self.dead.contains(&at) || !client.pulse.as_ref().is_some_and(Pulse::is_steady)) {
                return Ok(Some(format!("{} has no answer from {at}", client.name)));
            }
            wanted[1] += 1;
            if *node != 1 && !excused {
                wanted[*node] += 1;
            }
        }
        for (node, wanted) in wanted.into_iter().enumerate().skip(1) {
            for role in ["nsmgr", "forwarder"] {
                let name = format!("{role}-{node}");
                if !self.mesh.runs(&name) {
                    continue;
                }
                let known = self.mesh.connections(&name).await?;
                if known < wanted {
                    return Ok(Some(format!("{name} knows {known} of {wanted} connections")));
                }
            }
        }
        Ok(None)
    }
}

/// Sets one link up or down.
fn set_link(netns: &Netns, name: &str, how: &str) -> Result<(), Failure> {
    ip(netns, &["link", "set", name, how])
}

/// Whether the kernel answers pings in a namespace.
fn answer_pings(netns: &Netns, answer: bool) -> Result<(), Failure> {
    let ignore = if answer { "0" } else { "1" };
    Ok(netns.run_blocking(move || std::fs::write("/proc/sys/net/ipv4/icmp_echo_ignore_all", ignore))?)
}

fn ip(netns: &Netns, arguments: &[&str]) -> Result<(), Failure> {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let status = netns.run_blocking(move || Command::new("ip").args(arguments).status())?;
    if status.success() { Ok(()) } else { Err(format!("ip: {status}").into()) }
}
