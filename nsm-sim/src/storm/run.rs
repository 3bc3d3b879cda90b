use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nsm_chain::Result;
use nsm_sdk::lifetime::Reason;
use nsm_sdk::testing::invariants::{self, Since, Violation, Wanted};
use nsm_sdk::testing::{Census, RunningEndpoint};
use tokio::time::Instant;

use super::plan::{Fault, Gentle, Plan, Profile, What, name};
use super::world::{self, LIVENESS, User, World};
use crate::Simulation;

/// Once nothing is disturbed any more, everybody who wants a connection has it after that time.
const BOUND: Duration = Duration::from_secs(1);

/// The same where a client that sees that packets flow first waits two seconds for an endpoint that nobody finds any more,
/// and that may be about to register again (docs/healing.md).
const HIDDEN: Duration = Duration::from_secs(3);

/// How long it is waited for those who are late.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often it is looked whether all is well.
const LOOK: Duration = Duration::from_millis(50);

/// How long a new mesh takes to watch over itself.
const SETTLED: Duration = Duration::from_secs(1);

/// After the life of a token a forwarder removes what nobody took up when it next looks.
const SWEPT: Duration = Duration::from_secs(40);

/// After that time a former next hop has had its Close.
const FAREWELL: Duration = Duration::from_secs(16);

/// As often as a client that heals may ask in a second, and for each fault beside: more is a loop.
const HEALING: (usize, usize) = (16, 40);

/// How long streams and caches linger when nobody uses them.
const LINGER: Duration = Duration::from_secs(120);

/// No storm takes that long, with all that is looked at after it.
const LONGEST: Duration = Duration::from_secs(2 * 3600);

/// One storm: a profile and a seed.
///
/// ```
/// use nsm_sim::storm::{Profile, Storm};
///
/// let outcome = Storm::new(Profile::Kill, 1).run();
/// assert_eq!(outcome.violations, Vec::<String>::new());
/// assert_eq!(outcome.trace, Storm::new(Profile::Kill, 1).run().trace);
/// ```
#[derive(Debug, Clone)]
pub struct Storm {
    profile: Profile,
    seed: u64,
    records: bool,
}

/// How a storm went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What did not hold.
    pub violations: Vec<String>,
    /// A number that stands for everything that happened.
    pub trace: u64,
    /// What happened, if that was recorded.
    pub lines: Vec<String>,
    /// How long it took, from the last fault's end, until all was well; none: it never was.
    pub healed: Option<Duration>,
}

impl Storm {
    /// The storm of that seed.
    #[must_use]
    pub fn new(profile: Profile, seed: u64) -> Self {
        Self { profile, seed, records: false }
    }

    /// Also records what happens, as text.
    #[must_use]
    pub fn recorded(mut self) -> Self {
        self.records = true;
        self
    }

    /// Runs it.
    ///
    /// # Panics
    /// As [`Simulation::run`].
    #[must_use]
    pub fn run(&self) -> Outcome {
        let plan = Plan::new(self.profile, self.seed);
        let records = self.records;
        Simulation::new(self.seed).run(async move {
            let violation = match tokio::time::timeout(LONGEST, weather(&plan, records)).await {
                Ok(Ok(outcome)) => return outcome,
                Ok(Err(error)) => format!("the mesh cannot be built: {error}"),
                Err(_) => format!("the storm has not ended after {LONGEST:?}"),
            };
            Outcome { violations: vec![violation], trace: 0, lines: Vec::new(), healed: None }
        })
    }
}

/// What happens next.
enum Next<'a> {
    Starts(usize),
    Begins(&'a Fault),
    Ends(&'a Fault),
}

async fn weather(plan: &Plan, records: bool) -> Result<Outcome> {
    let mut world = World::build(plan).await?;
    let outcome = storm(plan, &mut world, records).await;
    world.mesh.end_all();
    outcome
}

async fn storm(plan: &Plan, world: &mut World, records: bool) -> Result<Outcome> {
    if records {
        world.mesh.network().record();
    }
    world.mesh.wires().takes(plan.programming);
    // What the mesh itself begins, it has begun by then.
    tokio::time::sleep(SETTLED).await;
    let before = world.census();
    let begun = Instant::now();
    let mut healthy = Since::new();
    let mut agenda: Vec<(Duration, Next<'_>)> = Vec::new();
    agenda.extend(plan.clients.iter().enumerate().map(|(number, client)| (client.asks, Next::Starts(number))));
    for fault in &plan.faults {
        agenda.push((fault.at, Next::Begins(fault)));
        agenda.push(((fault.at + fault.lasts).min(plan.over), Next::Ends(fault)));
    }
    agenda.sort_by_key(|(at, _)| *at);
    let mut violations = Vec::new();
    for (at, next) in agenda {
        tokio::time::sleep_until(begun + at).await;
        match next {
            Next::Starts(number) => world.clients[number].start()?,
            Next::Begins(fault) => {
                world.note(format_args!("FAULT {:?} for {:?}", fault.what, fault.lasts));
                if plan.spares_wires() {
                    // Those who see no packets rather take another endpoint than wait for a manager (docs/healing.md).
                    world.standing(&mut healthy, User::watches_packets);
                }
                world.begin(&fault.what).await?;
            }
            Next::Ends(fault) => {
                if plan.gentle == Some(Gentle::Moves) {
                    let ill = world.ill_for_a_moment().await;
                    violations.extend(ill.iter().map(|ill| format!("before {:?} ends: {ill}", fault.what)));
                }
                world.note(format_args!("ENDS {:?}", fault.what));
                world.end(&fault.what).await?;
            }
        }
    }
    tokio::time::sleep_until(begun + plan.over).await;
    world.calm();
    world.note(format_args!("CALM"));

    let bound = match plan.watches_packets() {
        true if plan.hides_a_death() => HIDDEN + LIVENESS.0,
        true => BOUND + LIVENESS.0,
        false => BOUND,
    };
    let (healed, ill) = world.wait_until_well(bound).await;
    violations.extend(ill.iter().map(|ill| format!("not healed after {bound:?}, but after {healed:?}: {ill}")));
    world.note(format_args!("HEALED {healed:?}"));
    let most = usize::try_from(begun.elapsed().as_secs()).unwrap_or(usize::MAX).saturating_add(1) * HEALING.0;
    let hurried = invariants::unhurried(&world.asked(&BTreeMap::new()), most + HEALING.1 * (plan.faults.len() + 1));
    violations.extend(hurried.iter().map(ToString::to_string));
    if plan.spares_hops() {
        tokio::time::sleep(FAREWELL).await;
        let census = world.census();
        let left = [invariants::connections(&census), invariants::wires(&census), invariants::vnis(&census)].concat();
        violations.extend(left.iter().map(|violation| format!("soon after: {violation}")));
    }
    // What heals has healed by then: nothing disturbs any wire any more.
    tokio::time::sleep(bound).await;
    world.standing(&mut healthy, |_| true);
    let before_quiet = world.asked(&BTreeMap::new());
    let quiet = plan.token_life + plan.certificate_life.unwrap_or_default() + SWEPT;
    tokio::time::sleep(quiet).await;
    let hurried = invariants::unhurried(&world.asked(&before_quiet), plan.refreshes(quiet));
    violations.extend(hurried.iter().map(|violation| format!("while quiet: {violation}")));
    let cut = invariants::uncut(&world.mesh.wires().take_log(), &healthy);
    violations.extend(cut.iter().map(ToString::to_string));
    let (wanted, census) = (world.wanted(), world.census());
    violations.extend(invariants::while_quiet(&census, &wanted).iter().map(ToString::to_string));
    violations.extend(world.told(&census).iter().map(ToString::to_string));
    for node in &world.nodes {
        let links = node.links("nobody")?;
        let lies = invariants::closes_are_honest(&*links, node.manager_url()).await;
        violations.extend(lies.iter().map(ToString::to_string));
    }

    if plan.gentle == Some(Gentle::Waits) {
        violations.extend(world.broke().iter().map(ToString::to_string));
    }

    world.note(format_args!("CLOSE ALL"));
    for user in &world.clients {
        if let Some(seat) = user.seat()
            && let Err(error) = seat.client.shutdown(Duration::from_secs(15)).await
        {
            violations.push(format!("{} cannot close: {error}", user.name));
        }
    }
    tokio::time::sleep(LINGER).await;
    let census = world.census();
    violations.extend(invariants::as_before(&before, &census).iter().map(ToString::to_string));
    violations.extend(world.told(&census).iter().map(ToString::to_string));
    violations.extend(world.clients.iter().flat_map(|user| user.told_out_of_order()).map(|wrong| wrong.to_string()));
    for (number, endpoint) in world.endpoints.iter().enumerate() {
        let free = endpoint.pool.free();
        if free != 1 << 16 {
            violations.push(format!("{} addresses of endpoint {number} are leased by nobody", (1 << 16) - free));
        }
    }
    let network = world.mesh.network();
    Ok(Outcome { violations, trace: network.trace(), lines: network.lines(), healed })
}

impl World {
    fn note(&self, what: fmt::Arguments<'_>) {
        self.mesh.network().note(what);
    }

    async fn begin(&mut self, what: &What) -> Result<()> {
        let network = self.mesh.network();
        match what {
            What::Endpoint(number) => self.endpoints[*number].running.crash(),
            What::EndpointForGood(number) => {
                let others = self.endpoints.iter().filter(|endpoint| !endpoint.gone).count();
                let endpoint = &mut self.endpoints[*number];
                endpoint.gone |= others > 1;
                endpoint.running.crash();
            }
            What::Declines(number) => self.endpoints[*number].declines(true),
            What::Forwarder(node) => {
                if let Some(forwarder) = self.forwarder(*node) {
                    forwarder.crash();
                }
            }
            What::Manager(node) => self.nodes[*node].stop_manager(),
            What::Registry { .. } => self.mesh.stop_registry(),
            What::Client(number) | What::ClientForGood(number) => self.clients[*number].kill(&self.mesh),
            What::Churn(number) => self.clients[*number].churn()?,
            What::Hasty(number, patience) => {
                self.clients[*number].set_patience(Duration::from_millis(*patience));
                self.clients[*number].churn()?;
            }
            What::Node(node) => {
                self.nodes[*node].stop_manager();
                if let Some(forwarder) = self.forwarder(*node) {
                    forwarder.crash();
                }
                self.endpoints.iter().filter(|endpoint| endpoint.node == *node).for_each(|e| e.running.crash());
                let here = |user: &&Arc<User>| user.node().name() == name(*node);
                self.clients.iter().filter(here).for_each(|user| user.kill(&self.mesh));
                self.mesh.wires().lose_node(&name(*node));
            }
            What::Cut(one, other) => {
                network.cut(one, other);
                self.underlay(one, other, true);
                self.underlay(other, one, true);
            }
            What::OneWay(from, to) => {
                network.cut_one_way(from, to);
                self.underlay(from, to, true);
            }
            What::Silence(one, other) => network.silence(one, other),
            What::Freeze(name) => network.freeze(name),
            What::Slow(from, to, most) => network.slow(from, to, Duration::ZERO..Duration::from_millis(*most)),
            What::Lossy(from, to, percent) => network.lossy(from, to, f64::from(*percent) / 100.0),
            What::Authority => self.mesh.stop_authority(),
            What::Refuses(node) => self.mesh.wires().fail_next_of(&forwarder_of(*node), usize::MAX),
            What::Full(node) => self.mesh.wires().set_full(&forwarder_of(*node), true),
            What::Elsewhere(number) => self.forbid(*number, true).await?,
            What::Dawdles(number, millis) => self.endpoints[*number].takes(*millis),
            What::Afresh(number) => self.clients[*number].choose_afresh(),
        }
        Ok(())
    }

    async fn end(&mut self, what: &What) -> Result<()> {
        let network = self.mesh.network();
        match what {
            What::Endpoint(number) | What::EndpointForGood(number) => self.revive(*number),
            What::Declines(number) => self.endpoints[*number].declines(false),
            What::Forwarder(node) => self.revive_forwarder(*node),
            What::Manager(node) => self.nodes[*node].restart_manager()?,
            What::Registry { remembers: true } => self.mesh.resume_registry()?,
            What::Registry { remembers: false } => self.mesh.restart_registry()?,
            What::Client(number) => self.clients[*number].start()?,
            What::ClientForGood(_) | What::Churn(_) | What::Afresh(_) => {}
            What::Hasty(number, _) => self.clients[*number].set_patience(world::PATIENCE),
            What::Node(node) => {
                self.nodes[*node].restart_manager()?;
                self.revive_forwarder(*node);
                for number in 0..self.endpoints.len() {
                    if self.endpoints[number].node == *node {
                        self.revive(number);
                    }
                }
            }
            What::Cut(one, other) => {
                network.mend_between(one, other);
                self.underlay(one, other, false);
                self.underlay(other, one, false);
            }
            What::OneWay(from, to) => {
                network.mend_between(from, to);
                self.underlay(from, to, false);
            }
            What::Slow(from, to, _) | What::Lossy(from, to, _) => network.mend_between(from, to),
            What::Silence(..) => {}
            What::Freeze(name) => network.thaw(name),
            What::Authority => self.mesh.start_authority(),
            What::Refuses(node) => self.mesh.wires().fail_next_of(&forwarder_of(*node), 0),
            What::Full(node) => self.mesh.wires().set_full(&forwarder_of(*node), false),
            What::Elsewhere(number) => self.forbid(*number, false).await?,
            What::Dawdles(number, _) => self.endpoints[*number].takes(0),
        }
        Ok(())
    }

    /// Nothing is disturbed any more.
    fn calm(&self) {
        self.mesh.network().mend();
        self.mesh.start_authority();
        self.mesh.wires().takes(Duration::ZERO);
    }

    fn forwarder(&self, node: usize) -> Option<RunningEndpoint> {
        self.mesh.running(&forwarder_of(node))
    }

    fn revive(&self, number: usize) {
        let endpoint = &self.endpoints[number];
        if !endpoint.gone {
            restart(endpoint.running.clone());
        }
    }

    fn revive_forwarder(&self, node: usize) {
        if let Some(forwarder) = self.forwarder(node) {
            restart(forwarder);
        }
    }

    /// What is between two nodes is between their addresses as well.
    fn underlay(&self, from: &str, to: &str, cut: bool) {
        let address = |node: &str| Some(self.nodes.iter().find(|one| one.name() == node)?.address());
        if let (Some(from), Some(to)) = (address(from), address(to)) {
            if cut { self.mesh.wires().cut(from, to) } else { self.mesh.wires().mend(from, to) }
        }
    }

    /// Waits until nobody is ill, and says how long that took, and who was when the time was over.
    async fn wait_until_well(&self, bound: Duration) -> (Option<Duration>, Vec<String>) {
        let begun = Instant::now();
        let mut late = Vec::new();
        while begun.elapsed() < PATIENCE {
            let ill = self.ill();
            if ill.is_empty() {
                return (Some(begun.elapsed()), late);
            }
            if late.is_empty() && begun.elapsed() >= bound {
                self.note(format_args!("LATE {ill:?}"));
                late = ill;
            }
            tokio::time::sleep(LOOK).await;
        }
        (None, late)
    }

    /// Who wants a connection and has none through which packets flow.
    fn ill(&self) -> Vec<String> {
        let (census, wanted) = (self.census(), self.wanted());
        let ill = invariants::connected(&census, &wanted).into_iter().chain(invariants::flowing(&census, &wanted));
        ill.map(|violation| violation.to_string()).collect()
    }

    /// Who is ill, and still is a moment later: one who is just moving is not.
    async fn ill_for_a_moment(&self) -> Vec<String> {
        for _ in 0..10 {
            let ill = self.ill();
            if ill.is_empty() {
                return ill;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.ill()
    }

    /// What clients were told to have broken, but for what applications did themselves.
    fn broke(&self) -> Vec<Violation> {
        let seats = self.clients.iter().filter_map(|user| Some((&user.name, user.seat()?)));
        seats.flat_map(|(name, seat)| invariants::nothing_broke(name, &seat.told, &[Reason::Asked])).collect()
    }

    /// How often each client has asked since.
    fn asked(&self, since: &BTreeMap<String, usize>) -> BTreeMap<String, usize> {
        let count = |user: &Arc<User>| {
            let before = since.get(&user.name).copied().unwrap_or_default();
            (user.name.clone(), user.asked() - before)
        };
        self.clients.iter().map(count).collect()
    }

    /// Notes the wires of these clients through which packets flow now, and which nothing will touch.
    fn standing(&self, healthy: &mut Since, whose: impl Fn(&User) -> bool) {
        let theirs = |name: &String| self.clients.iter().any(|user| user.name == *name && whose(user));
        let census = self.census();
        let clients = census.clients.iter().filter(|(name, _)| theirs(name)).map(|(_, client)| client);
        for connection in clients.flat_map(|client| client.connections.values()).flatten() {
            let trail = self.mesh.wires().flows(connection).map(|trail| trail.wires).unwrap_or_default();
            for wire in trail {
                healthy.entry(wire).or_insert_with(Instant::now);
            }
        }
    }

    /// Whether clients that run were told how it is.
    fn told(&self, census: &Census) -> Vec<Violation> {
        let seats = self.clients.iter().filter_map(|user| Some((&user.name, user.seat()?)));
        seats.flat_map(|(name, seat)| invariants::told(name, &seat.told, &census.clients[name])).collect()
    }

    /// What clients that run want.
    fn wanted(&self) -> Wanted {
        let running = self.clients.iter().filter(|user| user.seat().is_some());
        running.map(|user| (user.name.clone(), user.id())).collect()
    }

    fn census(&self) -> Census {
        let seats: Vec<_> = self.clients.iter().filter_map(|user| Some((user, user.seat()?))).collect();
        let clients = seats.iter().map(|(user, seat)| (user.name.as_str(), &**seat.client.connections(), &seat.timers));
        self.mesh.census(clients)
    }
}

fn forwarder_of(node: usize) -> String {
    format!("forwarder-{}", name(node))
}

/// Starts it again, and keeps trying to register it.
fn restart(program: RunningEndpoint) {
    tokio::spawn(async move {
        let mut registered = program.restart().await;
        while registered.is_err() && program.is_running() {
            tokio::time::sleep(Duration::from_millis(200)).await;
            registered = program.register().await;
        }
    });
}
