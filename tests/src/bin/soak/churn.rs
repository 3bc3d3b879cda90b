//! The mesh, and what happens to it.

use std::collections::BTreeMap;
use std::time::Duration;

use nsm_sim::Random;
use nsm_tests::mesh::{Failure, Mesh, Role};
use tokio::time::{Instant, sleep};

/// Never killed: what is lost by the deaths of others adds up in these.
pub(crate) const KEPT: [&str; 4] = ["nsmgr-1", "forwarder-1", "endpoint-1", "client-1"];
/// Killed again and again.
pub(crate) const KILLED: [&str; 7] =
    ["registry", "nsmgr-2", "forwarder-2", "endpoint-2", "endpoint-3", "client-2", "client-3"];

/// Clients, with the node they are on.
const CLIENTS: [(&str, usize); 3] = [("client-1", 1), ("client-2", 1), ("client-3", 2)];
/// One served on node 1, one by two endpoints on node 2.
const SERVICES: [&str; 2] = ["one", "two"];
/// Of each service, the node that serves it.
const SERVED_ON: [usize; 2] = [1, 2];
/// Connections to each service that stand from the beginning to the end, at each client.
const STANDING: usize = 2;
/// Connections that come and go, at most so many at each client at a time.
const PASSING: usize = 6;
/// So that many lifetimes fit into a run.
pub(crate) const TOKENS: Duration = Duration::from_secs(30);
/// Milliseconds.
const LIVENESS: u64 = 200;
/// After a kill all must be well again within this time, or it counts as never.
const HEALED: Duration = Duration::from_secs(30);

/// What takes longer than this is told.
const LONG: Duration = Duration::from_secs(2);

/// What happened since the last count.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub(crate) connected: u64,
    pub(crate) closed: u64,
    pub(crate) kills: u64,
    /// What should have worked and did not, in words.
    pub(crate) failed: Vec<String>,
    /// The longest that anything took to be well again.
    pub(crate) longest: Duration,
}

pub(crate) struct Churn {
    pub(crate) mesh: Mesh,
    dice: Random,
    /// At each client: what comes and goes, with the service it is to.
    passing: BTreeMap<&'static str, Vec<(String, &'static str)>>,
    /// What should stand and does not, with its URL: it is asked for again.
    missing: BTreeMap<String, (&'static str, String)>,
    number: u64,
    tally: Tally,
}

fn standing(client: &str) -> impl Iterator<Item = (String, String)> {
    let all = SERVICES.into_iter().flat_map(|service| (0..STANDING).map(move |number| (service, number)));
    all.map(move |(service, number)| {
        (format!("{client}-{service}-{number}"), url(service, &format!("{service}-{number}")))
    })
}

fn url(service: &str, interface: &str) -> String {
    format!("kernel://{service}/{interface}")
}

impl Churn {
    pub(crate) async fn start(seed: u64) -> Result<Self, Failure> {
        let mut mesh = Mesh::new(2).await?;
        mesh.start("registry", 1, TOKENS, Role::Registry).await?;
        for node in 1..=2 {
            mesh.start(&format!("nsmgr-{node}"), node, TOKENS, Role::Manager).await?;
            mesh.start(&format!("forwarder-{node}"), node, TOKENS, Role::Forwarder).await?;
        }
        for service in SERVICES {
            mesh.apply(service).await?;
        }
        for (number, node, service) in [(1, 1, "one"), (2, 2, "two"), (3, 2, "two")] {
            let role = Role::Endpoint { service: service.to_owned(), prefix: format!("10.{number}.0.0/16") };
            mesh.start(&format!("endpoint-{number}"), node, TOKENS, role).await?;
        }
        let passing = CLIENTS.iter().map(|(client, _)| (*client, Vec::new())).collect();
        let mut churn = Self {
            mesh,
            dice: Random::new(seed),
            passing,
            missing: BTreeMap::new(),
            number: 0,
            tally: Tally::default(),
        };
        for (client, node) in CLIENTS {
            churn.mesh.start(client, node, TOKENS, Role::Client { liveness: LIVENESS }).await?;
            for (id, url) in standing(client) {
                churn.stand(client, &id, &url).await?;
            }
        }
        churn.healed("the start").await?;
        Ok(churn)
    }

    /// Connects, closes and kills until then.
    pub(crate) async fn until(&mut self, end: Instant) -> Result<(), Failure> {
        for (id, (client, url)) in std::mem::take(&mut self.missing) {
            self.stand(client, &id, &url).await?;
        }
        while Instant::now() < end {
            for _ in 0..3 + self.dice.below(4) {
                self.come_or_go().await?;
            }
            let victim = KILLED[self.dice.below(KILLED.len())];
            self.kill(victim).await?;
            sleep(Duration::from_millis(200 + self.dice.below(1800) as u64)).await;
        }
        Ok(())
    }

    /// Closes what is not to stand, waits until all that stands is well, and for a while until nothing else is left. Tells
    /// what happened since the last time.
    pub(crate) async fn settle(&mut self, patience: Duration) -> Result<Tally, Failure> {
        for (client, _) in CLIENTS {
            while let Some((id, _)) = self.passing.get_mut(client).and_then(Vec::pop) {
                self.close(client, &id).await?;
            }
        }
        self.healed("the end of a minute").await?;
        let end = Instant::now() + patience;
        while self.left().await? > 0 && Instant::now() < end {
            sleep(Duration::from_millis(100)).await;
        }
        Ok(std::mem::take(&mut self.tally))
    }

    /// How many interfaces, and connections at managers and forwarders, there are too many.
    pub(crate) async fn left(&mut self) -> Result<usize, Failure> {
        // Each connection has an interface at each end.
        let mut left = self.mesh.wire_ends().await?.saturating_sub(self.connections().count() * 2);
        for node in 1..=2 {
            for role in ["nsmgr", "forwarder"] {
                let known = self.mesh.connections(&format!("{role}-{node}")).await?;
                left += known.saturating_sub(self.passing_through(node));
            }
        }
        Ok(left)
    }

    /// All connections: the node of the client, and of the endpoint.
    fn connections(&self) -> impl Iterator<Item = (usize, usize)> {
        let served_on = |service: &str| {
            SERVICES.iter().zip(SERVED_ON).find(|(name, _)| **name == service).map_or(0, |(_, node)| node)
        };
        CLIENTS.into_iter().flat_map(move |(client, node)| {
            let stand = SERVICES.into_iter().flat_map(|service| [service; STANDING]);
            let pass = self.passing.get(client).into_iter().flatten().map(|(_, service)| *service);
            stand.chain(pass).map(move |service| (node, served_on(service)))
        })
    }

    /// How many connections go through the roles of a node.
    fn passing_through(&self, node: usize) -> usize {
        self.connections().filter(|(client, endpoint)| *client == node || *endpoint == node).count()
    }

    /// How many connections stand.
    pub(crate) fn open() -> usize {
        CLIENTS.len() * SERVICES.len() * STANDING
    }

    /// Closes everything. Tells what is left.
    pub(crate) async fn leave(self) -> Result<Vec<String>, Failure> {
        self.mesh.leave().await
    }

    async fn come_or_go(&mut self) -> Result<(), Failure> {
        let (client, _) = CLIENTS[self.dice.below(CLIENTS.len())];
        let passing = self.passing.entry(client).or_default();
        if self.dice.below(PASSING) < passing.len() {
            let (id, _) = passing.swap_remove(self.dice.below(passing.len()));
            return self.close(client, &id).await;
        }
        self.number += 1;
        let (id, interface) = (format!("{client}-passing-{}", self.number), format!("p-{}", self.number));
        let service = SERVICES[self.dice.below(SERVICES.len())];
        if self.connect(client, &id, &url(service, &interface)).await? {
            self.passing.entry(client).or_default().push((id, service));
        }
        Ok(())
    }

    /// Connects what is to stand.
    async fn stand(&mut self, client: &'static str, id: &str, url: &str) -> Result<(), Failure> {
        if !self.connect(client, id, url).await? {
            self.missing.insert(id.to_owned(), (client, url.to_owned()));
        }
        Ok(())
    }

    async fn connect(&mut self, client: &str, id: &str, url: &str) -> Result<bool, Failure> {
        let said = self.mesh.process(client)?.ask(&format!("connect {id} {url}")).await?;
        self.tally.connected += 1;
        tracing::info!(id, said);
        let connected = said.starts_with("connected");
        self.expect(&format!("connect {id}"), connected, &said);
        Ok(connected)
    }

    async fn close(&mut self, client: &str, id: &str) -> Result<(), Failure> {
        let said = self.mesh.process(client)?.ask(&format!("close {id}")).await?;
        self.tally.closed += 1;
        tracing::info!(id, said);
        self.expect(&format!("close {id}"), said == "closed", &said);
        Ok(())
    }

    fn expect(&mut self, what: &str, well: bool, said: &str) {
        if !well {
            eprintln!("{what}: {said}");
            self.tally.failed.push(format!("{what}: {said}"));
        }
    }

    async fn kill(&mut self, victim: &'static str) -> Result<(), Failure> {
        tracing::info!(victim, "killed");
        self.mesh.kill(victim).await?;
        sleep(Duration::from_millis(self.dice.below(300) as u64)).await;
        self.mesh.restart(victim).await?;
        self.tally.kills += 1;
        if self.passing.contains_key(victim) {
            self.remember(victim).await?;
        }
        self.healed(victim).await
    }

    /// A client that was killed goes on with what stands, and closes the rest.
    async fn remember(&mut self, client: &'static str) -> Result<(), Failure> {
        let said = self.mesh.process(client)?.ask("remember").await?;
        self.expect(&format!("{client} remembers"), said.ends_with("remembered"), &said);
        for (id, url) in standing(client) {
            self.stand(client, &id, &url).await?;
        }
        self.passing.entry(client).or_default().clear();
        let said = self.mesh.process(client)?.ask("forget").await?;
        self.expect(&format!("{client} forgets"), said.ends_with("forgotten"), &said);
        Ok(())
    }

    /// Waits until packets get through all that is connected, and managers and forwarders know of it: only then a second
    /// death is no longer part of the first one.
    async fn healed(&mut self, after: &str) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut last = String::new();
        while let Some(ill) = self.ill().await? {
            if begun.elapsed() > HEALED {
                self.expect(&format!("after the death of {after}"), false, &ill);
                break;
            }
            last = ill;
            sleep(Duration::from_millis(20)).await;
        }
        if begun.elapsed() > LONG {
            eprintln!("well again {} ms after the death of {after}; last was: {last}", begun.elapsed().as_millis());
        }
        self.tally.longest = self.tally.longest.max(begun.elapsed());
        Ok(())
    }

    /// What is not well, if anything is not.
    async fn ill(&mut self) -> Result<Option<String>, Failure> {
        for (client, _) in CLIENTS {
            let missing = self.missing.values().filter(|(at, _)| *at == client).count();
            let wanted = SERVICES.len() * STANDING + self.passing.get(client).map_or(0, Vec::len) - missing;
            let said = self.mesh.process(client)?.ask("ping").await?;
            if said != format!("{wanted} {wanted}") {
                return Ok(Some(format!("{client} wants {wanted}, and has (alive, all): {said}")));
            }
        }
        for node in 1..=2 {
            for role in ["nsmgr", "forwarder"] {
                let (role, wanted) = (format!("{role}-{node}"), self.passing_through(node) - self.missing.len());
                let known = self.mesh.connections(&role).await?;
                if known < wanted {
                    return Ok(Some(format!("{role} knows {known} of {wanted} connections")));
                }
            }
        }
        Ok(None)
    }
}
