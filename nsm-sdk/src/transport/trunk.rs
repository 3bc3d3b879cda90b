use std::sync::{Arc, PoisonError};

use futures::future::{BoxFuture, FutureExt, Shared};
use nsm_chain::sync::{Mutex, MutexGuard, tokio};

use super::TransportError;
use super::dial::{Dialler, Live};

/// The one connection to an address that everyone shares, opened again when it is gone.
#[derive(Debug)]
pub(super) struct Trunk {
    pub(super) dialler: Dialler,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    live: Option<Arc<Live>>,
    dialling: Option<Dialling>,
}

/// A dial under way; everyone who needs the connection waits for the same one.
type Dialling = Shared<BoxFuture<'static, Result<Arc<Live>, TransportError>>>;

impl Trunk {
    pub(super) fn new(dialler: Dialler) -> Self {
        Self { dialler, state: Mutex::default() }
    }

    /// The connection to use now.
    ///
    /// After a rotation of our SVID the next call begins a new connection, which shows the new one; calls and streams on the old
    /// connection end in peace, and it is used until the new one stands.
    pub(super) async fn live(self: &Arc<Self>) -> Result<Arc<Live>, TransportError> {
        let dialling = {
            let mut state = self.state();
            match state.live.clone().filter(|live| live.is_open()) {
                Some(live) => {
                    if state.dialling.is_none() && !self.dialler.transport.is_current(live.shown.as_ref()) {
                        state.dialling = Some(self.start());
                    }
                    return Ok(live);
                }
                None => state.dialling.get_or_insert_with(|| self.start()).clone(),
            }
        };
        dialling.await
    }

    /// The newest connection, open or not.
    pub(super) fn latest(&self) -> Option<Arc<Live>> {
        self.state().live.clone()
    }

    /// Whether a connection stands or is being opened.
    pub(super) fn is_up(&self) -> bool {
        let state = self.state();
        state.dialling.is_some() || state.live.as_ref().is_some_and(|live| live.is_open())
    }

    /// Forgets a connection on which a call could not begin.
    pub(super) fn retire(&self, dead: &Arc<Live>) {
        let mut state = self.state();
        if state.live.as_ref().is_some_and(|live| Arc::ptr_eq(live, dead)) {
            state.live = None;
        }
    }

    /// A task of its own, so that the dial goes on for the others when the first who wanted it gives up.
    fn start(self: &Arc<Self>) -> Dialling {
        let trunk = Arc::clone(self);
        let task = tokio::spawn(async move {
            let dialled = trunk.dialler.dial().await.map(Arc::new);
            let mut state = trunk.state();
            state.dialling = None;
            match &dialled {
                Ok(live) => state.live = Some(Arc::clone(live)),
                Err(error) => tracing::debug!(%error, "no link"),
            }
            dialled
        });
        let (address, trunk) = (self.dialler.address.clone(), Arc::downgrade(self));
        async move {
            task.await.unwrap_or_else(|error| {
                // It panicked, in somebody's sockets or identity: whoever comes next tries again.
                if let Some(trunk) = trunk.upgrade() {
                    trunk.state().dialling = None;
                }
                Err(TransportError::Closed { address, reason: error.to_string() })
            })
        }
        .boxed()
        .shared()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
