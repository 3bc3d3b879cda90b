use std::collections::BTreeMap;
use std::sync::Arc;

use nsm_api::labels::P2P;
use nsm_chain::{Call, Node};

use super::endpoint::{REGISTERING, record, with_service};
use super::site::addresses;
use super::{RoleError, Running, Site};
use crate::discovery::FORWARDER;
use crate::registry::Cache;
use crate::stacks::Forwarder;

/// A forwarder, served over gRPC and registered with its manager.
#[derive(Debug)]
pub struct ForwarderRole {
    name: String,
    site: Site,
    listen: Vec<String>,
    manager: String,
    service: String,
    labels: BTreeMap<String, String>,
    wire: Vec<Node>,
}

impl ForwarderRole {
    /// A forwarder of that name, of the manager at this URL, that joins mechanisms by these elements (such as
    /// [`CrossConnect`](nsm_mechanisms::CrossConnect) with the Linux data plane).
    #[must_use]
    pub fn new(name: &str, site: Site, manager: impl Into<String>, wire: Vec<Node>) -> Self {
        Self {
            name: name.to_owned(),
            site,
            listen: Vec::new(),
            manager: manager.into(),
            service: FORWARDER.to_owned(),
            labels: BTreeMap::from([(P2P.to_owned(), "true".to_owned())]),
            wire,
        }
    }

    /// Listens on this URL; the first one given is where its manager reaches it.
    #[must_use]
    pub fn listen_on(mut self, url: impl Into<String>) -> Self {
        self.listen.push(url.into());
        self
    }

    /// Adds a label that a network service's metadata may ask for. `p2p=true` is there unless changed.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Has these labels and no others.
    #[must_use]
    pub fn labels(mut self, labels: BTreeMap<String, String>) -> Self {
        self.labels = labels;
        self
    }

    /// Registers under another network service than `forwarder`.
    #[must_use]
    pub fn service(mut self, service: &str) -> Self {
        service.clone_into(&mut self.service);
        self
    }

    /// Serves and registers.
    ///
    /// # Errors
    /// When no socket can be opened, an element stands where it may not, or the manager refuses the registration.
    pub async fn serve(self) -> Result<Running, RoleError> {
        let hop = self.site.hop(&self.name);
        let channels = self.site.channels();
        let client = self
            .site
            .registry_client(&self.name, Arc::clone(&channels), self.manager)
            .before_services(Node::new(Cache::default()))
            .before_endpoints(Node::new(Cache::default()))
            .timers(hop.timers().clone())
            .build()?;
        let finder = Arc::new(client.finder());
        let forwarder = Forwarder::new(&hop, &finder, self.wire, channels)?;
        let server = with_service(self.site.server(), forwarder.chain);
        let server = self.site.bind(server, &addresses(&self.listen)?).await?;
        let running = Running::new(&self.name, server).owning(forwarder.connections);
        let record = record(&self.name, running.url(), BTreeMap::from([(self.service, self.labels)]));
        client.endpoints.request(Call::new(record).within(REGISTERING)).await.map_err(RoleError::Register)?;
        Ok(running.registered(client))
    }
}
