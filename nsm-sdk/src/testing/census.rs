use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nsm_api::Connection;
use nsm_chain::{Begin, Timers};
use nsm_mechanisms::memory::Fabric;

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

    /// Forgets all of them.
    pub(super) fn forget(&self) {
        let counted = std::mem::take(&mut *self.lock());
        let running = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        for endpoint in running.values() {
            endpoint.crash();
        }
        drop(counted);
    }

    pub(super) fn find(&self, name: &str) -> Option<RunningEndpoint> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(super) fn ended(&self, name: &str) {
        let former = self.lock().remove(name);
        drop(former);
    }

    fn counted(&self) -> Vec<(String, Counted)> {
        self.lock().iter().map(|(name, hop)| (name.clone(), hop.clone())).collect()
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

/// All that is there in a mesh at one moment: what [`invariants`](super::invariants) are about.
#[derive(Debug, Clone, Default)]
pub struct Census {
    /// By name, what each hop that runs keeps.
    pub hops: BTreeMap<String, HopCensus>,
    /// By name, what each client keeps.
    pub clients: BTreeMap<String, HopCensus>,
    /// What forwarders have programmed.
    pub fabric: Fabric,
    /// Tasks of this runtime.
    pub tasks: usize,
    /// By the registry's kind of record (`service`, `endpoint`): how many there are, and how many watch them.
    pub registry: BTreeMap<&'static str, (usize, usize)>,
}

/// What one hop keeps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HopCensus {
    /// By id at this hop, what is established. `None`: nothing is, or somebody works on it.
    pub connections: BTreeMap<String, Option<Arc<Connection>>>,
    /// Connections that it shows to watchers; `None` where nobody watches.
    pub shown: Option<usize>,
    /// Watchers of its connections.
    pub watchers: usize,
    /// Timers of its connections.
    pub timers: usize,
}

impl HopCensus {
    /// Of what is kept here.
    #[must_use]
    pub fn of(connections: &Begin, timers: &Timers) -> Self {
        let handles = connections.handles().into_iter();
        let connections = handles.map(|handle| (handle.key().to_string(), handle.peek())).collect();
        Self { connections, timers: timers.armed(), ..Self::default() }
    }
}

impl Hops {
    pub(super) fn census(&self) -> BTreeMap<String, HopCensus> {
        let count = |(name, hop): (String, Counted)| {
            let (shown, watchers) = hop.monitor.counts();
            (name, HopCensus { shown: Some(shown), watchers, ..HopCensus::of(&hop.connections, &hop.timers) })
        };
        self.counted().into_iter().map(count).collect()
    }
}
