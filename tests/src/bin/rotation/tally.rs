//! How many tries there were, and how many of them failed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nsm_chain::{Call, Element, Error, Next, Protocol, Result};

/// Counts for each kind of call. A clone counts into the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally(Arc<Mutex<BTreeMap<&'static str, Count>>>);

#[derive(Debug, Clone, Default)]
struct Count {
    good: u64,
    failed: u64,
    /// Of the first failure.
    why: Option<String>,
}

impl Tally {
    pub(crate) fn count<T>(&self, kind: &'static str, outcome: &Result<T>) {
        self.count_with(kind, outcome.as_ref().err().map(Error::to_string));
    }

    pub(crate) fn count_with(&self, kind: &'static str, failure: Option<String>) {
        let mut counts = self.lock();
        let count = counts.entry(kind).or_default();
        match failure {
            None => count.good += 1,
            Some(why) => {
                eprintln!("{kind} failed: {why}");
                count.failed += 1;
                count.why.get_or_insert(why);
            }
        }
    }

    pub(crate) fn requests(&self) -> u64 {
        self.lock().values().map(|count| count.good + count.failed).sum()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.lock().values().map(|count| count.failed).sum()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |(kind, count): (&&str, &Count)| {
            let why = count.why.as_deref().map(|why| format!(", first: {why}")).unwrap_or_default();
            format!("{kind}: {} good, {} failed{why}", count.good, count.failed)
        };
        self.lock().iter().map(line).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests, {} failed", self.requests(), self.failed())
    }
}

/// Counts what passes on its way out: behind the retries, so that each try counts.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) tally: Tally,
    pub(crate) request: &'static str,
    pub(crate) close: &'static str,
}

impl<P: Protocol> Element<P> for Counted {
    async fn request(&self, call: Call<P>, next: Next<'_, P>) -> Result<Call<P>> {
        let outcome = next.request(call).await;
        self.tally.count(self.request, &outcome);
        outcome
    }

    async fn close(&self, call: Call<P>, next: Next<'_, P>) -> Result<Call<P>> {
        let outcome = next.close(call).await;
        self.tally.count(self.close, &outcome);
        outcome
    }
}
