//! What a seed makes: a mesh, and a storm over it.

use std::time::Duration;

use crate::Random;

/// What kind of weather.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Programs and nodes are killed, and start again, with and without memory.
    Kill,
    /// Ways are cut, both ways or one way; links fall silent; programs freeze.
    Partition,
    /// Everything takes long, and some of it is lost.
    Slow,
    /// Tokens and certificates are short, the authority is absent, clients vanish.
    Expiry,
    /// All of it.
    Mixed,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Kill, Self::Partition, Self::Slow, Self::Expiry, Self::Mixed];

    /// As one writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Partition => "partition",
            Self::Slow => "slow",
            Self::Expiry => "expiry",
            Self::Mixed => "mixed",
        }
    }
}

impl std::str::FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|profile| profile.name() == text).ok_or_else(|| format!("one of {}", names()))
    }
}

/// A mesh and what happens to it, all by one seed.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Nodes, each with a manager and a forwarder.
    pub nodes: usize,
    /// Of each endpoint its node.
    pub endpoints: Vec<usize>,
    /// The clients.
    pub clients: Vec<Client>,
    /// How long tokens live.
    pub token_life: Duration,
    /// How long certificates live; none: for ever.
    pub certificate_life: Option<Duration>,
    /// When the storm is over, from its beginning on.
    pub over: Duration,
    /// How long the data plane takes to change a wire, until the storm is over.
    pub programming: Duration,
    /// What no connection may notice, if the storm is of that kind.
    pub gentle: Option<Gentle>,
    /// The faults, in the order of time.
    pub faults: Vec<Fault>,
}

/// A storm that no connection may notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gentle {
    /// The service sends clients elsewhere: each has a connection all the time.
    Moves,
    /// Answers take long, or never come: nothing breaks but what an application wants afresh.
    Waits,
}

/// One client.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its node.
    pub node: usize,
    /// When it first asks.
    pub asks: Duration,
    /// Whether it looks after the packets itself.
    pub watches_packets: bool,
}

/// Something bad.
#[derive(Debug, Clone)]
pub struct Fault {
    /// When.
    pub at: Duration,
    /// For how long, if it does not last to the end of the storm.
    pub lasts: Duration,
    /// What.
    pub what: What,
}

/// What can happen. Numbers count nodes, endpoints and clients from 0.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// An endpoint is killed, and starts again.
    Endpoint(usize),
    /// An endpoint is killed, and does not come back.
    EndpointForGood(usize),
    /// An endpoint declines what it is asked for, and keeps what it has.
    Declines(usize),
    /// A forwarder is killed, and starts again.
    Forwarder(usize),
    /// A manager is killed, and starts again.
    Manager(usize),
    /// The registry is killed, and starts again, with its disk or without.
    Registry {
        /// With it.
        remembers: bool,
    },
    /// A client is killed, and starts again.
    Client(usize),
    /// A client is killed, and does not come back.
    ClientForGood(usize),
    /// A client closes its connection, and asks again.
    Churn(usize),
    /// A client closes its connection, and asks again with so many milliseconds' patience only.
    Hasty(usize, u64),
    /// A node loses its power, with all that runs on it but clients, which end for good.
    Node(usize),
    /// Nothing gets through between two ends.
    Cut(String, String),
    /// Nothing gets through from one end to the other.
    OneWay(String, String),
    /// Open links fall silent.
    Silence(String, String),
    /// A program is stopped, and goes on.
    Freeze(String),
    /// What is sent takes up to so many milliseconds.
    Slow(String, String, u64),
    /// So much of a hundred is lost.
    Lossy(String, String, u32),
    /// The authority is absent.
    Authority,
    /// The data plane refuses changes of a forwarder.
    Refuses(usize),
    /// A forwarder can make no further wire.
    Full(usize),
    /// The service lets nobody have an endpoint.
    Elsewhere(usize),
    /// An endpoint takes so many milliseconds for an answer.
    Dawdles(usize, u64),
    /// An application wants its connection chosen afresh.
    Afresh(usize),
}

/// By then every client of a storm that begins gently has its connection.
const CONNECTED: Duration = Duration::from_secs(2);

impl What {
    /// How much longer it is felt than it lasts.
    fn answers_late(&self) -> Duration {
        if let Self::Dawdles(_, millis) = self { Duration::from_millis(*millis) } else { Duration::ZERO }
    }
}

impl Plan {
    /// What this seed makes.
    #[must_use]
    pub fn new(profile: Profile, seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x005e_ed00_0000_0000);
        let random = &mut random;
        let nodes = random.between(1, 5);
        // Few more often than many: what goes wrong mostly does so with two, and some needs a crowd.
        let most = [2, 4, 8, 16, 50][random.below(5)];
        let clients = random.between(1, most);
        let watching = random.percent(30);
        let endpoints = (0..random.between(1, 4)).map(|_| random.below(nodes)).collect::<Vec<_>>();
        let expiry = profile == Profile::Expiry || (profile == Profile::Mixed && random.percent(30));
        let over = millis(random, 2_000, 15_000);
        let clients = (0..clients)
            .map(|_| Client {
                node: random.below(nodes),
                asks: millis(random, 0, 1_000),
                watches_packets: watching && random.percent(50),
            })
            .collect::<Vec<_>>();
        let mut plan = Self {
            nodes,
            endpoints,
            clients,
            token_life: if expiry { millis(random, 8_000, 20_000) } else { millis(random, 30_000, 90_000) },
            certificate_life: expiry.then(|| millis(random, 10_000, 30_000)),
            over,
            programming: Duration::ZERO,
            gentle: None,
            faults: Vec::new(),
        };
        for _ in 0..random.between(1, 8) {
            let at = random.below(over.as_millis().try_into().unwrap_or(usize::MAX));
            let lasts = millis(random, 1, 6_000);
            let what = plan.draw(profile, random);
            plan.faults.push(Fault { at: Duration::from_millis(at as u64), lasts, what });
        }
        plan.spare_hops(profile, seed);
        plan.be_gentle(profile, seed);
        plan.faults.sort_by_key(|fault| fault.at);
        plan
    }

    /// Makes a storm in five one of its own kind: all hops but endpoints are there and remember, and so, soon after it,
    /// nothing may be left of what failed.
    fn spare_hops(&mut self, profile: Profile, seed: u64) {
        // A generator of its own: other storms are what they would be without this.
        let random = &mut Random::new(seed ^ 0x005e_ed00_0000_0001 ^ ((profile as u64) << 56));
        if profile == Profile::Partition || !random.percent(20) {
            return;
        }
        self.programming = millis(random, 0, 60);
        self.faults.clear();
        for _ in 0..random.between(2, 8) {
            let at = Duration::from_millis(random.below(self.over.as_millis() as usize) as u64);
            let lasts = millis(random, 1, 6_000);
            let (node, client) = (random.below(self.nodes), random.below(self.clients.len()));
            let endpoint = random.below(self.endpoints.len());
            let what = match random.below(10) {
                0..2 => What::Endpoint(endpoint),
                2 => What::EndpointForGood(endpoint),
                3 => What::Churn(client),
                4 | 5 => What::Full(node),
                6 | 7 => What::Declines(endpoint),
                _ => What::Hasty(client, random.between(1, 150) as u64),
            };
            self.faults.push(Fault { at, lasts, what });
        }
    }

    /// Makes a storm in eight one that no connection may notice.
    fn be_gentle(&mut self, profile: Profile, seed: u64) {
        let random = &mut Random::new(seed ^ 0x005e_ed00_0000_0002 ^ ((profile as u64) << 56));
        if profile == Profile::Partition || !random.percent(12) {
            return;
        }
        let gentle = match profile {
            Profile::Kill => Gentle::Moves,
            Profile::Mixed if random.percent(50) => Gentle::Moves,
            _ => Gentle::Waits,
        };
        self.gentle = Some(gentle);
        self.programming = Duration::ZERO;
        self.certificate_life = None;
        self.token_life = millis(random, 30_000, 90_000);
        self.faults = match (gentle, random.below(3)) {
            (Gentle::Moves, _) => self.moves(random),
            (Gentle::Waits, 0) => self.late_answers(random),
            (Gentle::Waits, 1) => self.lost_requests(random),
            (Gentle::Waits, _) => self.fresh_choices(random),
        };
        // What was asked just before the last one ends has its answer by then.
        let ends = self.faults.iter().map(|fault| fault.at + fault.lasts + fault.what.answers_late());
        self.over = ends.max().unwrap_or(self.over);
    }

    /// Endpoints that nobody may have for a while, one after the other, and others that take nobody just then. A manager
    /// gives clients five seconds to move.
    fn moves(&self, random: &mut Random) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut at = CONNECTED;
        for _ in 0..random.between(1, 5) {
            let lasts = millis(random, 1_000, 4_000);
            faults.push(Fault { at, lasts, what: What::Elsewhere(random.below(self.endpoints.len())) });
            if random.percent(60) {
                let before = millis(random, 1, 100);
                let what = What::Declines(random.below(self.endpoints.len()));
                faults.push(Fault { at: at - before, lasts: millis(random, 1_000, 5_000), what });
            }
            at += Duration::from_secs(6);
        }
        faults
    }

    /// Answers to refreshes that come when the token before has ended.
    fn late_answers(&mut self, random: &mut Random) -> Vec<Fault> {
        self.token_life = millis(random, 10_000, 18_000);
        let mut late = |endpoint| {
            let takes = self.token_life.mul_f64(random.between(50, 70) as f64 / 100.0);
            let what = What::Dawdles(endpoint, takes.as_millis() as u64);
            Fault { at: CONNECTED + millis(random, 0, 10_000), lasts: millis(random, 10_000, 30_000), what }
        };
        (0..self.endpoints.len()).map(&mut late).collect()
    }

    /// Refreshes that never arrive, and are tried again in time.
    fn lost_requests(&mut self, random: &mut Random) -> Vec<Fault> {
        self.token_life = millis(random, 75_000, 90_000);
        let mut lost = |(number, client): (usize, &Client)| {
            let what = What::Lossy(client_name(number), format!("nsmgr-{}", name(client.node)), 100);
            Fault { at: CONNECTED + millis(random, 0, 30_000), lasts: millis(random, 11_000, 14_000), what }
        };
        self.clients.iter().enumerate().map(&mut lost).collect()
    }

    /// Applications that want another choice, while news of the former one may be slower than the answer.
    fn fresh_choices(&self, random: &mut Random) -> Vec<Fault> {
        let mut faults = Vec::new();
        for _ in 0..random.between(2, 8) {
            let number = random.below(self.clients.len());
            let (manager, client) = (format!("nsmgr-{}", name(self.clients[number].node)), client_name(number));
            let at = CONNECTED + millis(random, 0, 10_000);
            let slow = What::Slow(manager, client, random.between(100, 3_000) as u64);
            faults.push(Fault { at, lasts: millis(random, 5_000, 10_000), what: slow });
            let after = millis(random, 1, 1_000);
            faults.push(Fault { at: at + after, lasts: Duration::ZERO, what: What::Afresh(number) });
        }
        faults
    }

    /// How often a client may ask in so much quiet time: a refresh comes after a fifth of the shortest token's life,
    /// less a tenth of that, at the earliest, and tokens live half as long as certificates at least.
    #[must_use]
    pub fn refreshes(&self, quiet: Duration) -> usize {
        let shortest = self.certificate_life.map_or(self.token_life, |life| self.token_life.min(life / 2));
        (quiet.as_secs_f64() / (shortest.as_secs_f64() * 0.18)) as usize + 5
    }

    /// Whether some clients look after their packets.
    #[must_use]
    pub fn watches_packets(&self) -> bool {
        self.clients.iter().any(|client| client.watches_packets)
    }

    /// Whether nobody may know that an endpoint is dead: its manager or the registry has forgotten it, the forwarder that
    /// had it has forgotten where it was, and what is left of it carries packets. It may as well be about to register
    /// again.
    #[must_use]
    pub fn hides_a_death(&self) -> bool {
        let any = |of: fn(&What) -> bool| self.faults.iter().any(|fault| of(&fault.what));
        any(|what| matches!(what, What::Manager(_) | What::Node(_) | What::Registry { remembers: false }))
            && any(|what| matches!(what, What::EndpointForGood(_)))
            && any(|what| matches!(what, What::Forwarder(_) | What::Node(_)))
    }

    /// Whether managers and the registry are all that is disturbed: no wire is touched then.
    #[must_use]
    pub fn spares_wires(&self) -> bool {
        self.faults.iter().all(|fault| matches!(fault.what, What::Manager(_) | What::Registry { .. }))
    }

    /// Whether every hop but endpoints is there and remembers: then nothing need wait for tokens to end.
    #[must_use]
    pub fn spares_hops(&self) -> bool {
        let spares = |what: &What| {
            matches!(
                what,
                What::Endpoint(_)
                    | What::EndpointForGood(_)
                    | What::Declines(_)
                    | What::Churn(_)
                    | What::Hasty(..)
                    | What::Full(_)
            )
        };
        self.faults.iter().all(|fault| spares(&fault.what))
    }

    fn draw(&self, profile: Profile, random: &mut Random) -> What {
        let node = random.below(self.nodes);
        let endpoint = random.below(self.endpoints.len());
        let client = random.below(self.clients.len());
        match profile {
            Profile::Kill => match random.below(12) {
                0..3 => What::Endpoint(endpoint),
                3 => What::EndpointForGood(endpoint),
                4 | 5 => What::Forwarder(node),
                6 | 7 => What::Manager(node),
                8 => What::Registry { remembers: random.percent(50) },
                9 => What::Client(client),
                10 => {
                    if random.percent(50) {
                        What::ClientForGood(client)
                    } else {
                        What::Churn(client)
                    }
                }
                _ => What::Node(node),
            },
            Profile::Partition => match random.below(8) {
                0..3 => {
                    let (one, other) = self.ends(random);
                    What::Cut(one, other)
                }
                3 | 4 => {
                    let (one, other) = self.ends(random);
                    What::OneWay(one, other)
                }
                5 => {
                    let (one, other) = self.ends(random);
                    What::Silence(one, other)
                }
                6 => What::Churn(client),
                _ => What::Freeze(self.program(random)),
            },
            Profile::Slow => match random.below(8) {
                0..3 => {
                    let (one, other) = self.ends(random);
                    What::Slow(one, other, random.between(1, 3_000) as u64)
                }
                3 => What::Slow("*".into(), "*".into(), random.between(1, 300) as u64),
                4 | 5 => {
                    let (one, other) = self.ends(random);
                    What::Lossy(one, other, 5 + random.below(50) as u32)
                }
                6 => What::Refuses(node),
                _ => What::Churn(client),
            },
            Profile::Expiry => match random.below(8) {
                0..4 => What::Authority,
                4 => What::ClientForGood(client),
                5 => What::Client(client),
                6 => What::Churn(client),
                _ => What::Cut(format!("nsmgr-{}", name(node)), "*".into()),
            },
            Profile::Mixed => {
                let of = [Profile::Kill, Profile::Partition, Profile::Slow, Profile::Expiry][random.below(4)];
                self.draw(of, random)
            }
        }
    }

    /// Two ends of calls.
    fn ends(&self, random: &mut Random) -> (String, String) {
        match random.below(4) {
            0 => (name(random.below(self.nodes)), name(random.below(self.nodes))),
            1 => (self.program(random), "*".into()),
            2 => (name(random.below(self.nodes)), "registry".into()),
            _ => {
                let node = random.below(self.nodes);
                (format!("nsmgr-{}", name(node)), format!("forwarder-{}", name(node)))
            }
        }
    }

    fn program(&self, random: &mut Random) -> String {
        let node = random.below(self.nodes);
        match random.below(5) {
            0 => format!("nsmgr-{}", name(node)),
            1 => format!("forwarder-{}", name(node)),
            2 => endpoint_name(random.below(self.endpoints.len())),
            3 => client_name(random.below(self.clients.len())),
            _ => "registry".into(),
        }
    }
}

/// The name of a node.
pub(super) fn name(node: usize) -> String {
    format!("node-{node}")
}

/// The name of an endpoint.
pub(super) fn endpoint_name(endpoint: usize) -> String {
    format!("nse-{endpoint}")
}

/// The name of a client.
pub(super) fn client_name(client: usize) -> String {
    format!("nsc-{client}")
}

fn millis(random: &mut Random, least: usize, most: usize) -> Duration {
    Duration::from_millis(random.between(least, most) as u64)
}
