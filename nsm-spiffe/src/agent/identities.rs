use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nsm_sdk::identity::{Bundles, DevAuthority, IdentityError, Svid};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use super::Caller;

/// The path of a caller's SPIFFE ID; none: it has none.
type Choice = dyn Fn(&Caller) -> Option<String> + Send + Sync;

/// Who is who at an agent.
#[derive(Clone)]
pub(super) enum Who {
    Nobody,
    Everybody(Arc<str>),
    Chosen(Arc<Choice>),
}

/// What an agent gives out: one SVID for each identity, shared by all who have it.
pub(super) struct Identities {
    authority: DevAuthority,
    lifetime: Duration,
    state: Mutex<State>,
    /// Counts up at whatever the callers must hear of.
    version: watch::Sender<u64>,
}

struct State {
    who: Who,
    svids: HashMap<Arc<str>, Issued>,
}

struct Issued {
    svid: Arc<Svid>,
    /// The root that signed it.
    root: CertificateDer<'static>,
}

impl Identities {
    pub(super) fn new(authority: DevAuthority, who: Who, lifetime: Duration) -> Self {
        let state = Mutex::new(State { who, svids: HashMap::new() });
        Self { authority, lifetime, state, version: watch::Sender::new(0) }
    }

    pub(super) fn trust_domain(&self) -> &str {
        self.authority.trust_domain()
    }

    pub(super) fn bundles(&self) -> Arc<Bundles> {
        self.authority.bundles()
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(super) fn is_known(&self, caller: &Caller) -> bool {
        self.path(caller).is_some()
    }

    fn path(&self, caller: &Caller) -> Option<Arc<str>> {
        // Not under the lock: the choice is somebody else's code.
        let who = self.state().who.clone();
        match who {
            Who::Nobody => None,
            Who::Everybody(path) => Some(path),
            Who::Chosen(choose) => choose(caller).map(Arc::from),
        }
    }

    /// The caller's SVID; none: it is nobody here.
    pub(super) fn svid(&self, caller: &Caller) -> Result<Option<Arc<Svid>>, IdentityError> {
        let Some(path) = self.path(caller) else {
            return Ok(None);
        };
        let root = self.authority.root();
        let mut state = self.state();
        if let Some(issued) = state.svids.get(&path).filter(|issued| issued.root == root) {
            return Ok(Some(Arc::clone(&issued.svid)));
        }
        let svid = Arc::new(self.authority.sign(&path, self.lifetime)?);
        state.svids.insert(path, Issued { svid: Arc::clone(&svid), root });
        Ok(Some(svid))
    }

    pub(super) fn set(&self, who: Who) {
        self.state().who = who;
        self.tell();
    }

    pub(super) fn rotate(&self) {
        self.state().svids.clear();
        self.tell();
    }

    /// Renews every so often, and passes on what the authority changes.
    pub(super) async fn keep_fresh(&self, every: Duration) {
        let mut changed = self.authority.changed();
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.rotate(),
                // We hold the authority, so its channel stays open.
                _ = changed.changed() => self.tell(),
            }
        }
    }

    fn tell(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("Nobody"),
            Self::Everybody(path) => f.debug_tuple("Everybody").field(path).finish(),
            Self::Chosen(_) => f.write_str("Chosen"),
        }
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identities").field("authority", &self.authority).finish_non_exhaustive()
    }
}
