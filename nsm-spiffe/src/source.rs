use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nsm_chain::time;
use nsm_sdk::identity::{Bundles, IdentityError, Svid, SvidSource};
use spiffe::transport::Endpoint;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::endpoint::{self, EndpointError};
use crate::follow;
use crate::material::{same_bundles, same_svid};
use crate::state::{AgentState, Obstacle};

/// The workload's identity, as the agent behind `SPIFFE_ENDPOINT_SOCKET` tells it, followed live.
///
/// - It connects by itself, and again after each loss: at once, then with pauses that double up to
///   [`Options::longest_pause`], shortened at random.
/// - Each message of the agent replaces SVID and bundles at once, federated ones included. [`SvidSource::changed`] counts up only if
///   something has really changed.
/// - What keeps it from its agent is its [state](WorkloadApi::state): a value to print, to wait on
///   ([`WorkloadApi::states`]), inside [`IdentityError::NoSvid`], and in the log, once at each change and every
///   [`Options::remind_every`] after that.
/// - Without the agent the last SVID stays in use until it ends, also if the agent says that it knows no identity any more: it
///   gives out short-lived certificates for that reason. Then [`SvidSource::svid`] is [`IdentityError::Expired`], with the state.
///
/// A clone is another handle on the same source; the last one dropped ends it.
#[derive(Clone)]
pub struct WorkloadApi {
    shared: Arc<Shared>,
    _following: Arc<AbortOnDropHandle<()>>,
}

/// How to follow an agent.
#[derive(Debug, Clone)]
pub struct Options {
    /// Of several SVIDs, the one with this hint; by default the first.
    pub hint: Option<String>,
    /// The pause before the second try to reach the agent.
    pub first_pause: Duration,
    /// The longest pause between two tries.
    pub longest_pause: Duration,
    /// How long the agent may stay silent on a new stream before that is called an obstacle.
    pub patience: Duration,
    /// How often the log says again that we are waiting.
    pub remind_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hint: None,
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_secs(5),
            patience: Duration::from_secs(5),
            remind_every: Duration::from_secs(30),
        }
    }
}

pub(crate) struct Shared {
    pub(crate) endpoint: Endpoint,
    pub(crate) options: Options,
    identity: Mutex<Identity>,
    version: watch::Sender<u64>,
    pub(crate) state: watch::Sender<AgentState>,
}

/// Replaced together: a rotated SVID is never judged by bundles of before.
#[derive(Default)]
struct Identity {
    svid: Option<Arc<Svid>>,
    bundles: Arc<Bundles>,
}

impl WorkloadApi {
    /// Follows the agent that the variable `SPIFFE_ENDPOINT_SOCKET` names. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// [`EndpointError`] if the variable names no agent. That the agent is not there (yet) is no error, but the
    /// [state](Self::state).
    pub fn from_env() -> Result<Self, EndpointError> {
        Self::connect(&endpoint::from_env()?)
    }

    /// Follows the agent at `unix:///path` or `tcp://ip:port`. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// [`EndpointError`] for any other text.
    pub fn connect(endpoint: &str) -> Result<Self, EndpointError> {
        Self::connect_with(endpoint, Options::default())
    }

    /// The same, in another way than by default.
    ///
    /// # Errors
    /// As [`WorkloadApi::connect`].
    pub fn connect_with(endpoint: &str, options: Options) -> Result<Self, EndpointError> {
        let state = AgentState { endpoint: endpoint.into(), obstacle: Some(Obstacle::Starting) };
        let shared = Arc::new(Shared {
            endpoint: endpoint::parse(endpoint)?,
            options,
            identity: Mutex::default(),
            version: watch::Sender::new(0),
            state: watch::Sender::new(state),
        });
        let following = AbortOnDropHandle::new(tokio::spawn(follow::follow(Arc::clone(&shared))));
        Ok(Self { shared, _following: Arc::new(following) })
    }

    /// Waits until there is an SVID, this long at most.
    ///
    /// # Errors
    /// What [`SvidSource::svid`] says then: [`IdentityError::NoSvid`] with the [state](Self::state), or [`IdentityError::Key`] and
    /// the like for an SVID that cannot be used.
    pub async fn ready(&self, within: Duration) -> Result<(), IdentityError> {
        let mut version = self.shared.version.subscribe();
        // The sender lives as long as this handle does.
        drop(tokio::time::timeout(within, version.wait_for(|_| self.svid().is_ok())).await);
        self.svid().map(drop)
    }

    /// How it stands with the agent now.
    #[must_use]
    pub fn state(&self) -> AgentState {
        self.shared.state.borrow().clone()
    }

    /// The [state](Self::state) and its changes.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<AgentState> {
        self.shared.state.subscribe()
    }

    /// This source as roles and transports take it.
    #[must_use]
    pub fn into_source(self) -> Arc<dyn SvidSource> {
        Arc::new(self)
    }
}

impl Shared {
    fn identity(&self) -> MutexGuard<'_, Identity> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what the agent sent. Equal parts keep their place, so that nobody sees a change where there is none.
    pub(crate) fn set(&self, svid: Svid, bundles: Bundles) {
        let changed = {
            let mut identity = self.identity();
            let new_svid = identity.svid.as_ref().is_none_or(|now| !same_svid(now, &svid));
            let new_bundles = !same_bundles(&identity.bundles, &bundles);
            if new_svid {
                tracing::info!(id = %svid.id(), ends = ?time::until(svid.not_after()), "a new certificate from the agent");
                identity.svid = Some(Arc::new(svid));
            }
            if new_bundles {
                tracing::info!(?bundles, "new trust bundles from the agent");
                identity.bundles = Arc::new(bundles);
            }
            new_svid || new_bundles
        };
        if changed {
            self.version.send_modify(|version| *version += 1);
        }
    }

    /// The SVID last heard of, also if its time is over.
    pub(crate) fn latest(&self) -> Option<Arc<Svid>> {
        self.identity().svid.clone()
    }
}

impl SvidSource for WorkloadApi {
    fn svid(&self) -> Result<Arc<Svid>, IdentityError> {
        match self.shared.latest() {
            Some(svid) if svid.not_after() > time::now() => Ok(svid),
            Some(svid) => Err(IdentityError::Expired {
                id: svid.id().clone(),
                not_after: svid.not_after(),
                advice: self.state().to_string(),
            }),
            None => Err(self.state().no_svid()),
        }
    }

    fn bundle(&self) -> Arc<Bundles> {
        Arc::clone(&self.shared.identity().bundles)
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.shared.version.subscribe()
    }
}

impl fmt::Debug for WorkloadApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WorkloadApi").field(&self.state().to_string()).finish()
    }
}
