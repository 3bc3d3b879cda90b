//! What is done when.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::element::{Connections, Pace};
use super::{Census, Mended, Reach, Reconciled};
use crate::Random;

/// A wire that was mended may be mended again after this time: somebody may be at work against us.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Rounds<D: Reconciled> {
    dataplane: D,
    connections: Arc<Connections>,
    pace: Pace,
    random: Random,
    looks: u32,
    next_look: Instant,
    /// What belongs to nobody, and since when that is known.
    strays: HashMap<D::Stray, Instant>,
    /// Wires that were mended, until they may be again.
    mended: HashMap<Arc<str>, Instant>,
    /// Of these, those that were disturbed again.
    waiting: HashSet<Arc<str>>,
}

impl<D: Reconciled> Rounds<D> {
    pub(super) fn new(dataplane: D, connections: Arc<Connections>, pace: Pace) -> Self {
        Self {
            dataplane,
            connections,
            pace,
            random: Random::default(),
            looks: 0,
            next_look: Instant::now(),
            strays: HashMap::new(),
            mended: HashMap::new(),
            waiting: HashSet::new(),
        }
    }

    /// The look at start: everywhere.
    pub(super) async fn first(&mut self) {
        self.look().await;
        if !self.strays.is_empty() {
            tracing::info!(count = self.strays.len(), "an earlier life left something; it may be taken up again");
        }
    }

    pub(super) async fn run(&mut self) {
        loop {
            tokio::select! {
                biased;
                ids = self.dataplane.disturbed() => {
                    for id in ids {
                        self.mend(id).await;
                    }
                }
                () = sleep_until(self.wake()) => self.tick().await,
            }
        }
    }

    /// When there is something to do at the latest.
    fn wake(&self) -> Instant {
        let strays = self.strays.values().map(|since| *since + self.pace.grace);
        let mended = self.waiting.iter().filter_map(|id| self.mended.get(id)).copied();
        strays.chain(mended).fold(self.next_look, Instant::min)
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        self.mended.retain(|_, until| *until > now);
        let due: Vec<_> = self.waiting.iter().filter(|id| !self.mended.contains_key(*id)).cloned().collect();
        for id in due {
            self.waiting.remove(&id);
            self.mend(id).await;
        }
        self.remove(now).await;
        if self.next_look <= now {
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let everywhere = self.looks.is_multiple_of(self.pace.everywhere.max(1));
        self.looks = self.looks.wrapping_add(1);
        let Census { strays, drifted } =
            self.dataplane.census(if everywhere { Reach::Everywhere } else { Reach::Wires }).await;
        let now = Instant::now();
        if everywhere {
            let found: HashSet<_> = strays.iter().cloned().collect();
            self.strays.retain(|stray, _| found.contains(stray));
        }
        for stray in strays {
            self.strays.entry(stray).or_insert(now);
        }
        for id in drifted {
            self.mend(id).await;
        }
        // Three quarters to five quarters of the time.
        let quarters = 750 + self.random.below(501);
        self.next_look = Instant::now() + self.pace.every * quarters / 1000;
    }

    /// Removes what nobody took up in time.
    async fn remove(&mut self, now: Instant) {
        let grace = self.pace.grace;
        let due: Vec<_> =
            self.strays.iter().filter(|(_, since)| **since + grace <= now).map(|(s, _)| s.clone()).collect();
        for stray in due {
            match self.dataplane.remove(&stray).await {
                Ok(removed) => {
                    self.strays.remove(&stray);
                    if removed {
                        tracing::info!(%stray, "removed: nobody asked for it again");
                    }
                }
                Err(error) => {
                    // Once more after another grace period.
                    self.strays.insert(stray.clone(), now);
                    tracing::warn!(%stray, %error, "what nobody owns could not be removed");
                }
            }
        }
    }

    async fn mend(&mut self, id: Arc<str>) {
        let now = Instant::now();
        if self.mended.get(&id).is_some_and(|until| *until > now) {
            self.waiting.insert(id);
            return;
        }
        match self.dataplane.mend(&id).await {
            Ok(Mended::Whole | Mended::Unknown) => return,
            Ok(Mended::Gone) => {
                if let Some(handle) = self.connections.get(&id) {
                    tracing::info!(
                        connection = &*id,
                        "its workload is gone from this node, or its client has started over; it is closed"
                    );
                    // A Close waits for those further on; other wires do not wait for it.
                    tokio::spawn(async move {
                        if let Err(error) = handle.close().await {
                            tracing::info!(connection = &**handle.key(), %error, "not all of it could be closed");
                        }
                    });
                }
            }
            Ok(how) => tracing::info!(connection = &*id, ?how, "its wire was changed by somebody else, and is mended"),
            Err(error) => tracing::warn!(connection = &*id, %error, "its wire is not as it should be"),
        }
        self.mended.insert(id, now + PAUSE);
    }
}
