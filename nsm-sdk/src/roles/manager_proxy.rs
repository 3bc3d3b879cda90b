use std::path::PathBuf;

use nsm_chain::Node;

use super::endpoint::with_service;
use super::manager::reachable;
use super::registry::with_registry;
use super::site::addresses;
use super::{RoleError, Running, Site};
use crate::interdomain::{ClusterInfo, SwapIp};
use crate::stacks::ManagerProxy;

/// The manager proxy of a domain (NSMgr proxy), served over gRPC: Request, Close and Monitor across the domain's border,
/// and the registry for names of other domains.
#[derive(Debug)]
pub struct ManagerProxyRole {
    name: String,
    site: Site,
    registry: String,
    registry_proxy: String,
    listen: Vec<String>,
    public: Option<String>,
    domains: Vec<String>,
    addresses: PathBuf,
    cluster: PathBuf,
    elements: Vec<Node>,
}

impl ManagerProxyRole {
    /// A proxy of that name, in the domain with the registry and the registry proxy at these URLs.
    #[must_use]
    pub fn new(name: &str, site: Site, registry: impl Into<String>, registry_proxy: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            site,
            registry: registry.into(),
            registry_proxy: registry_proxy.into(),
            listen: Vec::new(),
            public: None,
            domains: Vec::new(),
            addresses: SwapIp::DEFAULT_PATH.into(),
            cluster: ClusterInfo::DEFAULT_PATH.into(),
            elements: Vec::new(),
        }
    }

    /// Listens on this URL; may be given more than once.
    #[must_use]
    pub fn listen_on(mut self, url: impl Into<String>) -> Self {
        self.listen.push(url.into());
        self
    }

    /// This domain reaches it under this URL (default: the first TCP address it listens on, else the first of all).
    #[must_use]
    pub fn public_url(mut self, url: impl Into<String>) -> Self {
        self.public = Some(url.into());
        self
    }

    /// Others know this domain by this name; may be given more than once (default: whatever its registry knows is taken
    /// for this domain's).
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domains.push(domain.into());
        self
    }

    /// The file that maps inside addresses to outside ones and back (default: [`SwapIp::DEFAULT_PATH`]).
    #[must_use]
    pub fn addresses(mut self, path: impl Into<PathBuf>) -> Self {
        self.addresses = path.into();
        self
    }

    /// The file with the cluster's labels (default: [`ClusterInfo::DEFAULT_PATH`]).
    #[must_use]
    pub fn cluster(mut self, path: impl Into<PathBuf>) -> Self {
        self.cluster = path.into();
        self
    }

    /// Elements of one's own, before the choice of the next hop.
    #[must_use]
    pub fn with(mut self, elements: Vec<Node>) -> Self {
        self.elements.extend(elements);
        self
    }

    /// Serves.
    ///
    /// # Errors
    /// When no socket can be opened there, or an element of one's own stands where it may not.
    pub async fn serve(self) -> Result<Running, RoleError> {
        let listen = addresses(&self.listen)?;
        let public = self.public.or_else(|| reachable(&self.listen)).ok_or(RoleError::NowhereToListen)?;
        let hop = self.site.hop(&self.name);
        let around = (self.registry, self.registry_proxy);
        let proxy = ManagerProxy::builder(&hop, self.site.admission(), public, self.site.channels(), around)
            .domains(self.domains)
            .addresses(self.addresses)
            .cluster(self.cluster)
            .registry_policies(self.site.policies().registry_client.clone())
            .with(self.elements)
            .build()?;
        let server = with_registry(with_service(self.site.server(), proxy.chain), proxy.services, proxy.endpoints);
        Ok(Running::new(&self.name, self.site.bind(server, &listen).await?).passed_by(proxy.connections))
    }
}
