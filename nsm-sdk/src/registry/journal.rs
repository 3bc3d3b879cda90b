//! What of a registry outlives its process.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use nsm_api::registry::{NetworkService, NetworkServiceEndpoint};
use nsm_chain::{Call, Record, Registry, Result};

/// Keeps the records of one kind, and to whom names belong, where a crash does not reach them.
///
/// A registry reads it once, when it starts, and from then on only adds to it: it answers from memory.
/// Crate `nsm-store` keeps a journal in a file.
pub trait Journal<R: Record>: fmt::Debug + Send + Sync + 'static {
    /// All that is kept.
    ///
    /// # Errors
    /// When it cannot be read, or not be understood: a registry must not start without what it had promised to keep.
    fn load(&self) -> BoxFuture<'_, Result<Kept<R>>>;

    /// Keeps an entry, and then makes it visible by running `then`.
    ///
    /// Ready once both is done: what a caller is told after that survives a crash. Entries take effect one after the
    /// other in the order in which they were handed in, so the last `then` for a name belongs to what is kept of it.
    /// Dropping the future does not take the entry back.
    ///
    /// # Errors
    /// When it cannot be kept (no space, say). `then` has not run, and everything is as it was before.
    fn append(&self, entry: Entry<R>, then: Then) -> BoxFuture<'_, Result<()>>;
}

/// What follows once an entry is kept. It must be short, and not wait.
pub type Then = Box<dyn FnOnce() + Send>;

/// A name, and the SPIFFE ID it belongs to.
pub type Owned = (Arc<str>, Arc<str>);

/// A name, and the SPIFFE ID it belongs to from now on; without one it belongs to nobody.
pub type OwnerChange = (Arc<str>, Option<Arc<str>>);

/// How one record changes.
#[derive(Debug, Clone)]
pub struct Entry<R> {
    /// Under which name it is kept.
    pub name: Arc<str>,
    /// The record as it is now; none: it is gone.
    pub record: Option<Arc<R>>,
    /// The names whose owners change with it: its own, and those that are forgotten to make room.
    pub owners: Vec<OwnerChange>,
}

/// What was kept when a registry starts.
#[derive(Debug, Clone)]
pub struct Kept<R> {
    /// The records, in any order.
    pub records: Vec<Arc<R>>,
    /// To whom names belong; more of them than there are records, since they outlive these.
    pub owners: Vec<Owned>,
}

/// The journals of a registry.
#[derive(Debug, Clone)]
pub struct Journals {
    /// Of network services.
    pub services: Arc<dyn Journal<NetworkService>>,
    /// Of endpoints.
    pub endpoints: Arc<dyn Journal<NetworkServiceEndpoint>>,
}

/// In a Register: it comes from the journal and not from a caller. Its record is taken as it is, not judged, not
/// limited in time again, and not written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored;

/// What a call does to the ownership of its name, once it has succeeded.
#[derive(Debug)]
pub(super) enum Ownership {
    /// A Register claims it, for the first time if it was free; another may make room for it.
    Claimed { by: Arc<str>, was_free: bool, evicted: Option<Arc<str>> },
    /// An Unregister frees it.
    Freed,
}

impl<R: Record> Entry<R> {
    /// What a Register leaves.
    pub(super) fn registered(call: &Call<Registry<R>>) -> Self {
        let name: Arc<str> = call.body().name().into();
        let owners = match call.fact() {
            Some(Ownership::Claimed { by, evicted, .. }) => {
                let evicted = evicted.iter().map(|name| (Arc::clone(name), None));
                evicted.chain([(Arc::clone(&name), Some(Arc::clone(by)))]).collect()
            }
            _ => Vec::new(),
        };
        Self { name, record: Some(call.share()), owners }
    }

    /// What an Unregister leaves: also one that takes a Register back, whose owner goes then if the name was free.
    pub(super) fn unregistered(call: &Call<Registry<R>>) -> Self {
        let name: Arc<str> = call.body().name().into();
        let freed = matches!(call.fact(), Some(Ownership::Freed | Ownership::Claimed { was_free: true, .. }));
        let owners = if freed { vec![(Arc::clone(&name), None)] } else { Vec::new() };
        Self { name, record: None, owners }
    }

    /// The record is gone; its name still belongs to whom it belonged.
    pub(super) fn gone(name: &str) -> Self {
        Self { name: name.into(), record: None, owners: Vec::new() }
    }
}

impl<R> Default for Kept<R> {
    fn default() -> Self {
        Self { records: Vec::new(), owners: Vec::new() }
    }
}
