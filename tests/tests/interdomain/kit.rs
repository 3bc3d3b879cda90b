//! Domains on loopback: real sockets, mutual TLS, DNS.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nsm_api::mechanism::KERNEL;
use nsm_api::registry::{NetworkServiceEndpoint, NetworkServiceLabels};
use nsm_api::{Connection, NetworkService};
use nsm_chain::{Call, Element, Error, Next, Node as Step, Result, elements};
use nsm_dns::Dns;
use nsm_dns::testing::{Records, Server};
use nsm_mechanisms::memory::Fabric;
use nsm_mechanisms::{CrossConnect, KernelAccept, Mechanisms, Underlay};
use nsm_sdk::identity::{DevAuthority, SvidSource};
use nsm_sdk::registry::stacks::RegistryClient;
use nsm_sdk::roles::{
    EndpointRole, ForwarderRole, ManagerProxyRole, ManagerRole, RegistryProxyRole, RegistryRole, Running, Site, client,
};
use nsm_sdk::stacks::Client;

/// Long enough for anything that works.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// All domains of a test, and the DNS server that knows them.
pub(crate) struct World {
    pub(crate) dns: Server,
    authorities: Mutex<Vec<DevAuthority>>,
    folder: PathBuf,
    number: u8,
    domains: AtomicU8,
}

impl World {
    pub(crate) async fn new() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("nsm-domains-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let dns = Server::start().await.unwrap();
        Self { dns, authorities: Mutex::default(), folder, number, domains: AtomicU8::new(0) }
    }

    /// A domain with everything, known to DNS as `<name>.test`, and trusted by all others that are.
    pub(crate) async fn domain(&self, name: &str) -> Domain {
        let mut domain = self.stranger(name);
        self.federate(&domain);
        domain.start_registry_proxy().await;
        domain.start_manager_proxy().await;
        domain.start_registry(true).await;
        self.publish(name, &domain, true);
        domain
    }

    /// A domain with nothing but a registry.
    pub(crate) async fn floating(&self, name: &str) -> Domain {
        let mut domain = self.stranger(name);
        self.federate(&domain);
        domain.start_registry(false).await;
        self.publish(name, &domain, false);
        domain
    }

    /// A domain in which nothing runs, that trusts nobody, and that DNS does not know.
    pub(crate) fn stranger(&self, name: &str) -> Domain {
        let number = self.domains.fetch_add(1, Ordering::Relaxed);
        // Each domain of each test has an address of its own, and all the usual ports there.
        let octet = |n: u32| u8::try_from(n % 250 + 1).unwrap();
        let address = Ipv4Addr::new(127, octet(std::process::id()), self.number + 1, number * 16 + 1);
        Domain {
            name: name.to_owned(),
            authority: DevAuthority::new(&format!("{name}.trust")).unwrap(),
            dns: Arc::new(Dns::asking([self.dns.address()]).unwrap().within(Duration::from_secs(1))),
            address,
            folder: self.folder.join(name),
            wires: Fabric::new(),
            registry: None,
            registry_proxy: None,
            manager_proxy: None,
            knows_itself: false,
            registrations: Vec::new(),
        }
    }

    /// Whoever is federated trusts whoever else is.
    pub(crate) fn federate(&self, domain: &Domain) {
        let mut all = self.authorities.lock().unwrap();
        for other in &*all {
            other.trust(&domain.authority).unwrap();
            domain.authority.trust(other).unwrap();
        }
        all.push(domain.authority.clone());
    }

    /// Tells DNS where a domain's registry is, and its manager proxy if it has one.
    pub(crate) fn publish(&self, name: &str, domain: &Domain, with_proxy: bool) {
        let at = |port| Records::new().srv(port, "target.test.").address(domain.address.into());
        self.dns.set(&format!("registry.nsm-system.{name}.test."), at(5002));
        if with_proxy {
            self.dns.set(&format!("nsmgr-proxy.nsm-system.{name}.test."), at(5004));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// One domain.
pub(crate) struct Domain {
    name: String,
    authority: DevAuthority,
    dns: Arc<Dns>,
    address: Ipv4Addr,
    folder: PathBuf,
    pub(crate) wires: Fabric,
    pub(crate) registry: Option<Running>,
    pub(crate) registry_proxy: Option<Running>,
    pub(crate) manager_proxy: Option<Running>,
    /// Whether its manager proxy is told the domain's name.
    pub(crate) knows_itself: bool,
    /// Keep network services registered.
    registrations: Vec<RegistryClient>,
}

impl Domain {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn site(&self, who: &str) -> Site {
        Site::mtls(self.authority.issue(&format!("/{who}")).unwrap()).dial_timeout(Duration::from_secs(2))
    }

    /// The URL of what listens at this port of the domain's address.
    pub(crate) fn url(&self, port: u16) -> String {
        format!("tcp://{}:{port}", self.address)
    }

    pub(crate) fn registry_url(&self) -> String {
        self.url(5002)
    }

    pub(crate) async fn start_registry(&mut self, with_proxy: bool) {
        self.registry = None;
        free(self.address, 5002).await;
        let name = format!("registry-{}", self.name);
        let mut role = RegistryRole::new(&name, self.site("registry")).listen_on(self.url(5002));
        if with_proxy {
            role = role.proxy(self.url(5004));
        }
        self.registry = Some(role.serve().await.unwrap());
    }

    pub(crate) async fn start_registry_proxy(&mut self) {
        self.registry_proxy = None;
        free(self.address, 5005).await;
        let dns: Arc<Dns> = Arc::clone(&self.dns);
        let role = RegistryProxyRole::new(&format!("registry-proxy-{}", self.name), self.site("registry-proxy"), dns);
        self.registry_proxy = Some(role.listen_on(self.url(5005)).serve().await.unwrap());
    }

    pub(crate) async fn start_manager_proxy(&mut self) {
        self.manager_proxy = None;
        free(self.address, 5004).await;
        let (registry, proxy) = (self.url(5002), self.url(5005));
        let role = ManagerProxyRole::new(&format!("proxy-{}", self.name), self.site("nsmgr-proxy"), registry, proxy);
        let mut role = role.listen_on(self.url(5004)).addresses("/nonexistent/map").cluster("/nonexistent/cluster");
        if self.knows_itself {
            role = role.domain(format!("{}.test", self.name));
        }
        self.manager_proxy = Some(role.serve().await.unwrap());
    }

    /// Registers a network service at this domain's registry, and keeps it registered.
    pub(crate) async fn network_service(&mut self, name: &str) {
        let admin = RegistryClient::builder("admin").connect(self.site("admin").channels(), self.registry_url());
        let admin = admin.build().unwrap();
        let service = NetworkService { name: name.into(), payload: nsm_api::payload::IP.into(), ..Default::default() };
        admin.services.request(Call::new(service).within(SOON)).await.unwrap();
        self.registrations.push(admin);
    }

    /// A node of the domain: manager and forwarder.
    pub(crate) async fn node(&self, number: u8) -> Node {
        let [a, b, c, d] = self.address.octets();
        let address = Ipv4Addr::new(a, b, c, d + number);
        let mut node = Node {
            authority: self.authority.clone(),
            address,
            url: format!("tcp://{address}:5001"),
            registry: self.registry_url(),
            folder: self.folder.join(format!("node-{number}")),
            name: format!("{}{number}", self.name),
            underlay: Underlay::new(address.into()),
            wires: self.wires.clone(),
            manager: None,
            forwarder: None,
        };
        std::fs::create_dir_all(&node.folder).unwrap();
        node.start_manager().await;
        node.start_forwarder().await;
        node
    }

    /// No hop keeps anything of any connection.
    pub(crate) async fn is_empty(&self, nodes: &[&Node]) {
        let passing = || self.manager_proxy.as_ref().map_or(0, Running::passing);
        until("the proxy to keep nothing", || passing() == 0).await;
        for node in nodes {
            let passing = || node.manager.as_ref().map_or(0, Running::passing);
            until("the manager to keep nothing", || passing() == 0).await;
            let owned = || node.forwarder.as_ref().map_or(0, Running::connections);
            until("the forwarder to keep nothing", || owned() == 0).await;
        }
        until("no wires", || self.wires.wires().is_empty()).await;
    }
}

/// A node of a domain.
pub(crate) struct Node {
    authority: DevAuthority,
    address: Ipv4Addr,
    pub(crate) url: String,
    registry: String,
    folder: PathBuf,
    name: String,
    underlay: Underlay,
    wires: Fabric,
    pub(crate) manager: Option<Running>,
    pub(crate) forwarder: Option<Running>,
}

impl Node {
    pub(crate) fn site(&self, who: &str) -> Site {
        Site::mtls(self.identity(who)).dial_timeout(Duration::from_secs(2))
    }

    pub(crate) fn identity(&self, who: &str) -> Arc<dyn SvidSource> {
        self.authority.issue(&format!("/{who}")).unwrap()
    }

    pub(crate) async fn start_manager(&mut self) {
        self.manager = None;
        free(self.address, 5001).await;
        let role = ManagerRole::new(&format!("nsmgr-{}", self.name), self.site("nsmgr")).listen_on(&self.url);
        self.manager = Some(role.registry(&self.registry).serve().await.unwrap());
    }

    async fn start_forwarder(&mut self) {
        let name = format!("forwarder-{}", self.name);
        let wire = CrossConnect::new(self.wires.forwarder(&name, Some(self.underlay.clone())));
        let role = ForwarderRole::new(&name, self.site("forwarder"), &self.url, elements![wire]);
        let role = role.listen_on(self.socket("forwarder"));
        self.forwarder = Some(role.serve().await.unwrap());
    }

    /// A socket on this node, for others on it.
    fn socket(&self, name: &str) -> String {
        format!("unix://{}/{name}.sock", self.folder.display())
    }

    /// An endpoint on this node that serves this network service.
    pub(crate) async fn endpoint(&self, name: &str, service: &str, seen: &Seen) -> Running {
        self.endpoint_with(name, service, elements![seen.clone(), accepts()]).await
    }

    /// The same, with these elements.
    pub(crate) async fn endpoint_with(&self, name: &str, service: &str, elements: Vec<Step>) -> Running {
        let role = EndpointRole::new(name, self.site(names(name))).listen_on(self.socket(names(name)));
        role.serves(service).registers_at(&self.url).with(elements).serve().await.unwrap()
    }

    /// A client of this node.
    pub(crate) fn client(&self, name: &str) -> Client {
        client(name, &self.site(name), &self.url).build().unwrap()
    }
}

/// Waits until nobody listens there any more.
async fn free(address: Ipv4Addr, port: u16) {
    until("the port to be free", || std::net::TcpListener::bind((address, port)).is_ok()).await;
}

fn names(name: &str) -> &str {
    nsm_api::names::target(name)
}

/// The mechanisms of an endpoint.
pub(crate) fn accepts() -> Mechanisms {
    Mechanisms::new().with(KERNEL, KernelAccept::new()).unwrap()
}

/// What reaches an endpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    requests: Arc<AtomicUsize>,
    closes: Arc<AtomicUsize>,
    last: Arc<Mutex<Connection>>,
}

impl Seen {
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn closes(&self) -> usize {
        self.closes.load(Ordering::SeqCst)
    }

    /// The network service and the endpoint of the last Request.
    pub(crate) fn names(&self) -> (String, String) {
        let last = self.last.lock().unwrap();
        (last.network_service.clone(), last.network_service_endpoint_name.clone())
    }
}

impl Element for Seen {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        *self.last.lock().unwrap() = call.body().clone();
        next.request(call).await
    }

    async fn close(&self, call: Call, next: Next<'_>) -> Result<Call> {
        self.closes.fetch_add(1, Ordering::SeqCst);
        next.close(call).await
    }
}

/// Asks for `kernel://<service>/nsm-1`.
pub(crate) async fn ask(client: &Client, service: &str, id: &str) -> Result<Connection> {
    ask_within(client, service, id, SOON).await
}

pub(crate) async fn ask_within(client: &Client, service: &str, id: &str, within: Duration) -> Result<Connection> {
    let url = format!("kernel://{service}/nsm-1").parse().unwrap();
    client.request_url(&url, id, within).await
}

/// The names along a connection's path.
pub(crate) fn path(connection: &Connection) -> String {
    let segments = connection.path.iter().flat_map(|path| &path.path_segments);
    segments.map(|segment| segment.name.as_str()).collect::<Vec<_>>().join(" ")
}

/// Waits until `done`; fails after half a minute.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap_or_else(|_| panic!("never came: {what}"));
}

/// Asks again until it works; fails after half a minute.
pub(crate) async fn again(client: &Client, service: &str, id: &str) -> Connection {
    ask_within(client, service, id, Duration::from_secs(30)).await.unwrap()
}

/// Registers an endpoint that nobody serves, with the manager at this URL, and keeps it registered.
pub(crate) async fn register(
    site: &Site,
    manager: &str,
    name: &str,
    services: &[&str],
    url: &str,
) -> Result<(RegistryClient, NetworkServiceEndpoint)> {
    let client = RegistryClient::builder("nse").connect(site.channels(), manager);
    let client = client.build().map_err(|error| Error::internal("the kit").because(error))?;
    let services: Vec<String> = services.iter().map(|service| (*service).to_owned()).collect();
    let labels: BTreeMap<_, _> =
        services.iter().map(|service| (service.clone(), NetworkServiceLabels::default())).collect();
    let record = NetworkServiceEndpoint {
        name: name.into(),
        network_service_names: services,
        network_service_labels: labels,
        url: url.into(),
        ..Default::default()
    };
    let answer = client.endpoints.request(Call::new(record).within(SOON)).await?.into_body();
    Ok((client, answer))
}
