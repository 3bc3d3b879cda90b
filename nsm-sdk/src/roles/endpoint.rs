use std::collections::BTreeMap;

use nsm_api::NetworkServiceEndpoint;
use nsm_api::connection::monitor_connection_server::MonitorConnectionServer;
use nsm_api::networkservice::network_service_server::NetworkServiceServer;
use nsm_api::registry::NetworkServiceLabels;
use nsm_chain::{Call, Chain, Node, grpc};

use super::site::addresses;
use super::{RoleError, Running, Site};
use crate::stacks::{Endpoint, Onward, Passthrough};
use crate::transport::Server;

/// An endpoint (NSE), served over gRPC and registered with its manager.
#[derive(Debug)]
pub struct EndpointRole {
    name: String,
    site: Site,
    listen: Vec<String>,
    manager: Option<String>,
    services: BTreeMap<String, BTreeMap<String, String>>,
    elements: Vec<Node>,
    onward: Option<(BTreeMap<String, String>, Vec<Node>)>,
}

impl EndpointRole {
    /// An endpoint of that name.
    #[must_use]
    pub fn new(name: &str, site: Site) -> Self {
        Self {
            name: name.to_owned(),
            site,
            listen: Vec::new(),
            manager: None,
            services: BTreeMap::new(),
            elements: Vec::new(),
            onward: None,
        }
    }

    /// Listens on this URL; the first one given is where its forwarder reaches it.
    #[must_use]
    pub fn listen_on(mut self, url: impl Into<String>) -> Self {
        self.listen.push(url.into());
        self
    }

    /// Serves this network service; may be given more than once.
    #[must_use]
    pub fn serves(self, service: &str) -> Self {
        self.serves_with(service, [])
    }

    /// Serves this network service under these labels, which its matches select by.
    #[must_use]
    pub fn serves_with<'a>(mut self, service: &str, labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        self.services.entry(service.to_owned()).or_default().extend(labels);
        self
    }

    /// Registers with the manager at this URL, and stays registered until it is shut down.
    #[must_use]
    pub fn registers_at(mut self, manager: impl Into<String>) -> Self {
        self.manager = Some(manager.into());
        self
    }

    /// What makes it the network function it is, in order.
    #[must_use]
    pub fn with(mut self, elements: Vec<Node>) -> Self {
        self.elements.extend(elements);
        self
    }

    /// Goes on with each connection as a client of its manager, to the endpoint that the network service's rules choose for clients
    /// with these labels; what it offers there, `offers` say. See [`Passthrough`].
    #[must_use]
    pub fn passing_on(mut self, labels: BTreeMap<String, String>, offers: Vec<Node>) -> Self {
        self.onward = Some((labels, offers));
        self
    }

    /// Serves and registers.
    ///
    /// # Errors
    /// When no socket can be opened, an element stands where it may not, the manager refuses the registration, or there is none to go on by.
    pub async fn serve(self) -> Result<Running, RoleError> {
        let hop = self.site.hop(&self.name);
        let (chain, connections) = match self.onward {
            None => {
                let Endpoint { chain, connections, .. } = Endpoint::new(&hop, self.elements)?;
                (chain, connections)
            }
            Some((labels, offers)) => {
                let manager = self.manager.as_deref().ok_or(RoleError::NowhereToGoOn)?.into();
                let onward = Onward { labels, offers, manager, links: self.site.channels() };
                let Passthrough { chain, connections, .. } = Passthrough::new(&hop, self.elements, onward)?;
                (chain, connections)
            }
        };
        let server = with_service(self.site.server(), chain);
        let server = self.site.bind(server, &addresses(&self.listen)?).await?;
        let running = Running::new(&self.name, server).owning(connections);
        let Some(manager) = self.manager else {
            return Ok(running);
        };
        let client = self.site.registry_client(&self.name, self.site.channels(), manager);
        let client = client.timers(hop.timers().clone()).build()?;
        let record = record(&self.name, running.url(), self.services);
        client.endpoints.request(Call::new(record).within(REGISTERING)).await.map_err(RoleError::Register)?;
        Ok(running.registered(client))
    }
}

/// How long the first registration may take, tries included.
pub(super) const REGISTERING: std::time::Duration = std::time::Duration::from_secs(30);

/// What is registered for an endpoint.
pub(super) fn record(
    name: &str,
    url: String,
    services: BTreeMap<String, BTreeMap<String, String>>,
) -> NetworkServiceEndpoint {
    NetworkServiceEndpoint {
        name: name.to_owned(),
        network_service_names: services.keys().cloned().collect(),
        network_service_labels: services
            .into_iter()
            .map(|(service, labels)| (service, NetworkServiceLabels { labels }))
            .collect(),
        url,
        ..Default::default()
    }
}

/// A server that serves connections too.
pub(super) fn with_service(server: Server, chain: Chain) -> Server {
    let chain = grpc::Server::new(chain);
    server.with(NetworkServiceServer::new(chain.clone())).with(MonitorConnectionServer::new(chain))
}
