//! The copy of what matches one pattern.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use nsm_chain::{Change, EventStream, OwnedNext, Record, Registry, Result, Watch, WeakNext};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::registry::memory::Store;
use crate::registry::watching::{Unmentioned, open, snapshot};

pub(super) struct LocalCopy<R: Record> {
    pub(super) pattern: R,
    pub(super) store: Store<R>,
    state: Mutex<State>,
    /// Not a `watch`, which wakes those who wait in a random order.
    settled: Notify,
    used: Mutex<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Beginning,
    Complete,
    /// After having been complete.
    Over,
    /// Never was complete.
    Failed,
}

impl<R: Record> LocalCopy<R> {
    pub(super) fn of(pattern: R) -> Self {
        let state = Mutex::new(State::Beginning);
        Self { pattern, store: Store::default(), state, settled: Notify::new(), used: Mutex::new(Instant::now()) }
    }

    /// What answers the query; none: ask further on.
    pub(super) async fn find(&self, query: &R::Query) -> Option<Vec<Arc<R>>> {
        let state = self.state();
        match state {
            State::Complete => {
                *self.lock_used() = Instant::now();
                Some(self.store.find(query)).filter(|found| !found.is_empty())
            }
            // Asked for while we wait: as fresh as an answer from further on.
            State::Beginning => self.is_there().await.then(|| self.store.find(query)),
            State::Over | State::Failed => None,
        }
    }

    /// Waits until the copy is complete, and tells whether it ever was.
    pub(super) async fn is_there(&self) -> bool {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            match self.state() {
                State::Beginning => settled.await,
                state => return state != State::Failed,
            }
        }
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_state(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.settled.notify_waiters();
    }

    /// Keeps the copy up to date until its watch ends or nobody uses it.
    pub(super) async fn keep(&self, next: OwnedNext<Registry<R>>, idle: Duration) {
        let watch = Watch::new(R::query(self.pattern.clone(), true));
        let begun = self.begin(&next, &watch).await;
        // The rest of the chain must not live on because of this task.
        let rest = next.next().weak();
        drop(next);
        match begun {
            Ok((events, unmentioned)) => {
                self.set_state(State::Complete);
                // A name that nobody has, asked for once, is not worth a watch.
                if self.store.len() > 0 || self.store.watchers() > 0 {
                    self.follow(events, unmentioned, &rest, &watch, idle).await;
                }
                self.set_state(State::Over);
            }
            Err(error) => {
                tracing::debug!(what = R::WHAT, %error, "cannot copy records from the registry");
                self.set_state(State::Failed);
            }
        }
        self.store.end();
    }

    /// Opens the watch and asks what is there. What the watch says of a record counts more: it is newer.
    async fn begin(
        &self,
        next: &OwnedNext<Registry<R>>,
        watch: &Watch<Registry<R>>,
    ) -> Result<(EventStream<Registry<R>>, Unmentioned)> {
        let mut events = open(next, watch).await?;
        let mut told = HashSet::new();
        let found = snapshot(next, watch);
        tokio::pin!(found);
        let found = loop {
            tokio::select! {
                biased;
                found = &mut found => break found?,
                event = events.next() => match event {
                    Some(event) => told.insert(self.apply(event?)),
                    None => return Err(nsm_chain::Error::unavailable("the registry ended the watch")),
                },
            };
        };
        let mut unmentioned = HashSet::new();
        for record in found.into_iter().filter(|record| !told.contains(record.name())) {
            unmentioned.insert(record.name().to_owned());
            self.store.put(record);
        }
        Ok((events, Unmentioned::new(unmentioned)))
    }

    async fn follow(
        &self,
        mut events: EventStream<Registry<R>>,
        mut unmentioned: Unmentioned,
        rest: &WeakNext<Registry<R>>,
        watch: &Watch<Registry<R>>,
        idle: Duration,
    ) {
        loop {
            let last = if self.store.watchers() > 0 { Instant::now() } else { *self.lock_used() };
            if last.elapsed() >= idle {
                return;
            }
            tokio::select! {
                biased;
                event = events.next() => match event {
                    Some(Ok(change)) => {
                        unmentioned.mentioned(&self.apply(change));
                    },
                    Some(Err(_)) | None => return,
                },
                () = unmentioned.due() => {
                    let Some(next) = rest.upgrade() else { return };
                    for name in unmentioned.gone(&next, watch).await {
                        self.store.remove(&name);
                    }
                }
                () = tokio::time::sleep_until(last + idle) => {}
            }
        }
    }

    fn lock_used(&self) -> MutexGuard<'_, Instant> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, change: Change<R>) -> String {
        let name = change.record.name().to_owned();
        if change.deleted {
            self.store.remove(&name);
        } else {
            self.store.put(change.record);
        }
        name
    }
}
