use std::fmt;
use std::sync::Arc;

use super::registry::with_registry;
use super::site::addresses;
use super::{RoleError, Running, Site};
use crate::interdomain::{DomainResolver, MANAGER_PROXY, REGISTRY};
use crate::registry::stacks::RegistryProxy;

/// The registry proxy of a domain, served over gRPC: asks the registries of other domains.
#[derive(Clone)]
pub struct RegistryProxyRole {
    name: String,
    site: Site,
    listen: Vec<String>,
    resolver: Arc<dyn DomainResolver>,
    registry: String,
    proxy: String,
}

impl RegistryProxyRole {
    /// A proxy of that name, which finds other domains by this resolver.
    #[must_use]
    pub fn new(name: &str, site: Site, resolver: Arc<dyn DomainResolver>) -> Self {
        let (registry, proxy) = (REGISTRY.to_owned(), MANAGER_PROXY.to_owned());
        Self { name: name.to_owned(), site, listen: Vec::new(), resolver, registry, proxy }
    }

    /// Listens on this URL; may be given more than once.
    #[must_use]
    pub fn listen_on(mut self, url: impl Into<String>) -> Self {
        self.listen.push(url.into());
        self
    }

    /// Other domains' registries and manager proxies are found under these names (default: [`REGISTRY`] and
    /// [`MANAGER_PROXY`]).
    #[must_use]
    pub fn finding(mut self, registry: impl Into<String>, proxy: impl Into<String>) -> Self {
        (self.registry, self.proxy) = (registry.into(), proxy.into());
        self
    }

    /// Serves.
    ///
    /// # Errors
    /// When no socket can be opened there.
    pub async fn serve(self) -> Result<Running, RoleError> {
        let (admission, channels) = (self.site.admission(), self.site.channels());
        let proxy = RegistryProxy::builder(self.name.as_str(), admission, self.resolver, channels)
            .finding(self.registry, self.proxy)
            .registry_policies(self.site.policies().registry_client.clone())
            .build()?;
        let server = with_registry(self.site.server(), proxy.services, proxy.endpoints);
        Ok(Running::new(&self.name, self.site.bind(server, &addresses(&self.listen)?).await?))
    }
}

impl fmt::Debug for RegistryProxyRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistryProxyRole({}, finds {} and {})", self.name, self.registry, self.proxy)
    }
}
