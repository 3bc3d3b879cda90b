use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use nsm_chain::Record;

/// A shared record as a member of a set, found and ordered by its name.
pub(in crate::registry) struct ByName<R>(pub(in crate::registry) Arc<R>);

impl<R> Clone for ByName<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R: Record> Borrow<str> for ByName<R> {
    fn borrow(&self) -> &str {
        self.0.name()
    }
}

impl<R: Record> Hash for ByName<R> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name().hash(state);
    }
}

impl<R: Record> PartialEq for ByName<R> {
    fn eq(&self, other: &Self) -> bool {
        self.0.name() == other.0.name()
    }
}

impl<R: Record> Eq for ByName<R> {}

impl<R: Record> Ord for ByName<R> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.name().cmp(other.0.name())
    }
}

impl<R: Record> PartialOrd for ByName<R> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
