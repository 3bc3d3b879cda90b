use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nsm_chain::{Begin, Timers};

use super::RunningEndpoint;
use crate::monitor::Monitor;

/// What a hop keeps of connections. After all are closed it should be nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Which hop.
    pub hop: String,
    /// Connections that it keeps state for.
    pub connections: usize,
    /// Connections that it shows to watchers.
    pub shown: usize,
    /// Watchers of its connections, the hop before it among them: that one looks on for some seconds more.
    pub watchers: usize,
    /// Timers of its connections.
    pub timers: usize,
}

/// The hops that run now.
#[derive(Clone, Default)]
pub(super) struct Hops {
    counted: Arc<Mutex<BTreeMap<String, Counted>>>,
    running: Arc<Mutex<BTreeMap<String, RunningEndpoint>>>,
}

/// Where a hop's things are counted.
#[derive(Clone)]
pub(super) struct Counted {
    pub(super) connections: Arc<Begin>,
    pub(super) monitor: Arc<Monitor>,
    pub(super) timers: Timers,
}

impl Hops {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Counted>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn runs(&self, name: &str, hop: Counted) {
        let former = self.lock().insert(name.to_owned(), hop);
        drop(former);
    }

    /// Keeps an endpoint running whose starter does not.
    pub(super) fn keep(&self, name: &str, endpoint: RunningEndpoint) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(name.to_owned(), endpoint);
    }

    pub(super) fn find(&self, name: &str) -> Option<RunningEndpoint> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(super) fn ended(&self, name: &str) {
        let former = self.lock().remove(name);
        drop(former);
    }

    pub(super) fn kept(&self) -> Vec<Kept> {
        let kept = |(name, hop): (&String, &Counted)| {
            let (shown, watchers) = hop.monitor.counts();
            let (connections, timers) = (hop.connections.handles().len(), hop.timers.armed());
            Kept { hop: name.clone(), connections, shown, watchers, timers }
        };
        self.lock().iter().map(kept).filter(|kept| !kept.is_nothing()).collect()
    }
}

impl Kept {
    /// Whether nothing is left of any connection. Watchers do not count.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        (self.connections, self.shown, self.timers) == (0, 0, 0)
    }
}
