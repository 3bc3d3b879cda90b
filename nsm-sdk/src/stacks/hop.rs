use std::fmt;
use std::sync::Arc;

use nsm_chain::{Begin, Node, Timers, Tokens, elements};

use crate::descriptors::RecvFd;
use crate::identity::PolicySet;
use crate::lifetime::Timeout;
use crate::monitor::Monitor;
use crate::path::{TrimPath, UpdatePath, UpdateToken};
use crate::security::Authorize;

/// What every stack of a hop shares: its name, its tokens, whom it lets in, and one queue for all its timers.
#[derive(Clone)]
pub struct Hop {
    pub(super) name: Arc<str>,
    pub(super) tokens: Arc<dyn Tokens>,
    pub(super) policies: PolicySet,
    pub(super) monitor_policies: PolicySet,
    pub(super) timers: Timers,
}

impl Hop {
    /// A hop that judges its callers by the stock policies for servers.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, tokens: Arc<dyn Tokens>) -> Self {
        Self {
            name: name.into(),
            tokens,
            policies: PolicySet::server(),
            monitor_policies: PolicySet::allow_all(),
            timers: Timers::default(),
        }
    }

    /// Judges callers by these policies instead.
    #[must_use]
    pub fn with_policies(mut self, policies: PolicySet) -> Self {
        self.policies = policies;
        self
    }

    /// Refuses watchers whom these policies refuse (default: nobody; each is told of what its own identity asked for).
    #[must_use]
    pub fn with_monitor_policies(mut self, policies: PolicySet) -> Self {
        self.monitor_policies = policies;
        self
    }

    /// What its watchers see.
    pub(super) fn monitor(&self) -> Arc<Monitor> {
        Arc::new(Monitor::default().judged_by(self.monitor_policies.clone()))
    }

    /// Its name: the name of its path segments, and what errors from here are marked with.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its timers.
    #[must_use]
    pub fn timers(&self) -> &Timers {
        &self.timers
    }

    /// The head of every stack that serves callers.
    pub(super) fn head(&self, begin: &Arc<Begin>, monitor: &Arc<Monitor>) -> Vec<Node> {
        elements![
            UpdatePath::new(Arc::clone(&self.name)), // whose state this is: the id all others rely on
            Arc::clone(begin),                       // one event a connection at a time; its state
            UpdateToken::new(Arc::clone(&self.tokens)), // completes the path that the next one judges
            Authorize::new(self.policies.clone()),   // before anything is made for the caller
            Timeout::new(self.timers.clone()),       // closes what the caller stops refreshing
            Arc::clone(monitor),                     // sees what callers see
            TrimPath,                                // nothing stale right of a leaf
            RecvFd::new(),                           // the caller's files by descriptor, and ours for it
        ]
    }
}

impl fmt::Debug for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hop").field("name", &self.name).field("policies", &self.policies).finish_non_exhaustive()
    }
}
