use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nsm_chain::Peer;
use tokio::time::Instant;

use super::Denied;
use crate::generations::Generations;

/// What the operator is told of refusals: each at once, but one peer at one policy not more often than every
/// [`QUIET`]. A caller that tries again and again fills no disk.
pub(super) struct Refusals(Mutex<Generations<String, Told>>);

struct Told {
    at: Instant,
    more: u64,
}

const QUIET: Duration = Duration::from_secs(10);
/// As many pairs of peer and policy are told apart; with more the oldest are told again earlier.
const BOUND: usize = 512;

impl Refusals {
    pub(super) fn log(&self, denied: &Denied, peer: Option<&Peer>, what: &dyn fmt::Display) {
        let id = peer.map_or("nobody", |peer| peer.id.as_str());
        let Denied { policy, reason, failed } = denied;
        match self.due(format!("{policy} {id}")) {
            Some(more) if *failed => {
                tracing::error!(target: "nsm::policy", %policy, reason, peer = id, %what, more, "a policy cannot be evaluated");
            }
            Some(more) => tracing::warn!(target: "nsm::policy", %policy, reason, peer = id, %what, more, "refused"),
            None => tracing::debug!(target: "nsm::policy", %policy, reason, peer = id, %what, "refused again"),
        }
    }

    /// Whether to tell it now, and how many of its kind were not told since the last time.
    fn due(&self, key: String) -> Option<u64> {
        let now = Instant::now();
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let more = match told.lookup(&key) {
            Some(last) if now.duration_since(last.at) < QUIET => {
                let again = Told { at: last.at, more: last.more + 1 };
                told.insert(key, again);
                return None;
            }
            Some(last) => last.more,
            None => 0,
        };
        told.insert(key, Told { at: now, more: 0 });
        Some(more)
    }
}

impl Default for Refusals {
    fn default() -> Self {
        Self(Mutex::new(Generations::new(BOUND)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_peer_at_one_policy_is_told_once_in_ten_seconds_with_a_count() {
        let refusals = Refusals::default();
        let mut told = Vec::new();
        for _ in 0..25 {
            told.extend(refusals.due("tokens_valid a".into()));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(told, [0, 9, 9]);
        assert_eq!(refusals.due("tokens_valid b".into()), Some(0));
    }
}
