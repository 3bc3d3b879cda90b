use std::time::Duration;

use nsm_api::registry::network_service_endpoint_registry_server::NetworkServiceEndpointRegistryServer;
use nsm_api::registry::network_service_registry_server::NetworkServiceRegistryServer;
use nsm_chain::grpc;

use super::site::addresses;
use super::{RoleError, Running, Site};
use crate::registry::stacks::MemoryRegistry;
use crate::registry::{Endpoints, Journals, Services};
use crate::transport::Server;
use nsm_chain::Chain;

/// A registry, served over gRPC.
#[derive(Debug, Clone)]
pub struct RegistryRole {
    name: String,
    site: Site,
    listen: Vec<String>,
    expiration: Duration,
    journals: Option<Journals>,
    proxy: Option<String>,
}

impl RegistryRole {
    /// A registry of that name.
    #[must_use]
    pub fn new(name: &str, site: Site) -> Self {
        let expiration = Duration::from_secs(60);
        Self { name: name.to_owned(), site, listen: Vec::new(), expiration, journals: None, proxy: None }
    }

    /// Listens on this URL; may be given more than once.
    #[must_use]
    pub fn listen_on(mut self, url: impl Into<String>) -> Self {
        self.listen.push(url.into());
        self
    }

    /// How long an endpoint that does not say stays registered (default: a minute).
    #[must_use]
    pub fn default_expiration(mut self, life: Duration) -> Self {
        self.expiration = life;
        self
    }

    /// Goes on where these journals end, and keeps in them what it tells its callers (default: it starts empty, and
    /// keeps records in memory alone). Crate `nsm-store` has journals in a file.
    #[must_use]
    pub fn store(mut self, journals: Journals) -> Self {
        self.journals = Some(journals);
        self
    }

    /// Reaches other domains through the manager proxy at this URL (default: names of other domains are refused).
    #[must_use]
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.proxy = Some(url.into());
        self
    }

    /// Serves.
    ///
    /// # Errors
    /// When no socket can be opened there, or the journals cannot be read.
    pub async fn serve(self) -> Result<Running, RoleError> {
        let mut registry =
            MemoryRegistry::builder(self.name.as_str(), self.site.admission()).default_expiration(self.expiration);
        if let Some(url) = self.proxy {
            let policies = self.site.policies().registry_client.clone();
            registry = registry.proxy(self.site.channels(), url).proxy_policies(policies);
        }
        let registry = match &self.journals {
            Some(journals) => registry.restore(journals).await?,
            None => registry.build()?,
        };
        let server = with_registry(self.site.server(), registry.services, registry.endpoints);
        Ok(Running::new(&self.name, self.site.bind(server, &addresses(&self.listen)?).await?))
    }
}

/// A server that serves both registries too.
pub(super) fn with_registry(server: Server, services: Chain<Services>, endpoints: Chain<Endpoints>) -> Server {
    server
        .with(NetworkServiceRegistryServer::new(grpc::Server::new(services)))
        .with(NetworkServiceEndpointRegistryServer::new(grpc::Server::new(endpoints)))
}
