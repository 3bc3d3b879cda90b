mod caller;
mod identities;
mod service;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nsm_sdk::identity::{DevAuthority, IdentityError};
use nsm_sdk::transport::{Address, BindOptions, Listener, TransportError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::caller::Caller;
use self::identities::{Identities, Who};
use self::service::WorkloadService;
use crate::proto::spiffe_workload_api_server::SpiffeWorkloadApiServer;

/// A small agent for development and tests: serves the SPIFFE Workload API for X.509 over a [`DevAuthority`].
///
/// It attests nobody: whoever can open its socket gets the identity that belongs to it. Programs with different identities
/// get a socket each ([`DevAgent::identity`]), or are told apart by the user and process at the other end
/// ([`DevAgent::identities`]). JWT-SVIDs are not served.
///
/// Certificates live an hour and are renewed at half of that, unless told otherwise; a change of the authority's roots or of
/// whom it trusts is pushed at once.
#[derive(Clone)]
pub struct DevAgent {
    authority: DevAuthority,
    who: Who,
    lifetime: Duration,
    every: Option<Duration>,
}

/// A running agent. Dropping it stops it: streams break off, the socket file goes.
#[derive(Debug)]
pub struct AgentHandle {
    address: Address,
    identities: Arc<Identities>,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

/// An agent could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// It cannot give out the identity it was told to.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// It cannot listen.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

impl DevAgent {
    /// An agent that knows no workload yet.
    #[must_use]
    pub fn new(authority: DevAuthority) -> Self {
        Self { authority, who: Who::Nobody, lifetime: Duration::from_secs(3600), every: None }
    }

    /// Everyone who calls is `spiffe://<trust domain><path>`.
    #[must_use]
    pub fn identity(mut self, path: &str) -> Self {
        self.who = Who::Everybody(path.into());
        self
    }

    /// Each caller is what this says of it: the path of a SPIFFE ID, or none.
    #[must_use]
    pub fn identities(mut self, choose: impl Fn(&Caller) -> Option<String> + Send + Sync + 'static) -> Self {
        self.who = Who::Chosen(Arc::new(choose));
        self
    }

    /// Certificates live this long.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Everyone gets a new key and certificate this often.
    #[must_use]
    pub fn rotate_every(mut self, period: Duration) -> Self {
        self.every = Some(period);
        self
    }

    /// Serves on `address`.
    ///
    /// # Errors
    /// [`AgentError`]: the socket cannot be made, or the path is none of a SPIFFE ID.
    pub async fn serve(self, address: &Address) -> Result<AgentHandle, AgentError> {
        if let Who::Everybody(path) = &self.who {
            self.authority.sign(path, self.lifetime)?;
        }
        let listener = Listener::bind(address, &BindOptions::default()).await?;
        let address = listener.address().clone();
        let every = self.every.unwrap_or(self.lifetime / 2).max(Duration::from_millis(10));
        let identities = Arc::new(Identities::new(self.authority, self.who, self.lifetime));
        let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());

        let service = WorkloadService { identities: Arc::clone(&identities), stopping: stopping.clone() };
        let serving = tonic::transport::Server::builder().serve_with_incoming_shutdown(
            SpiffeWorkloadApiServer::new(service),
            caller::incoming(listener),
            stopping.clone().cancelled_owned(),
        );
        tasks.spawn(async move {
            if let Err(error) = serving.await {
                tracing::warn!(%error, "the development agent broke down");
            }
        });
        tasks.spawn({
            let (identities, stopping) = (Arc::clone(&identities), stopping.clone());
            async move {
                stopping.run_until_cancelled(identities.keep_fresh(every)).await;
            }
        });
        tasks.close();
        tracing::info!(%address, "a development agent serves the Workload API");
        Ok(AgentHandle { address, identities, stopping, tasks })
    }
}

impl AgentHandle {
    /// Where it listens, with the real port.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Gives everyone a new key and certificate, now.
    pub fn rotate(&self) {
        self.identities.rotate();
    }

    /// From now on everyone who calls is this path, or nobody (as SPIRE's agent says it: `PermissionDenied`). Streams that
    /// are open hear of it too.
    pub fn set_identity(&self, path: Option<&str>) {
        self.identities.set(path.map_or(Who::Nobody, |path| Who::Everybody(path.into())));
    }

    /// Stops it. Returns when nothing of it runs any more and its socket is gone.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for AgentHandle {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

impl fmt::Debug for DevAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevAgent").field("authority", &self.authority).field("who", &self.who).finish_non_exhaustive()
    }
}
