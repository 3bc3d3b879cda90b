use std::sync::Arc;

use nsm_chain::Node;

use super::endpoint::with_service;
use super::registry::with_registry;
use super::site::addresses;
use super::{RoleError, Running, Site};
use crate::discovery::FORWARDER;
use crate::registry::stacks::ManagerRegistry;
use crate::registry::{ClientInfo, Finder, Journals, OpenAhead};
use crate::stacks::Manager;

/// The manager of a node (NSMgr), served over gRPC: Request, Close and Monitor for clients, registry for endpoints.
#[derive(Debug)]
pub struct ManagerRole {
    name: String,
    site: Site,
    listen: Vec<String>,
    public: Option<String>,
    registry: Option<String>,
    forwarders: String,
    journals: Option<Journals>,
    elements: Vec<Node>,
}

impl ManagerRole {
    /// A manager of that name.
    #[must_use]
    pub fn new(name: &str, site: Site) -> Self {
        Self {
            name: name.to_owned(),
            site,
            listen: Vec::new(),
            public: None,
            registry: None,
            forwarders: FORWARDER.to_owned(),
            journals: None,
            elements: Vec::new(),
        }
    }

    /// Listens on this URL; may be given more than once: a unix socket for its node, TCP for others.
    #[must_use]
    pub fn listen_on(mut self, url: impl Into<String>) -> Self {
        self.listen.push(url.into());
        self
    }

    /// Others reach it under this URL (default: the first TCP address it listens on, else the first of all).
    #[must_use]
    pub fn public_url(mut self, url: impl Into<String>) -> Self {
        self.public = Some(url.into());
        self
    }

    /// Registers its endpoints at the registry with this URL, and finds others there. Without one it keeps all records
    /// itself: a mesh of one node.
    #[must_use]
    pub fn registry(mut self, url: impl Into<String>) -> Self {
        self.registry = Some(url.into());
        self
    }

    /// Forwarders register under another service than `forwarder`.
    #[must_use]
    pub fn forwarder_service(mut self, service: &str) -> Self {
        service.clone_into(&mut self.forwarders);
        self
    }

    /// Where it keeps all records itself: goes on where these journals end, as
    /// [`RegistryRole::store`](super::RegistryRole::store) does.
    #[must_use]
    pub fn store(mut self, journals: Journals) -> Self {
        self.journals = Some(journals);
        self
    }

    /// Elements of one's own, before the choice of a forwarder.
    #[must_use]
    pub fn with(mut self, elements: Vec<Node>) -> Self {
        self.elements.extend(elements);
        self
    }

    /// Serves.
    ///
    /// # Errors
    /// When no socket can be opened there, an element of one's own stands where it may not, or the journals cannot be
    /// read, or are given beside a registry.
    pub async fn serve(self) -> Result<Running, RoleError> {
        let listen = addresses(&self.listen)?;
        let public = self.public.or_else(|| reachable(&self.listen)).ok_or(RoleError::NowhereToListen)?;

        let channels = self.site.channels();
        let hop = self.site.hop(&self.name);
        let mut registry = ManagerRegistry::builder(self.name.as_str(), public.as_str(), self.site.admission())
            .client_info(ClientInfo::from_env())
            .before_endpoints(Node::new(OpenAhead::new(Arc::clone(&channels), self.forwarders.as_str())))
            .timers(hop.timers().clone());
        if let Some(url) = self.registry {
            registry = registry
                .registry(Arc::clone(&channels), url)
                .registry_policies(self.site.policies().registry_client.clone());
        }
        let registry = match &self.journals {
            Some(journals) => registry.restore(journals).await?,
            None => registry.build()?,
        };
        let finder: Arc<Finder> = Arc::new(registry.finder);
        let manager = Manager::new(&hop, &public, &self.forwarders, &finder, channels, self.elements)?;
        let server =
            with_registry(with_service(self.site.server(), manager.chain), registry.services, registry.endpoints);
        Ok(Running::new(&self.name, self.site.bind(server, &listen).await?).passed_by(manager.connections))
    }
}

/// Of the URLs a role listens on, the one under which others most likely reach it.
pub(super) fn reachable(listen: &[String]) -> Option<String> {
    let from_elsewhere = listen.iter().find(|url| !url.starts_with("unix:") && !url.starts_with("mem:"));
    from_elsewhere.or(listen.first()).cloned()
}
