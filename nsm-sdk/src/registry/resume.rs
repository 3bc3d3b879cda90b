use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use nsm_chain::{Change, Element, EventStream, Next, OwnedNext, Record, Registry, Result, Watch};
use tokio::time::Instant;

use super::memory::ByName;
use super::watching::{Unmentioned, open, snapshot};
use crate::lifetime::Backoff;

/// Keeps watches going when the registry is lost.
///
/// *Register*, *Unregister*: pass. *Find*: a watch that fails or ends is opened again, with pauses that grow
/// while that does not help, until its reader drops it. Then the reader gets the differences: what is new or
/// has changed, and as deleted what vanished meanwhile. That the first opening fails is for the reader to
/// know.
///
/// It stands before whatever asks the next hop; a cache in between saves that hop the same watch twice.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResumeWatch;

/// A watch that lived for so long starts with short pauses again.
const STEADY: Duration = Duration::from_secs(10);

impl<R: Record> Element<Registry<R>> for ResumeWatch {
    async fn monitor(
        &self,
        watch: Watch<Registry<R>>,
        next: Next<'_, Registry<R>>,
    ) -> Result<EventStream<Registry<R>>> {
        if !R::watches(&watch.query) {
            return next.monitor(watch).await;
        }
        let next = next.owned();
        let events = open(&next, &watch).await?;
        let resumed = Resumed {
            next,
            watch,
            events: Some(events),
            opened: Instant::now(),
            known: HashSet::new(),
            unmentioned: Unmentioned::new(HashSet::new()),
            differences: VecDeque::new(),
            pauses: pauses(),
        };
        Ok(stream::unfold(resumed, async |mut resumed| Some((Ok(resumed.change().await), resumed))).boxed())
    }
}

fn pauses() -> Backoff {
    Backoff::within_a_second(Duration::from_millis(100), "watch")
}

struct Resumed<R: Record> {
    next: OwnedNext<Registry<R>>,
    watch: Watch<Registry<R>>,
    events: Option<EventStream<Registry<R>>>,
    opened: Instant,
    /// What the reader has been told of.
    known: HashSet<ByName<R>>,
    /// What the present watch will bring up though the reader knows it.
    unmentioned: Unmentioned,
    differences: VecDeque<Change<R>>,
    pauses: Backoff,
}

impl<R: Record> Resumed<R> {
    async fn change(&mut self) -> Change<R> {
        loop {
            if let Some(change) = self.differences.pop_front() {
                return change;
            }
            let Some(events) = &mut self.events else {
                self.reopen().await;
                continue;
            };
            let event = tokio::select! {
                biased;
                () = self.unmentioned.due() => {
                    self.look_again().await;
                    continue;
                }
                event = events.next() => event,
            };
            match event {
                Some(Ok(change)) if self.repeats(&change) => {}
                Some(Ok(change)) => {
                    self.learn(&change);
                    return change;
                }
                lost => {
                    let error = lost.and_then(Result::err);
                    tracing::debug!(what = R::WHAT, error = error.map(tracing::field::display), "lost a watch");
                    self.events = None;
                }
            }
        }
    }

    async fn reopen(&mut self) {
        if self.opened.elapsed() >= STEADY {
            self.pauses = pauses();
        }
        tokio::time::sleep(self.pauses.pause()).await;
        self.opened = Instant::now();
        match self.catch_up().await {
            Ok(events) => self.events = Some(events),
            Err(error) => tracing::debug!(what = R::WHAT, %error, "cannot open a watch again"),
        }
    }

    async fn catch_up(&mut self) -> Result<EventStream<Registry<R>>> {
        let events = open(&self.next, &self.watch).await?;
        let found = snapshot(&self.next, &self.watch).await?;
        self.unmentioned = Unmentioned::new(found.iter().map(|record| record.name().to_owned()).collect());
        let vanished = self.known.iter().filter(|ByName(record)| !self.unmentioned.contains(record.name()));
        let vanished = vanished.map(|ByName(record)| Change { record: Arc::clone(record), deleted: true });
        let news =
            found.into_iter().filter(|record| !self.knows(record)).map(|record| Change { record, deleted: false });
        self.differences = vanished.chain(news).collect();
        for change in self.differences.clone() {
            self.learn(&change);
        }
        Ok(events)
    }

    async fn look_again(&mut self) {
        for name in self.unmentioned.gone(&self.next, &self.watch).await {
            if let Some(ByName(record)) = self.known.take(name.as_str()) {
                self.differences.push_back(Change { record, deleted: true });
            }
        }
    }

    fn knows(&self, record: &Arc<R>) -> bool {
        self.known.get(record.name()).is_some_and(|ByName(known)| Arc::ptr_eq(known, record) || known == record)
    }

    fn repeats(&mut self, change: &Change<R>) -> bool {
        self.unmentioned.mentioned(change.record.name()) && !change.deleted && self.knows(&change.record)
    }

    fn learn(&mut self, change: &Change<R>) {
        if change.deleted {
            self.known.remove(change.record.name());
        } else {
            self.known.replace(ByName(Arc::clone(&change.record)));
        }
    }
}

#[cfg(test)]
mod tests;
