//! All timers of a stack in one task.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, Weak};

use crate::sync::tokio::sync::Notify;
use crate::sync::tokio::time::Instant;
use crate::sync::{Mutex, MutexGuard, tokio};

type Job = Box<dyn FnOnce() + Send>;

/// A queue of timers. However many are armed, one task waits for the earliest; with none armed, no task runs.
///
/// A job runs on that task: it must be short, and spawn what takes time.
#[derive(Clone, Default)]
pub struct Timers(Arc<Queue>);

#[derive(Default)]
struct Queue {
    jobs: Mutex<Jobs>,
    earlier: Notify,
}

#[derive(Default)]
struct Jobs {
    next: u64,
    running: bool,
    waiting: BTreeMap<(Instant, u64), Job>,
}

impl Timers {
    /// Runs `job` at that instant, unless the guard is dropped before.
    #[must_use = "dropping the guard cancels the timer"]
    pub fn at(&self, when: Instant, job: impl FnOnce() + Send + 'static) -> Timer {
        let (key, start, first) = {
            let mut jobs = self.0.jobs();
            let key = (when, jobs.next);
            jobs.next += 1;
            jobs.waiting.insert(key, Box::new(job));
            let first = jobs.waiting.first_key_value().is_some_and(|(first, _)| *first == key);
            (key, !std::mem::replace(&mut jobs.running, true), first)
        };
        if start {
            tokio::spawn(run(Arc::downgrade(&self.0)));
        } else if first {
            self.0.earlier.notify_one();
        }
        Timer { queue: Arc::downgrade(&self.0), key }
    }

    /// How many timers are armed.
    #[must_use]
    pub fn armed(&self) -> usize {
        self.0.jobs().waiting.len()
    }
}

impl Queue {
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job that is due, or when to look again; none: the task may end. One at a time: it may drop the timer of the next.
    fn due(&self) -> Option<Result<Job, Instant>> {
        let mut jobs = self.jobs();
        let now = Instant::now();
        let Some(first) = jobs.waiting.first_entry() else {
            jobs.running = false;
            return None;
        };
        let (at, _) = *first.key();
        Some(if at > now { Err(at) } else { Ok(first.remove()) })
    }
}

async fn run(queue: Weak<Queue>) {
    while let Some(strong) = queue.upgrade() {
        match strong.due() {
            None => return,
            Some(Ok(job)) => job(),
            Some(Err(first)) => tokio::select! {
                biased;
                () = tokio::time::sleep_until(first) => {}
                () = strong.earlier.notified() => {}
            },
        }
    }
}

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timers({} armed)", self.armed())
    }
}

/// An armed timer. Dropping it cancels it: its job does not begin any more.
pub struct Timer {
    queue: Weak<Queue>,
    key: (Instant, u64),
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.upgrade() {
            // The job is dropped after the lock is released: it may own timers itself.
            let (job, idle) = {
                let mut jobs = queue.jobs();
                (jobs.waiting.remove(&self.key), jobs.waiting.is_empty())
            };
            if idle {
                queue.earlier.notify_one();
            }
            drop(job);
        }
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timer({:?})", self.key.0)
    }
}

#[cfg(test)]
#[cfg(feature = "shuttle")]
mod models;

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::mpsc;

    #[tokio::test(start_paused = true)]
    async fn timers_fire_in_order_of_time_and_not_after_they_are_dropped() {
        let timers = Timers::default();
        let (tx, mut rx) = mpsc::channel(9);
        let at = |ms| Instant::now() + Duration::from_millis(ms);
        let arm = |ms| {
            let tx = tx.clone();
            timers.at(at(ms), move || tx.try_send(ms).unwrap())
        };
        let (_late, begun) = (arm(300), Instant::now());
        tokio::task::yield_now().await;
        let (_early, dropped) = (arm(100), arm(200));
        drop(dropped);
        assert_eq!((rx.recv().await, begun.elapsed()), (Some(100), Duration::from_millis(100)));
        assert_eq!(rx.recv().await, Some(300));
        assert_eq!(timers.armed(), 0);
        let _again = arm(50);
        assert_eq!(rx.recv().await, Some(50));
    }
}
