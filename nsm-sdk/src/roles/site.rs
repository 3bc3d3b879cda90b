use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use nsm_chain::OrderError;
use nsm_kernel::Netns;
use tokio::net::TcpStream;

use crate::identity::{Policies, SvidSource};
use crate::registry::stacks::{Admission, RegistryClient, RegistryClientBuilder, RestoreError};
use crate::stacks::Hop;
use crate::transport::{
    Address, AddressError, BindOptions, Channels, CurrentNamespace, DialOptions, Server, ServerHandle, SocketFactory,
    Transport, TransportError,
};

/// Who a role is, and where its sockets are.
///
/// ```
/// use nsm_sdk::identity::DevAuthority;
/// use nsm_sdk::roles::Site;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let authority = DevAuthority::new("example.org")?;
/// let site = Site::mtls(authority.issue("/nsmgr-1")?);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Site {
    transport: Transport,
    sockets: Arc<dyn SocketFactory>,
    dial_timeout: Duration,
    policies: Policies,
}

/// How long tokens live where nobody says otherwise: the reference's ten minutes.
const TOKEN_LIFE: Duration = Duration::from_secs(600);

impl Site {
    /// Mutual TLS under this identity, followed live as it is rotated; tokens of ten minutes.
    #[must_use]
    pub fn mtls(source: Arc<dyn SvidSource>) -> Self {
        Self::over(Transport::mtls(source, TOKEN_LIFE))
    }

    /// Over this transport. Where it has an identity, the stock policies judge who is at its other ends; without one
    /// there is nothing to judge by.
    #[must_use]
    pub fn over(transport: Transport) -> Self {
        let policies = if transport.source().is_some() { Policies::stock() } else { Policies::allow_all() };
        Self { transport, sockets: Arc::new(CurrentNamespace), dial_timeout: Duration::from_secs(15), policies }
    }

    /// Judges by these policies instead. Without an identity they deny whatever they need one for.
    #[must_use]
    pub fn with_policies(mut self, policies: Policies) -> Self {
        self.policies = policies;
        self
    }

    /// With TCP sockets in this network namespace.
    #[must_use]
    pub fn in_netns(mut self, netns: &Netns) -> Self {
        self.sockets = Arc::new(NetnsSockets(netns.clone()));
        self
    }

    /// Gives a connection to a peer this long to come up.
    #[must_use]
    pub fn dial_timeout(mut self, timeout: Duration) -> Self {
        self.dial_timeout = timeout;
        self
    }

    /// Shared connections to peers.
    #[must_use]
    pub fn channels(&self) -> Arc<Channels> {
        let options =
            DialOptions { sockets: Arc::clone(&self.sockets), timeout: self.dial_timeout, ..DialOptions::default() };
        Arc::new(Channels::new(self.transport.clone(), options))
    }

    /// What a stack of this name shares.
    #[must_use]
    pub fn hop(&self, name: &str) -> Hop {
        Hop::new(name, self.transport.tokens())
            .with_policies(self.policies.server.clone())
            .with_monitor_policies(self.policies.monitor.clone())
    }

    /// What its roles judge by.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Registers and finds at this URL, under that name: to add to, and to build.
    #[must_use]
    pub fn registry_client(
        &self,
        name: &str,
        channels: Arc<Channels>,
        url: impl Into<Arc<str>>,
    ) -> RegistryClientBuilder {
        RegistryClient::builder(name).connect(channels, url).policies(self.policies.registry_client.clone())
    }

    pub(super) fn admission(&self) -> Admission {
        Admission::by(self.transport.tokens()).policies(self.policies.registry_server.clone())
    }

    pub(super) fn server(&self) -> Server {
        Server::new(self.transport.clone())
    }

    pub(super) async fn bind(&self, server: Server, listen: &[Address]) -> Result<ServerHandle, RoleError> {
        if listen.is_empty() {
            return Err(RoleError::NowhereToListen);
        }
        let options = BindOptions { sockets: Arc::clone(&self.sockets), ..BindOptions::default() };
        Ok(server.bind(listen, &options).await?)
    }
}

/// The addresses in a list of URLs.
pub(super) fn addresses(urls: &[String]) -> Result<Vec<Address>, RoleError> {
    urls.iter().map(|url| Ok(url.parse()?)).collect()
}

/// A role could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RoleError {
    /// No address was given.
    #[error("the role has no address to listen on; give it one, such as unix:///run/nsm/role.sock")]
    NowhereToListen,
    /// It goes on with connections, and has no manager.
    #[error("the endpoint goes on with connections, and has no manager to ask; give it one that it registers at")]
    NowhereToGoOn,
    /// An address does not parse.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A socket could not be opened.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The elements given do not stand in an order that works.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// The registry could not go on where its journals end.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// It could not be registered.
    #[error("cannot register")]
    Register(#[source] nsm_chain::Error),
}

/// TCP sockets in a network namespace.
#[derive(Debug, Clone)]
pub struct NetnsSockets(pub Netns);

impl SocketFactory for NetnsSockets {
    fn tcp_listener(&self, address: SocketAddr) -> io::Result<std::net::TcpListener> {
        self.0.run_blocking(move || std::net::TcpListener::bind(address)).map_err(io::Error::other)
    }

    fn tcp_connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> {
        let netns = self.0.clone();
        async move { netns.tcp_connect(address).await.map_err(io::Error::other) }.boxed()
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("sockets", &self.sockets).finish_non_exhaustive()
    }
}
