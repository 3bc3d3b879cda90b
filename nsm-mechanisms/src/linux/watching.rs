//! What others do to wires and workloads, as the kernel tells it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nsm_kernel::{Error as Kernel, Event, Events, Holders, Interface, Netns, NetnsId};
use tokio::sync::{Notify, OnceCell};

use super::table::Table;

/// Listens where wires are, once somebody wants to know.
pub(super) struct Watching {
    /// The node's own namespace, where relays are: no workload's, so that nobody's end is the end of it.
    node: Option<NetnsId>,
    /// `None`: not possible here.
    ears: OnceCell<Option<Ears>>,
    /// Where no workload is any more, though our own descriptors keep it.
    deserted: Mutex<HashSet<NetnsId>>,
    /// Told when wires were given up.
    given_up: Notify,
}

struct Ears {
    events: Events,
    holders: Holders,
}

impl Watching {
    pub(super) fn new(node: Option<NetnsId>) -> Self {
        Self { node, ears: OnceCell::new(), deserted: Mutex::default(), given_up: Notify::new() }
    }

    /// Listens to these namespaces too. They are somebody's: a wire was made there just now.
    pub(super) async fn add(&self, places: &[Netns]) {
        {
            let mut deserted = self.deserted();
            places.iter().for_each(|netns| _ = deserted.remove(&netns.id()));
        }
        if let Some(Some(ears)) = self.ears.get() {
            let workloads = places.iter().map(Netns::id).filter(|id| Some(*id) != self.node);
            workloads.for_each(|id| ears.holders.add(id));
            for netns in places {
                if let Err(error) = ears.events.add(netns).await {
                    tracing::debug!(netns = %netns.id(), %error, "changes made there are found by the census only");
                }
            }
        }
    }

    /// Forgets places without wires.
    pub(super) fn retain(&self, keep: impl Fn(NetnsId) -> bool) {
        self.deserted().retain(|id| keep(*id));
        if let Some(Some(ears)) = self.ears.get() {
            ears.holders.retain(&keep);
            ears.events.retain(&keep);
        }
    }

    pub(super) fn is_deserted(&self, netns: NetnsId) -> bool {
        self.deserted().contains(&netns)
    }

    pub(super) fn all_deserted(&self) -> Vec<NetnsId> {
        self.deserted().iter().copied().collect()
    }

    /// Wakes whoever waits for what is disturbed: wires were given up.
    pub(super) fn tell_given_up(&self) {
        self.given_up.notify_one();
    }

    /// Waits until wires of the table may have been changed, or left alone, by others; says which connections have them.
    pub(super) async fn disturbed(&self, table: &Table) -> Vec<Arc<str>> {
        let open = || async {
            match Ears::open().await {
                Ok(ears) => Some(ears),
                Err(error) => {
                    tracing::warn!(%error, "what others do to wires is found by the census only");
                    None
                }
            }
        };
        let Some(ears) = self.ears.get_or_init(open).await else {
            self.given_up.notified().await;
            return table.given_up();
        };
        {
            // Not kept while it waits: they may go.
            let places: Vec<Netns> = table.places().into_values().map(|(_, netns)| netns).collect();
            self.add(&places).await;
        }
        loop {
            let heard = tokio::select! {
                events = ears.events.next() => events.map(|events| table.touched(&events)),
                gone = ears.holders.next() => gone.map(|gone| {
                    self.deserted().extend(&gone);
                    table.at(&gone)
                }),
                () = self.given_up.notified() => Ok(table.given_up()),
            };
            match heard {
                Ok(ids) if ids.is_empty() => {}
                Ok(ids) => return ids,
                Err(error) => {
                    tracing::warn!(%error, "what others do to wires is found by the census only from now on");
                    self.given_up.notified().await;
                    return table.given_up();
                }
            }
        }
    }

    fn deserted(&self) -> MutexGuard<'_, HashSet<NetnsId>> {
        self.deserted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ears {
    async fn open() -> Result<Self, Kernel> {
        Ok(Self { events: Events::open().await?, holders: Holders::new()? })
    }
}

/// Interfaces that are not what they were, of a number of events.
pub(super) fn suspects(events: &[Event]) -> impl Fn(&Interface) -> bool {
    let (mut less, mut links, mut all) = (HashSet::new(), HashMap::new(), false);
    for event in events {
        match event {
            Event::Less { netns, index } => _ = less.insert((*netns, *index)),
            Event::Link(netns, state) => _ = links.insert((*netns, state.index()), state),
            _ => all = true,
        }
    }
    move |interface| {
        let at = (interface.netns().id(), interface.index());
        all || less.contains(&at) || links.get(&at).is_some_and(|state| !state.shows(interface.spec()))
    }
}
