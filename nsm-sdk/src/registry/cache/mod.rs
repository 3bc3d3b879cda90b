//! A local copy of what is asked for often.

mod copy;

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt, stream};
use nsm_chain::{Change, Element, EventStream, Next, Record, Registry, Result, Watch};

use copy::LocalCopy;

/// Answers Finds from a local copy that a watch keeps up to date.
///
/// *Register*, *Unregister*: pass. *Find*: the first one for a pattern opens a watch further on, asks what is
/// there, and puts both together; others for it wait for that. From then on a Find for that pattern costs a
/// look-up here, and watches for it share the one further on. That nothing matches is never answered from a
/// copy, it is asked for. A copy ends when its watch does, its watchers with it, or when nobody has used it
/// for a while (a minute).
///
/// There are only so many copies (1024); other patterns are asked for further on. What is further on is asked
/// in the name of this hop, not of whoever asks here. It stands in hops that look up again and again,
/// managers and forwarders, before the element that asks the registry.
pub struct Cache<R: Record> {
    copies: Arc<Copies<R>>,
}

/// The copies, by a hash of what their pattern names.
struct Copies<R: Record> {
    table: Mutex<HashMap<u64, Vec<Arc<LocalCopy<R>>>>>,
    hasher: RandomState,
    most: usize,
    idle: Duration,
}

impl<R: Record> Default for Cache<R> {
    fn default() -> Self {
        Self::sized(1024, Duration::from_secs(60))
    }
}

impl<R: Record> Cache<R> {
    /// Keeps at most so many copies, each for so long after its last use.
    #[must_use]
    pub fn sized(most: usize, idle: Duration) -> Self {
        Self { copies: Arc::new(Copies { table: Mutex::default(), hasher: RandomState::new(), most, idle }) }
    }

    /// How many patterns it holds a copy of.
    #[must_use]
    pub fn len(&self) -> usize {
        self.copies.lock().values().map(Vec::len).sum()
    }

    /// Whether it holds no copy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<R: Record> Copies<R> {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Vec<Arc<LocalCopy<R>>>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hash(&self, pattern: &R) -> u64 {
        self.hasher.hash_one((pattern.name(), pattern.services()))
    }

    /// The copy for the pattern, begun now if there is none; none if there are too many.
    fn copy(self: &Arc<Self>, pattern: &R, next: Next<'_, Registry<R>>) -> Option<Arc<LocalCopy<R>>> {
        let hash = self.hash(pattern);
        let mut table = self.lock();
        let known = table.get(&hash).and_then(|copies| copies.iter().find(|copy| copy.pattern == *pattern));
        if let Some(copy) = known {
            return Some(Arc::clone(copy));
        }
        if table.values().map(Vec::len).sum::<usize>() >= self.most {
            return None;
        }
        let copy = Arc::new(LocalCopy::of(pattern.clone()));
        table.entry(hash).or_default().push(Arc::clone(&copy));
        drop(table);
        let (copies, kept, next) = (Arc::downgrade(self), Arc::clone(&copy), next.owned());
        let idle = self.idle;
        tokio::spawn(async move {
            kept.keep(next, idle).await;
            if let Some(copies) = copies.upgrade() {
                copies.remove(&kept);
            }
        });
        Some(copy)
    }

    fn remove(&self, copy: &Arc<LocalCopy<R>>) {
        let hash = self.hash(&copy.pattern);
        let mut table = self.lock();
        if let Some(copies) = table.get_mut(&hash) {
            copies.retain(|other| !Arc::ptr_eq(other, copy));
            if copies.is_empty() {
                table.remove(&hash);
            }
        }
    }
}

impl<R: Record> Element<Registry<R>> for Cache<R> {
    async fn monitor(
        &self,
        watch: Watch<Registry<R>>,
        next: Next<'_, Registry<R>>,
    ) -> Result<EventStream<Registry<R>>> {
        let everything = R::default();
        let pattern = R::pattern(&watch.query).unwrap_or(&everything);
        let Some(copy) = self.copies.copy(pattern, next) else {
            return next.monitor(watch).await;
        };
        if R::watches(&watch.query) {
            let changes = copy.store.watch(watch.query.clone());
            if copy.is_there().await {
                return Ok(changes.boxed());
            }
        } else if let Some(found) = copy.find(&watch.query).await {
            let found = found.into_iter().map(|record| Ok(Change { record, deleted: false }));
            return Ok(stream::iter(found).boxed());
        }
        next.monitor(watch).await
    }
}

impl<R: Record> fmt::Debug for Cache<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({} copies)", self.len())
    }
}

#[cfg(test)]
mod tests;
