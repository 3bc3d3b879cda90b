use std::fmt;
use std::sync::Arc;

use nsm_api::NetworkServiceEndpoint;
use nsm_api::registry::NetworkServiceLabels;
use nsm_chain::{Begin, Call, Chain, Node as Element, Protocol, Result, elements};

use super::Mesh;
use super::mesh::REGISTRY;
use crate::connect::{Connect, InProcess, Listens};
use crate::discovery::FORWARDER;
use crate::registry::{Endpoints, Finder, LocalBypass, Services};
use crate::stacks::{Client, ClientBuilder, Endpoint, Forwarder, Manager};

/// A node of a test mesh.
#[derive(Clone)]
pub struct Node {
    mesh: Mesh,
    name: Arc<str>,
    url: Arc<str>,
}

/// An endpoint or forwarder that runs in a test mesh.
#[derive(Debug, Clone)]
pub struct RunningEndpoint {
    mesh: Mesh,
    url: Arc<str>,
    record: NetworkServiceEndpoint,
    manager: Arc<str>,
    /// Its Request, Close and Monitor.
    pub chain: Chain,
    /// What is connected to it now.
    pub connections: Arc<Begin>,
}

impl Node {
    pub(super) fn new(mesh: &Mesh, name: &str) -> Result<Self> {
        let node = Self { mesh: mesh.clone(), name: name.into(), url: format!("mem://nsmgr-{name}").into() };
        node.restart_manager()?;
        Ok(node)
    }

    /// Where the manager is served.
    #[must_use]
    pub fn manager_url(&self) -> &str {
        &self.url
    }

    /// Replaces the manager by a fresh one, which knows nothing.
    ///
    /// # Errors
    /// None that a released version gives.
    pub fn restart_manager(&self) -> Result<()> {
        let name = format!("nsmgr-{}", self.name);
        let broken = |error| nsm_chain::Error::internal("the manager's stack").because(error);
        let services = fixed::<Services>(&name, &self.mesh.services, REGISTRY).map_err(broken)?;
        let endpoints = elements![
            Begin::default(),
            LocalBypass::new(Arc::clone(&self.url)),
            Connect::new(self.mesh.endpoints.links()).to(REGISTRY),
        ];
        let endpoints = Chain::new(name.as_str(), endpoints).map_err(broken)?;
        let finder = Arc::new(Finder::new(services.clone(), endpoints.clone()));
        let hop = self.mesh.hop(&name)?;
        let links = self.mesh.calls.seen_by(None, self.mesh.tokens(&name)?).links();
        let manager = Manager::new(&hop, &self.url, &finder, links, Vec::new()).map_err(broken)?;
        self.mesh.services.serve(&*self.url, services);
        self.mesh.endpoints.serve(&*self.url, endpoints);
        self.mesh.calls.serve(&*self.url, manager.chain);
        Ok(())
    }

    /// Takes the manager away.
    pub fn stop_manager(&self) {
        self.mesh.services.stop(&self.url);
        self.mesh.endpoints.stop(&self.url);
        self.mesh.calls.stop(&self.url);
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
        let broken = |error| nsm_chain::Error::internal("the forwarder's stack").because(error);
        let services = fixed::<Services>(name, &self.mesh.services, &self.url).map_err(broken)?;
        let endpoints = fixed::<Endpoints>(name, &self.mesh.endpoints, &self.url).map_err(broken)?;
        let finder = Arc::new(Finder::new(services, endpoints));
        let links = self.mesh.calls.seen_by(None, self.mesh.tokens(name)?).links();
        let forwarder = Forwarder::new(&self.mesh.hop(name)?, &finder, Vec::new(), links).map_err(broken)?;
        self.run(name, FORWARDER, labels, forwarder.chain, forwarder.connections).await
    }

    /// An endpoint of this node that does what these elements do.
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
        let broken = |error| nsm_chain::Error::internal("the endpoint's stack").because(error);
        let endpoint = Endpoint::new(&self.mesh.hop(name)?, elements).map_err(broken)?;
        self.run(name, service, labels, endpoint.chain, endpoint.connections).await
    }

    async fn run<'a>(
        &self,
        name: &str,
        service: &str,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        chain: Chain,
        connections: Arc<Begin>,
    ) -> Result<RunningEndpoint> {
        let labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let url: Arc<str> = format!("mem://{name}").into();
        let record = NetworkServiceEndpoint {
            name: name.into(),
            network_service_names: vec![service.into()],
            network_service_labels: [(service.to_owned(), NetworkServiceLabels { labels })].into(),
            url: (*url).into(),
            ..Default::default()
        };
        let running = RunningEndpoint {
            mesh: self.mesh.clone(),
            url,
            record,
            manager: Arc::clone(&self.url),
            chain,
            connections,
        };
        running.start();
        running.register().await?;
        Ok(running)
    }

    /// A client of this node, to add to and build.
    #[must_use]
    pub fn client(&self, name: &str) -> ClientBuilder {
        let calls = match self.mesh.tokens(name) {
            Ok(tokens) => self.mesh.calls.seen_by(None, tokens),
            Err(_) => self.mesh.calls.clone(),
        };
        Client::builder(name, Arc::clone(&self.url), calls.links()).policies(crate::identity::PolicySet::allow_all())
    }
}

/// A chain that hands everything to one hop.
fn fixed<P: Protocol + Listens>(name: &str, hops: &InProcess<P>, url: &str) -> Result<Chain<P>, nsm_chain::OrderError> {
    Chain::new(name, elements![Connect::new(hops.links()).to(url)])
}

impl RunningEndpoint {
    /// Registers it with its manager, again if need be.
    ///
    /// # Errors
    /// What the manager reports.
    pub async fn register(&self) -> Result<()> {
        let manager = self.mesh.endpoints.links().link(&self.manager).await?;
        manager.request(Call::new(self.record.clone())).await.map(drop)
    }

    /// Takes it out of the registry; it goes on serving.
    ///
    /// # Errors
    /// What the manager reports.
    pub async fn unregister(&self) -> Result<()> {
        let manager = self.mesh.endpoints.links().link(&self.manager).await?;
        manager.close(Call::new(self.record.clone())).await.map(drop)
    }

    /// Kills it: it answers no more, and stays registered until it expires.
    pub fn stop(&self) {
        self.mesh.calls.stop(&self.url);
    }

    /// Lets it answer (again), with what it remembers.
    pub fn start(&self) {
        self.mesh.calls.serve(&*self.url, self.chain.clone());
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.name)
    }
}
