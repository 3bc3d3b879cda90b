//! A registry as a crash left it.

use std::collections::HashSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use nsm_api::registry::{NetworkService, NetworkServiceEndpoint};
use nsm_chain::{Call, Chain, Error, OrderError, Record, Registry, Result, time};

use crate::registry::journal::Entry;
use crate::registry::{AuthorizeRegistry, Endpoints, Journal, Memory, Owned, Restored, Services, expiration};

/// A registry cannot go on where its journal ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The journal cannot be read, or not be written.
    #[error("cannot restore the registry: {0}")]
    Journal(#[from] Error),
    /// An element stands where it may not.
    #[error(transparent)]
    Order(#[from] OrderError),
}

/// One kind of record on its way from the journal into a chain that is not built yet.
pub(super) struct Restoring<R: Record> {
    memory: Memory<R>,
    /// Those of names without a record first: where there is no room for all, they go first.
    owners: Vec<Owned>,
    records: Vec<Arc<R>>,
    journal: Option<Arc<dyn Journal<R>>>,
}

/// How many removals are under way at the same time.
const AT_ONCE: usize = 1024;

impl<R: Record> Restoring<R> {
    /// Nothing: a registry without a journal.
    pub(super) fn nothing() -> Self {
        Self { memory: Memory::default(), owners: Vec::new(), records: Vec::new(), journal: None }
    }

    pub(super) async fn from(journal: &Arc<dyn Journal<R>>) -> Result<Self> {
        let kept = journal.load().await?;
        let names: HashSet<&str> = kept.records.iter().map(|record| record.name()).collect();
        let mut owners = kept.owners;
        owners.sort_by_key(|(name, _)| names.contains(&**name));
        drop(names);
        // More than are remembered: the table was larger once, or a change of it failed.
        for (name, _) in owners.drain(..owners.len().saturating_sub(AuthorizeRegistry::ROOM)) {
            let forgotten = Entry { owners: vec![(Arc::clone(&name), None)], ..Entry::gone(&name) };
            journal.append(forgotten, Box::new(|| {})).await?;
        }
        let (memory, journal) = (Memory::kept_in(Arc::clone(journal)), Some(Arc::clone(journal)));
        Ok(Self { memory, owners, records: kept.records, journal })
    }

    /// What a chain is built from: where it ends, and to whom names belong.
    pub(super) fn take(&mut self) -> (Memory<R>, Vec<Owned>) {
        (std::mem::take(&mut self.memory), std::mem::take(&mut self.owners))
    }
}

impl Restoring<NetworkService> {
    /// Registers again what is in the journal.
    pub(super) async fn into(self, chain: &Chain<Services>) -> Result<()> {
        replay(self.records, chain, "Memory").await
    }
}

impl Restoring<NetworkServiceEndpoint> {
    /// Registers again what has not expired meanwhile, under the same end; the rest leaves the journal.
    pub(super) async fn into(self, chain: &Chain<Endpoints>) -> Result<()> {
        let now = time::now();
        let (alive, expired): (Vec<_>, Vec<_>) =
            self.records.into_iter().partition(|endpoint| expiration(endpoint).is_none_or(|end| end > now));
        if !expired.is_empty() {
            tracing::info!(endpoints = expired.len(), "registrations expired while the registry was down");
        }
        if let Some(journal) = self.journal {
            let gone: Vec<_> =
                expired.iter().map(|endpoint| journal.append(Entry::gone(&endpoint.name), Box::new(|| {}))).collect();
            stream::iter(gone).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        }
        replay(alive, chain, "Begin").await
    }
}

async fn replay<R: Record>(records: Vec<Arc<R>>, chain: &Chain<Registry<R>>, from: &str) -> Result<()> {
    let rest = chain.rest_from(from).ok_or_else(|| Error::internal(format!("a registry's chain has no {from}")))?;
    for record in records {
        let name = record.name().to_owned();
        let mut call = Call::new(record);
        call.set_fact(Restored);
        if let Err(error) = rest.request(call).await {
            tracing::warn!(what = R::WHAT, name, %error, "cannot restore");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
