//! What one watcher has not read yet.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use nsm_chain::{Change, Record};

use super::ByName;

/// One watcher: its question, and the changes it has not read yet.
///
/// The queue holds one change a record, the latest, at the place of the first unread one. A record that came
/// and went unread leaves no trace. So it never holds more than the records that match now, plus those the
/// watcher has been told of that are gone since: no flood of registrations makes it grow without bound.
pub(super) struct Watcher<R: Record> {
    pub(super) query: R::Query,
    queue: Mutex<Queue<R>>,
}

struct Queue<R> {
    next: u64,
    unread: BTreeMap<u64, Unread<R>>,
    places: HashMap<ByName<R>, u64>,
    ended: bool,
    waker: Option<Waker>,
}

struct Unread<R> {
    change: Change<R>,
    /// Whether the watcher knows an earlier state of the record.
    told: bool,
}

impl<R: Record> Watcher<R> {
    pub(super) fn new(query: R::Query) -> Self {
        let queue = Queue { next: 0, unread: BTreeMap::new(), places: HashMap::new(), ended: false, waker: None };
        Self { query, queue: Mutex::new(queue) }
    }

    /// Takes in how a record changed, as far as this watcher's query goes.
    pub(super) fn note(&self, before: Option<&Arc<R>>, now: Option<&Arc<R>>) {
        let matching = |record: &&Arc<R>| record.answers(&self.query);
        let (record, deleted, told) = match (before.filter(matching), now.filter(matching)) {
            (before, Some(now)) => (now, false, before.is_some()),
            (Some(before), None) => (before, true, true),
            (None, None) => return,
        };
        let mut queue = self.lock();
        queue.push(Change { record: Arc::clone(record), deleted }, told);
        queue.wake();
    }

    /// Says that nothing more will come.
    pub(super) fn end(&self) {
        let mut queue = self.lock();
        queue.ended = true;
        queue.wake();
    }

    pub(super) fn poll(&self, waker: &Waker) -> Poll<Option<Change<R>>> {
        let mut queue = self.lock();
        if let Some((_, unread)) = queue.unread.pop_first() {
            queue.places.remove(unread.change.record.name());
            return Poll::Ready(Some(unread.change));
        }
        if queue.ended {
            return Poll::Ready(None);
        }
        match &mut queue.waker {
            Some(old) => old.clone_from(waker),
            empty => *empty = Some(waker.clone()),
        }
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Queue<R>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Record> Queue<R> {
    fn push(&mut self, change: Change<R>, told: bool) {
        let name = change.record.name();
        let unread = self.places.get(name).and_then(|place| Some((*place, self.unread.get_mut(place)?)));
        match unread {
            Some((place, unread)) if change.deleted && !unread.told => {
                self.unread.remove(&place);
                self.places.remove(name);
            }
            Some((_, unread)) => unread.change = change,
            None => {
                self.places.insert(ByName(Arc::clone(&change.record)), self.next);
                self.unread.insert(self.next, Unread { change, told });
                self.next += 1;
            }
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
