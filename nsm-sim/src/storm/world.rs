use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use ipnet::IpNet;
use nsm_api::connection::State;
use nsm_api::mechanism::keys;
use nsm_api::networkservice::NetworkServiceRequest;
use nsm_api::registry::{Destination, Match, NetworkService};
use nsm_api::{Connection, ServiceUrl, payload};
use nsm_chain::{Call, Element, Error, Handle, Next, Result, Timers, elements};
use nsm_mechanisms::memory::Fabric;
use nsm_sdk::ipam::{PointToPoint, Pool};
use nsm_sdk::lifecycle::Lifecycle;
use nsm_sdk::lifetime::Liveness;
use nsm_sdk::stacks::Client;
use nsm_sdk::testing::invariants::{Told, Violation};
use nsm_sdk::testing::{Mesh, Node, RunningEndpoint};
use tokio::task::AbortHandle;

use super::plan::{Plan, client_name, endpoint_name, name};

/// The network service that all clients want.
pub(super) const SERVICE: &str = "vpn";

/// The label by which a service tells endpoints apart.
const NAME: &str = "name";

/// How long an application waits for its connection before it asks once more.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// How often a client looks after its packets, and how long they may take.
pub(super) const LIVENESS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(100));

/// The mesh of a plan.
pub(super) struct World {
    pub(super) mesh: Mesh,
    pub(super) nodes: Vec<Node>,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) clients: Vec<Arc<User>>,
}

/// An endpoint, and whether it is to run.
pub(super) struct Endpoint {
    pub(super) running: RunningEndpoint,
    pub(super) node: usize,
    pub(super) gone: bool,
    /// For how many reasons nobody may have it.
    forbidden: usize,
    /// The addresses it gives.
    pub(super) pool: Pool,
    moods: Moods,
}

/// Somebody who wants one connection, and his client while it lives.
pub(super) struct User {
    pub(super) name: String,
    node: Node,
    wires: Option<Fabric>,
    namespaces: AtomicUsize,
    seat: Mutex<Option<Seat>>,
    /// How long he waits for his connection, in milliseconds.
    patience: AtomicU64,
    asked: Asked,
    /// What the clients of his former lives were told.
    former: Mutex<Vec<Told>>,
}

/// One life of a client.
#[derive(Clone)]
pub(super) struct Seat {
    pub(super) client: Client,
    pub(super) timers: Timers,
    pub(super) told: Told,
    asking: AbortHandle,
}

impl World {
    pub(super) async fn build(plan: &Plan) -> Result<Self> {
        let mesh = Mesh::builder().token_life(plan.token_life).durable_registry();
        let mesh = match plan.certificate_life {
            Some(life) => mesh.certificate_life(life),
            None => mesh,
        };
        let mesh = mesh.build()?;
        mesh.wires().keep_log();
        mesh.network_service(SERVICE).await?;
        let mut nodes = Vec::new();
        for node in 0..plan.nodes {
            nodes.push(mesh.node(&name(node)).await?);
        }
        let mut endpoints = Vec::new();
        for (number, &node) in plan.endpoints.iter().enumerate() {
            let prefix: IpNet = format!("10.{number}.0.0/16").parse().map_err(wrong)?;
            let pool = Pool::new([prefix]).map_err(wrong)?;
            // Strict: what a client brings from elsewhere may be somebody else's there by now.
            let moods = Moods::default();
            let elements = elements![moods.clone(), PointToPoint::new(pool.clone()).strict()];
            let name = endpoint_name(number);
            let running = nodes[node].endpoint_with(&name, SERVICE, [(NAME, &*name)], elements).await?;
            endpoints.push(Endpoint { running, node, gone: false, forbidden: 0, pool, moods });
        }
        let clients = plan.clients.iter().enumerate().map(|(number, client)| {
            Arc::new(User {
                name: client_name(number),
                node: nodes[client.node].clone(),
                wires: client.watches_packets.then(|| mesh.wires().clone()),
                namespaces: AtomicUsize::new(0),
                seat: Mutex::default(),
                patience: AtomicU64::new(PATIENCE.as_millis() as u64),
                asked: Asked::default(),
                former: Mutex::default(),
            })
        });
        let clients = clients.collect();
        Ok(Self { mesh, nodes, endpoints, clients })
    }
}

impl World {
    /// The service lets nobody have this endpoint, or lets them have it again.
    pub(super) async fn forbid(&mut self, number: usize, forbid: bool) -> Result<()> {
        let forbidden = &mut self.endpoints[number].forbidden;
        *forbidden = if forbid { *forbidden + 1 } else { forbidden.saturating_sub(1) };
        let mut service = NetworkService { name: SERVICE.into(), payload: payload::IP.into(), ..Default::default() };
        if self.endpoints.iter().any(|endpoint| endpoint.forbidden > 0) {
            let allowed = self.endpoints.iter().enumerate().filter(|(_, endpoint)| endpoint.forbidden == 0);
            let names = allowed.map(|(number, _)| endpoint_name(number));
            let routes = names.map(|name| Destination {
                destination_selector: [(NAME.to_owned(), name)].into(),
                ..Default::default()
            });
            service.matches = vec![Match { routes: routes.collect(), ..Default::default() }];
        }
        self.mesh.apply(service).await
    }
}

impl Endpoint {
    /// From now on it declines what it is asked for, or not any more.
    pub(super) fn declines(&self, declines: bool) {
        self.moods.declines.store(declines, Ordering::Relaxed);
    }

    /// From now on it takes so long for an answer.
    pub(super) fn takes(&self, millis: u64) {
        self.moods.takes.store(millis, Ordering::Relaxed);
    }
}

impl User {
    fn lock(&self) -> MutexGuard<'_, Option<Seat>> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// His client, if it runs.
    pub(super) fn seat(&self) -> Option<Seat> {
        self.lock().clone()
    }

    /// The node he is on.
    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    /// Starts his client, which asks for the connection until it has it.
    pub(super) fn start(self: &Arc<Self>) -> Result<()> {
        let timers = Timers::default();
        let told = Told::default();
        let hears = told.clone();
        let tells = Lifecycle::telling(move |id, change| hears.hear(id, change));
        let mut client = self.node.client(&self.name).timers(timers.clone()).with(elements![tells, self.asked.clone()]);
        if let Some(wires) = &self.wires {
            client = client.liveness(Arc::new(Walks(wires.clone())), LIVENESS.0, LIVENESS.1);
        }
        let client = client.build().map_err(wrong)?;
        let asking = self.ask(client.clone())?;
        let former = self.lock().replace(Seat { client, timers, told, asking });
        self.end(former);
        Ok(())
    }

    /// Ends it at once; he wants nothing any more, unless it is started again.
    pub(super) fn kill(&self, mesh: &Mesh) {
        mesh.end(&self.name);
        let former = self.lock().take();
        self.end(former);
    }

    fn end(&self, former: Option<Seat>) {
        if let Some(Seat { told, asking, .. }) = former {
            asking.abort();
            self.former.lock().unwrap_or_else(PoisonError::into_inner).push(told);
        }
    }

    /// What his clients were told that does not follow from what they were told before.
    pub(super) fn told_out_of_order(&self) -> Vec<Violation> {
        let former = self.former.lock().unwrap_or_else(PoisonError::into_inner).clone();
        former
            .into_iter()
            .chain(self.seat().map(|seat| seat.told))
            .flat_map(|told| told.out_of_order(&self.name))
            .collect()
    }

    /// Closes the connection, and asks for it again.
    pub(super) fn churn(self: &Arc<Self>) -> Result<()> {
        let Some(seat) = self.seat() else { return Ok(()) };
        seat.asking.abort();
        let (request, client, user) = (self.request()?, seat.client, Arc::clone(self));
        let asking = tokio::spawn(async move {
            // What cannot be closed everywhere ends with its tokens.
            let _ = client.shutdown(PATIENCE).await;
            user.insist(&client, request).await;
        });
        if let Some(seat) = &mut *self.lock() {
            seat.asking = asking.abort_handle();
        }
        Ok(())
    }

    /// Wants the connection that there is chosen afresh.
    pub(super) fn choose_afresh(self: &Arc<Self>) {
        let Some(Seat { client, .. }) = self.seat() else { return };
        let connections = client.connections().handles();
        let established = connections.iter().filter_map(Handle::peek).find(|connection| connection.id == self.id());
        let Some(established) = established else { return };
        let mut connection = (*established).clone();
        connection.set_state(State::ReselectRequested);
        let request = NetworkServiceRequest { connection: Some(connection), ..Default::default() };
        tokio::spawn(async move { client.request(request, PATIENCE).await });
    }

    fn ask(self: &Arc<Self>, client: Client) -> Result<AbortHandle> {
        let (request, user) = (self.request()?, Arc::clone(self));
        Ok(tokio::spawn(async move { user.insist(&client, request).await }).abort_handle())
    }

    /// Asks until he has it. Who gives up early starts over: what he asked for may still be on its way to be undone.
    async fn insist(&self, client: &Client, mut request: NetworkServiceRequest) {
        loop {
            let patience = Duration::from_millis(self.patience.load(Ordering::Relaxed));
            if client.request(request.clone(), patience).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            if patience < PATIENCE
                && let Ok(another) = self.request()
            {
                request = another;
            }
        }
    }

    /// From his next try on he waits that long for his connection.
    pub(super) fn set_patience(&self, patience: Duration) {
        self.patience.store(patience.as_millis() as u64, Ordering::Relaxed);
    }

    /// What he asks for: an interface in a namespace of his own, a new one each time he starts over. What he had in a
    /// former one may last until its tokens end.
    fn request(&self) -> Result<NetworkServiceRequest> {
        let number = self.namespaces.fetch_add(1, Ordering::Relaxed);
        let url: ServiceUrl = format!("kernel://{SERVICE}/nsm-1").parse().map_err(wrong)?;
        let mut request = url.to_request(self.id());
        for mechanism in &mut request.mechanism_preferences {
            mechanism.parameters.insert(keys::INODE_URL.into(), format!("file:///sim/{}/{number}", self.name));
        }
        Ok(request)
    }

    /// Whether his clients look after their packets.
    pub(super) fn watches_packets(&self) -> bool {
        self.wires.is_some()
    }

    /// How often his clients have asked, whatever for.
    pub(super) fn asked(&self) -> usize {
        self.asked.0.load(Ordering::Relaxed)
    }

    /// The id of his connection.
    pub(super) fn id(&self) -> String {
        format!("c-{}", self.name)
    }
}

fn wrong(error: impl Into<nsm_chain::BoxError>) -> Error {
    Error::internal("the simulation").because(error)
}

/// Looks whether packets flow by walking the wires.
struct Walks(Fabric);

impl Liveness for Walks {
    fn alive<'a>(&'a self, connection: &'a Connection, _within: Duration) -> BoxFuture<'a, bool> {
        std::future::ready(self.0.flows(connection).is_ok()).boxed()
    }
}

/// Counts Requests on their way out.
#[derive(Debug, Clone, Default)]
struct Asked(Arc<AtomicUsize>);

impl Element for Asked {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        self.0.fetch_add(1, Ordering::Relaxed);
        next.request(call).await
    }
}

/// What an endpoint does with Requests, as it was told last.
#[derive(Debug, Clone, Default)]
struct Moods {
    declines: Arc<AtomicBool>,
    /// Milliseconds.
    takes: Arc<AtomicU64>,
}

impl Element for Moods {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        if self.declines.load(Ordering::Relaxed) {
            return Err(Error::exhausted("this endpoint takes nobody, as it was told"));
        }
        let takes = self.takes.load(Ordering::Relaxed);
        if takes > 0 {
            tokio::time::sleep(Duration::from_millis(takes)).await;
        }
        next.request(call).await
    }
}
