use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use nsm_api::networkservice::NetworkServiceRequest;
use nsm_api::{Connection, ServiceUrl};
use nsm_chain::tower::Verb;
use nsm_chain::{Begin, Call, Chain, Closed, Error, Node, OrderError, Protocol, Result, Service, Timers, elements};
use tokio_util::task::TaskTracker;

use super::Session;
use crate::connect::{Connect, Links};
use crate::descriptors::SendFd;
use crate::identity::PolicySet;
use crate::lifecycle::Lifecycle;
use crate::lifetime::{Heal, Liveness, Refresh, Retry};
use crate::path::UpdatePath;
use crate::security::AuthorizeServer;

/// A client (NSC): asks for network services, keeps what it got alive, and makes it again when it breaks.
#[derive(Debug, Clone)]
pub struct Client {
    chain: Chain,
    connections: Arc<Begin>,
    lifecycle: Lifecycle,
    tasks: TaskTracker,
}

/// Settings of a [`Client`].
pub struct ClientBuilder {
    name: Arc<str>,
    url: Arc<str>,
    links: Arc<dyn Links<Service>>,
    timers: Timers,
    try_timeout: Duration,
    policies: PolicySet,
    liveness: Option<(Arc<dyn Liveness>, Duration, Duration)>,
    refreshes: bool,
    heals: bool,
    reselect: Option<Box<Reselect>>,
    elements: Vec<Node>,
}

type Reselect = dyn Fn(&mut Connection) + Send + Sync;

/// How many connections are closed at the same time.
const AT_ONCE: usize = 64;

impl Client {
    /// A client of that name, asking the manager at `url`.
    #[must_use]
    pub fn builder(
        name: impl Into<Arc<str>>,
        url: impl Into<Arc<str>>,
        links: Arc<dyn Links<Service>>,
    ) -> ClientBuilder {
        ClientBuilder {
            name: name.into(),
            url: url.into(),
            links,
            timers: Timers::default(),
            try_timeout: Duration::from_secs(15),
            policies: PolicySet::client(),
            liveness: None,
            refreshes: true,
            heals: true,
            reselect: None,
            elements: Vec::new(),
        }
    }

    /// The chain, to look at.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// What is connected now.
    #[must_use]
    pub fn connections(&self) -> &Arc<Begin> {
        &self.connections
    }

    /// Asks for what a service URL says, such as `kernel://vpn@example.org/nsm-1`, and tries until it is there or the time
    /// is over. From then on it is refreshed and healed until it is closed; the [`Session`] tells what becomes of it.
    /// Dropping the future gives up, and what was made so far is given back; dropping the session does not close it.
    ///
    /// Connecting twice with the same `id` gives the same connection; an empty one stands for a new one.
    ///
    /// # Errors
    /// What the last try failed with: which hop, why, and what to do.
    pub async fn connect(&self, url: &ServiceUrl, id: &str, within: Duration) -> Result<Session> {
        let connection = self.request_url(url, id, within).await?;
        self.session(&connection.id).ok_or_else(|| Error::cancelled("it was closed in the meantime"))
    }

    /// The session of a connection that is there, up or down, however it was asked for.
    #[must_use]
    pub fn session(&self, id: &str) -> Option<Session> {
        self.lifecycle.status(id).map(|status| Session::new(id.into(), self.clone(), status))
    }

    /// The sessions of all that is there.
    #[must_use]
    pub fn sessions(&self) -> Vec<Session> {
        self.lifecycle.ids().iter().filter_map(|id| self.session(id)).collect()
    }

    /// Asks for a network service, and tries until it is there or the time is over. From then on it is refreshed and
    /// healed until it is closed. Dropping the future gives up, and what was made so far is given back.
    ///
    /// Asking again with what came back changes the endpoint or the context of the connection.
    ///
    /// # Errors
    /// What the last try failed with: which hop, why, and what to do.
    pub async fn request(&self, request: NetworkServiceRequest, within: Duration) -> Result<Connection> {
        let mut connection = request.connection.unwrap_or_default();
        if connection.id.is_empty() {
            // Before the tries: each asks for the same connection.
            connection.id = uuid::Uuid::new_v4().to_string();
        }
        let call = Call::request(connection, request.mechanism_preferences).within(within);
        Ok(self.chain.detached(Verb::Request(call), &self.tasks).await?.into_body())
    }

    /// Asks for what a service URL says, such as `kernel://vpn@example.org/nsm-1`. Asking twice with the same `id` asks
    /// for the same connection.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub async fn request_url(&self, url: &ServiceUrl, id: &str, within: Duration) -> Result<Connection> {
        self.request(url.to_request(id), within).await
    }

    /// Closes a connection everywhere.
    ///
    /// # Errors
    /// What could not be undone, and where. Here nothing is left of it all the same.
    pub async fn close(&self, connection: Connection, within: Duration) -> Result<Closed> {
        let call = Call::new(connection).within(within);
        Ok(self.chain.detached(Verb::Close(call), &self.tasks).await?.closed())
    }

    /// Closes everything.
    ///
    /// # Errors
    /// Each connection that could not be closed everywhere.
    pub async fn shutdown(&self, within: Duration) -> Result<()> {
        let closing = self.connections.handles().into_iter().map(|handle| async move {
            match tokio::time::timeout(within, handle.close()).await {
                Ok(result) => result.map(drop),
                Err(_) => Err(Error::deadline(format!("{} could not be closed in time", handle.key()))),
            }
        });
        let failed: Vec<_> = futures::stream::iter(closing)
            .buffer_unordered(AT_ONCE)
            .filter_map(|closed| std::future::ready(closed.err()))
            .collect()
            .await;
        if failed.is_empty() { Ok(()) } else { Err(Error::all_failed("some connections could not be closed", failed)) }
    }
}

impl ClientBuilder {
    /// Shares a queue of timers with other clients of this process.
    #[must_use]
    pub fn timers(mut self, timers: Timers) -> Self {
        self.timers = timers;
        self
    }

    /// How long one try may take (default 15 s).
    #[must_use]
    pub fn try_timeout(mut self, timeout: Duration) -> Self {
        self.try_timeout = timeout;
        self
    }

    /// Judges the answer's path by these policies (default: the stock policies for clients).
    #[must_use]
    pub fn policies(mut self, policies: PolicySet) -> Self {
        self.policies = policies;
        self
    }

    /// Also heals when packets do not get through: asked every `interval`, given `within` to answer.
    #[must_use]
    pub fn liveness(mut self, liveness: Arc<dyn Liveness>, interval: Duration, within: Duration) -> Self {
        self.liveness = Some((liveness, interval, within));
        self
    }

    /// Leaves refreshing to the caller.
    #[must_use]
    pub fn without_refresh(mut self) -> Self {
        self.refreshes = false;
        self
    }

    /// Leaves healing to the caller.
    #[must_use]
    pub fn without_heal(mut self) -> Self {
        self.heals = false;
        self
    }

    /// What changes in a connection before it is asked for afresh because it broke, beside giving up the endpoint, the
    /// mechanism and the context it had: labels, say, so that another endpoint fits.
    #[must_use]
    pub fn reselecting_by(mut self, change: impl Fn(&mut Connection) + Send + Sync + 'static) -> Self {
        self.reselect = Some(Box::new(change));
        self
    }

    /// Elements of one's own, between healing and the manager: what mechanism is wanted, excluded prefixes, labels.
    #[must_use]
    pub fn with(mut self, elements: Vec<Node>) -> Self {
        self.elements.extend(elements);
        self
    }

    /// The client.
    ///
    /// # Errors
    /// When an element of one's own stands where it may not.
    pub fn build(self) -> Result<Client, OrderError> {
        let mut connections = Begin::initiator();
        if let Some(change) = self.reselect {
            connections = connections.reselecting_by(move |connection| {
                Service::reselect(connection);
                change(connection);
            });
        }
        let connections = Arc::new(connections);
        let mut heal = Heal::new(self.timers.clone());
        if let Some((liveness, interval, within)) = self.liveness {
            heal = heal.with_liveness(liveness, interval, within);
        }
        let mut list = elements![
            Retry::default().each(self.try_timeout), // around everything that makes one try
            UpdatePath::new(Arc::clone(&self.name)), // the first segment of every path
            Arc::clone(&connections),                // one event a connection at a time; its state
        ];
        if self.refreshes {
            list.extend(elements![Refresh::new(self.timers)]); // before the tokens on the path expire
        }
        if self.heals {
            list.extend(elements![heal]); // listens to the manager on the way back
        }
        let lifecycle = Lifecycle::new();
        list.extend(elements![lifecycle.clone()]); // tells sessions what becomes of it
        list.extend(self.elements);
        list.extend(elements![
            SendFd::to(Arc::clone(&self.url)),     // files by descriptor, both ways
            AuthorizeServer::new(self.policies),   // before the answer is used by anything above
            Connect::new(self.links).to(self.url), // to the manager
        ]);
        let chain = Chain::new(self.name, list)?;
        Ok(Client { chain, connections, lifecycle, tasks: TaskTracker::new() })
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientBuilder({} of {})", self.name, self.url)
    }
}
