//! Tokens made a moment ago, for the next call to the same audience.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use nsm_api::SpiffeId;
use nsm_chain::{Token, time};

use super::Svid;
use crate::generations::Generations;

/// Shares a token for a twentieth of its lifetime, a second at least. Not for longer, because each refresh of a connection shall
/// carry its expiry on.
pub(super) struct Recent {
    share: Duration,
    made: Mutex<Generations<Option<SpiffeId>, Made>>,
}

struct Made {
    /// What it is signed with.
    svid: Option<Arc<Svid>>,
    at: SystemTime,
    token: Token,
}

impl Recent {
    pub(super) fn new(lifetime: Duration) -> Self {
        let share = (lifetime / 20).max(Duration::from_secs(1));
        Self { share, made: Mutex::new(Generations::new(AUDIENCES)) }
    }

    /// The recent token for `audience` signed with `svid`, or the one that `make` makes now.
    pub(super) fn token<E>(
        &self,
        audience: Option<&SpiffeId>,
        svid: Option<&Arc<Svid>>,
        make: impl FnOnce(SystemTime) -> Result<Token, E>,
    ) -> Result<Token, E> {
        let now = time::now();
        let audience = audience.cloned();
        if let Some(token) = self.found(&audience, svid, now) {
            return Ok(token);
        }
        // Not under the lock: signing takes long enough to hold up others.
        let token = make(now)?;
        let made = Made { svid: svid.cloned(), at: now, token: token.clone() };
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(audience, made);
        Ok(token)
    }

    fn found(&self, audience: &Option<SpiffeId>, svid: Option<&Arc<Svid>>, now: SystemTime) -> Option<Token> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let made = made.lookup(audience)?;
        let same = made.svid.as_ref().map(Arc::as_ptr) == svid.map(Arc::as_ptr);
        let young = now.duration_since(made.at).is_ok_and(|age| age < self.share);
        (same && young && now < made.token.expires).then(|| made.token.clone())
    }
}

/// A manager talks to some hundred peers; beyond this the least used are signed anew.
const AUDIENCES: usize = 1024;
