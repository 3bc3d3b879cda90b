//! A mesh on this machine: every role in this process, workloads and nodes in network namespaces of their own.
//!
//! [`Lab`] owns what it brings up and takes all of it down again; [`Inventory`] proves that it did.

mod client;
mod endpoint;
mod inventory;
mod naming;
mod node;
mod privileges;
mod procfs;
mod sockets;
mod teardown;
mod trail;
mod wires;
mod workload;

use std::collections::BTreeSet;
use std::path::Path;

use nsm_kernel::{NamedNetns, Underlay};
use nsm_sdk::identity::DevAuthority;
use nsm_sdk::registry::stacks::RegistryClient;
use nsm_sdk::roles::{RegistryRole, Running, Site};

use crate::failure::Failure;

pub(crate) use client::{Client, as_asked};
pub(crate) use endpoint::{Endpoint, Function, Serves};
pub(crate) use naming::Naming;
pub(crate) use node::Node;
pub(crate) use privileges::{descriptors, obtain};
pub(crate) use teardown::Left;
pub(crate) use trail::{Mark, TARGET as TRAIL_TARGET, Times, Trail};
pub(crate) use wires::{WireNote, Wires};
pub(crate) use workload::Workload;

use inventory::Inventory;
pub(crate) use sockets::Sockets;

/// The network between the nodes of a lab: for documentation by RFC 5737, so nobody's real one.
const UNDERLAY: &str = "192.0.2.0/24";
/// What the namespace of its bridge is called in reports.
const UNDERLAY_NAME: &str = "underlay";
/// How many namespaces or clients are worked on at the same time.
pub(crate) const AT_ONCE: usize = 16;

/// A mesh, and everything it has made on this machine. Whatever is in it is taken down by [`Lab::take_down`].
pub(crate) struct Lab {
    sockets: Sockets,
    authority: DevAuthority,
    inventory: Inventory,
    naming: Naming,
    network: Option<Underlay>,
    /// Names of the nodes' namespaces, where they have one.
    places: Vec<Option<NamedNetns>>,
    registry: Option<Running>,
    applied: Option<RegistryClient>,
    /// In the order of their numbers.
    pub(crate) nodes: Vec<Node>,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) clients: Vec<Client>,
    /// When each Request reached what.
    pub(crate) trail: Trail,
    /// What the forwarders programmed.
    pub(crate) wires: Wires,
}

impl Lab {
    /// An empty lab: an authority for its trust domain, and a look at what is there already.
    pub(crate) async fn new(domain: &str, sockets: Sockets, naming: Naming, trail: Trail) -> Result<Self, Failure> {
        let authority = DevAuthority::new(domain).map_err(|error| Failure::of("authority", &error))?;
        Ok(Self {
            sockets,
            authority,
            inventory: Inventory::of_now().await?,
            naming,
            network: None,
            places: Vec::new(),
            registry: None,
            applied: None,
            nodes: Vec::new(),
            endpoints: Vec::new(),
            workloads: Vec::new(),
            clients: Vec::new(),
            trail,
            wires: Wires::default(),
        })
    }

    /// Makes namespaces for nodes of these names and joins them by a network. Without it the one node is this machine.
    pub(crate) async fn lay_network(&mut self, nodes: &[String]) -> Result<(), Failure> {
        let failed = |error: &(dyn std::error::Error + 'static)| Failure::of("underlay", error);
        let prefix: ipnet::IpNet = UNDERLAY.parse().map_err(|error: ipnet::AddrParseError| failed(&error))?;
        let network = Underlay::create(nodes.len(), prefix).await.map_err(|error| failed(&error))?;
        self.inventory.watch(UNDERLAY_NAME, network.hub()).await?;
        self.network = Some(network);
        for (at, name) in nodes.iter().enumerate() {
            self.settle_node(name, at).await?;
        }
        Ok(())
    }

    /// These open sockets (`socket:[inode]`) are none of the lab's, and may stay.
    pub(crate) fn excuse(&mut self, sockets: BTreeSet<String>) {
        self.inventory.excuse(sockets);
    }

    /// One more namespace in that network, for a node of this name.
    pub(crate) async fn add_place(&mut self, name: &str) -> Result<(), Failure> {
        let network = self.network.as_mut().ok_or_else(|| Failure::at(name, "there is no network", "lay it first"))?;
        network.add().await.map_err(|error| Failure::of(name, &error))?;
        let at = network.nodes().len() - 1;
        // Its port is there from now on.
        self.inventory.watch(UNDERLAY_NAME, network.hub()).await?;
        self.settle_node(name, at).await
    }

    async fn settle_node(&mut self, name: &str, at: usize) -> Result<(), Failure> {
        if let Some(place) = self.place(at).cloned() {
            self.places.push(self.naming.named(name, &place.netns).await?);
            self.inventory.watch(name, &place.netns).await?;
        }
        Ok(())
    }

    /// The directory of the unix sockets.
    pub(crate) fn directory(&self) -> &Path {
        self.sockets.path()
    }

    /// Starts the registry.
    pub(crate) async fn start_registry(&mut self) -> Result<&Running, Failure> {
        let role = RegistryRole::new("registry", self.site("registry")?).listen_on(self.sockets.url("registry"));
        let registry = role.serve().await.map_err(|error| Failure::of("registry", &error))?;
        Ok(self.registry.insert(registry))
    }

    /// The identity of a role.
    fn site(&self, name: &str) -> Result<Site, Failure> {
        let source = self.authority.issue(&format!("/{name}")).map_err(|error| Failure::of(name, &error))?;
        Ok(Site::mtls(source))
    }

    /// The namespace of the node at this position, where it has one of its own.
    pub(crate) fn place(&self, at: usize) -> Option<&nsm_kernel::Node> {
        self.network.as_ref()?.nodes().get(at)
    }

    /// By which path any process of this machine enters the namespace of that node, while we live.
    pub(crate) fn place_path(&self, at: usize) -> Option<std::path::PathBuf> {
        let named = self.places.get(at).and_then(Option::as_ref).map(|named| named.path().to_owned());
        named.or_else(|| Some(self.place(at)?.netns.path()))
    }

    /// The node with this position, where there is one.
    fn node(&self, at: usize) -> Result<&Node, Failure> {
        self.nodes
            .get(at)
            .ok_or_else(|| Failure::at(format!("node-{}", at + 1), "it was not started", "start it first"))
    }
}
