use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use futures::FutureExt;
use nsm_api::NetworkServiceEndpoint;
use nsm_api::registry::NetworkServiceLabels;
use nsm_chain::{Error, Node as Element, Result, elements};
use nsm_mechanisms::{CrossConnect, KernelOffer, Pace, Random, Reconcile, Underlay, Vnis};

use super::census::Counted;
use super::mesh::{REGISTRY, broken, mechanisms};
use super::running::{Plug, Process};
use super::{Mesh, RunningEndpoint};
use crate::connect::{Connect, Life};
use crate::discovery::FORWARDER;
use crate::identity::PolicySet;
use crate::registry::stacks::{Admission, ManagerRegistry};
use crate::stacks::{Client, ClientBuilder, Endpoint, Forwarder, Manager, Onward, Passthrough};

/// Tunnel identifiers of a node: few, so that a mistake with one soon meets it again, and in the same order in each life
/// of a forwarder, so that one that forgets what an earlier life issued soon issues it again.
const VNIS: RangeInclusive<u32> = 1..=1024;

/// A node of a test mesh.
#[derive(Clone)]
pub struct Node {
    mesh: Mesh,
    name: Arc<str>,
    manager: String,
    url: Arc<str>,
    address: IpAddr,
    /// In which order its forwarders issue tunnel identifiers, each life anew.
    order: u64,
}

impl Node {
    pub(super) fn new(mesh: &Mesh, name: &str, address: IpAddr) -> Result<Self> {
        let manager = format!("nsmgr-{name}");
        // Not on this node, to other nodes: what leads there is a tunnel.
        let url = format!("tcp://{manager}:5001").into();
        let order = Random::default().next();
        let node = Self { mesh: mesh.clone(), name: name.into(), manager, url, address, order };
        node.restart_manager()?;
        Ok(node)
    }

    /// Where the manager is served.
    #[must_use]
    pub fn manager_url(&self) -> &str {
        &self.url
    }

    /// The other hops as somebody with tokens of that name and no identity sees them, who is told of all connections.
    ///
    /// # Errors
    /// When the name fits no SPIFFE ID.
    pub fn links(&self, name: &str) -> Result<Arc<dyn crate::connect::Links<nsm_chain::Service>>> {
        Ok(self.mesh.seen_by_an_observer(name)?.links())
    }

    /// Replaces the manager by a fresh one, which knows nothing.
    ///
    /// # Errors
    /// None that a released version gives.
    pub fn restart_manager(&self) -> Result<()> {
        self.stop_manager();
        let mesh = &self.mesh;
        let life = mesh.begin(&self.manager, &self.name);
        let (services, endpoints) = (mesh.services.used_by(&life), mesh.endpoints.used_by(&life));
        let further = (Connect::new(services.links()).to(REGISTRY), Connect::new(endpoints.links()).to(REGISTRY));
        let registry = ManagerRegistry::builder(self.manager.as_str(), Arc::clone(&self.url), Admission::open())
            .ending_in(Element::new(further.0), Element::new(further.1))
            .build()
            .map_err(broken)?;
        let hop = mesh.hop(&life)?;
        let finder = Arc::new(registry.finder);
        let calls = mesh.seen_by(&life)?;
        let manager = Manager::new(&hop, &self.url, FORWARDER, &finder, calls.links(), Vec::new()).map_err(broken)?;
        services.serve(&*self.url, registry.services);
        endpoints.serve(&*self.url, registry.endpoints);
        calls.serve(&*self.url, manager.chain);
        let timers = hop.timers().clone();
        mesh.hops.runs(&self.manager, Counted { connections: manager.connections, monitor: manager.monitor, timers });
        Ok(())
    }

    /// Kills the manager.
    pub fn stop_manager(&self) {
        self.mesh.end(&self.manager);
        self.mesh.services.stop(&self.url);
        self.mesh.endpoints.stop(&self.url);
        self.mesh.calls.stop(&self.url);
        self.mesh.hops.ended(&self.manager);
    }

    /// A forwarder of this node.
    ///
    /// # Errors
    /// What the registry reports.
    pub async fn forwarder(&self, name: &str) -> Result<RunningEndpoint> {
        self.forwarder_with(name, [(nsm_api::labels::P2P, "true")]).await
    }

    /// A forwarder of this node with these labels.
    ///
    /// # Errors
    /// What the registry reports.
    pub async fn forwarder_with<'a>(
        &self,
        name: &str,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<RunningEndpoint> {
        let (mesh, url, address, order) = (self.mesh.clone(), Arc::clone(&self.url), self.address, self.order);
        let make = move |life: &Life| {
            let plug = Plug::default();
            let registry = plug.registry_client(&mesh, life, &url).map_err(broken)?;
            let hop = mesh.hop(life)?;
            let vnis = Vnis::within(VNIS, Random::seeded(order));
            let underlay = Underlay::new(address).with_vnis(vnis);
            let plane = mesh.wires.forwarder(&**life.name(), Some(underlay)).on_node(Arc::clone(life.node()));
            // As long as the clients of an earlier life may take to ask again.
            let pace = Pace { grace: mesh.authority.token_life(), ..Pace::default() };
            let reconcile = Reconcile::start(plane.clone(), pace).now_or_never();
            let reconcile = reconcile.ok_or_else(|| Error::internal("the test kit's data plane is slow"))?;
            let wire = CrossConnect::new(plane);
            let links = mesh.seen_by(life)?.links();
            let finder = Arc::new(registry.finder());
            let forwarder =
                Forwarder::new(&hop, &finder, elements![reconcile, wire, plug.clone()], links).map_err(broken)?;
            let timers = hop.timers().clone();
            let counted = Counted { connections: forwarder.connections, monitor: forwarder.monitor, timers };
            Ok(Process { life: life.clone(), chain: forwarder.chain, counted, registry, plug })
        };
        RunningEndpoint::run(&self.mesh, &self.name, record(name, FORWARDER, labels), make).await
    }

    /// An endpoint of this node that does what these elements do. It takes KERNEL mechanisms before them.
    ///
    /// # Errors
    /// What the registry reports.
    pub async fn endpoint(&self, name: &str, service: &str, elements: Vec<Element>) -> Result<RunningEndpoint> {
        self.endpoint_with(name, service, [], elements).await
    }

    /// An endpoint of this node with these labels.
    ///
    /// # Errors
    /// What the registry reports.
    pub async fn endpoint_with<'a>(
        &self,
        name: &str,
        service: &str,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        elements: Vec<Element>,
    ) -> Result<RunningEndpoint> {
        let (mesh, url) = (self.mesh.clone(), Arc::clone(&self.url));
        let make = move |life: &Life| {
            let plug = Plug::default();
            let registry = plug.registry_client(&mesh, life, &url).map_err(broken)?;
            let hop = mesh.hop(life)?;
            let mut list = mechanisms()?;
            list.extend(elements.clone());
            let endpoint = Endpoint::new(&hop, list).map_err(broken)?;
            let timers = hop.timers().clone();
            let counted = Counted { connections: endpoint.connections, monitor: endpoint.monitor, timers };
            Ok(Process { life: life.clone(), chain: endpoint.chain, counted, registry, plug })
        };
        RunningEndpoint::run(&self.mesh, &self.name, record(name, service, labels), make).await
    }

    /// An endpoint of this node that passes everything through: to the endpoint that the service's rules choose for
    /// clients with its own labels. The elements work on the way.
    ///
    /// # Errors
    /// What the registry reports.
    pub async fn passthrough<'a>(
        &self,
        name: &str,
        service: &str,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        elements: Vec<Element>,
    ) -> Result<RunningEndpoint> {
        let record = record(name, service, labels);
        let labels = record.network_service_labels.get(service).map(|own| own.labels.clone()).unwrap_or_default();
        let (mesh, url) = (self.mesh.clone(), Arc::clone(&self.url));
        let make = move |life: &Life| {
            let plug = Plug::default();
            let registry = plug.registry_client(&mesh, life, &url).map_err(broken)?;
            let hop = mesh.hop(life)?;
            let mut accepts = mechanisms()?;
            accepts.extend(elements.clone());
            let onward = Onward {
                labels: labels.clone(),
                offers: elements![KernelOffer::new(), plug.clone()],
                manager: Arc::clone(&url),
                links: mesh.seen_by(life)?.links(),
            };
            let endpoint = Passthrough::new(&hop, accepts, onward).map_err(broken)?;
            let timers = hop.timers().clone();
            let counted = Counted { connections: endpoint.connections, monitor: endpoint.monitor, timers };
            Ok(Process { life: life.clone(), chain: endpoint.chain, counted, registry, plug })
        };
        RunningEndpoint::run(&self.mesh, &self.name, record, make).await
    }

    /// A client of this node, to add to and build. [`Mesh::end`] ends its life.
    #[must_use]
    pub fn client(&self, name: &str) -> ClientBuilder {
        let life = self.mesh.begin(name, &self.name);
        let calls = self.mesh.seen_by(&life).unwrap_or_else(|_| self.mesh.calls.used_by(&life));
        Client::builder(name, Arc::clone(&self.url), calls.links()).policies(PolicySet::allow_all())
    }

    /// Its address between nodes.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The manager's name.
    #[must_use]
    pub fn manager(&self) -> &str {
        &self.manager
    }
}

fn record<'a>(
    name: &str,
    service: &str,
    labels: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> NetworkServiceEndpoint {
    let labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    NetworkServiceEndpoint {
        name: name.into(),
        network_service_names: vec![service.into()],
        network_service_labels: [(service.to_owned(), NetworkServiceLabels { labels })].into(),
        url: format!("mem://{name}"),
        ..Default::default()
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.name)
    }
}
