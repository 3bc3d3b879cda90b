use std::marker::PhantomData;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use nsm_chain::{Error, Record, Result};
use nsm_sdk::registry::{Entry, Journal, Kept, Then};

use crate::StoreError;
use crate::file::{Kind, StoreFile, Write};
use crate::queue::Queue;

/// The journal of one kind of record.
pub(crate) struct FileJournal<R> {
    kind: Kind,
    queue: Arc<Queue>,
    records: PhantomData<fn() -> R>,
}

impl<R> FileJournal<R> {
    pub(crate) fn new(kind: Kind, queue: Arc<Queue>) -> Self {
        Self { kind, queue, records: PhantomData }
    }
}

impl<R: Record + prost::Message> Journal<R> for FileJournal<R> {
    fn load(&self) -> BoxFuture<'_, Result<Kept<R>>> {
        let (kind, file) = (self.kind, Arc::clone(self.queue.file()));
        async move {
            let loaded = tokio::task::spawn_blocking(move || load(&file, kind)).await;
            let kept = loaded.map_err(|error| Error::internal("reading the store broke off").because(error))?;
            kept.map_err(|error| Error::unavailable("the registry's store cannot be read").because(error))
        }
        .boxed()
    }

    fn append(&self, entry: Entry<R>, then: Then) -> BoxFuture<'_, Result<()>> {
        let record = entry.record.map(|record| record.encode_to_vec());
        let write = Write { kind: self.kind, name: entry.name, record, owners: entry.owners };
        Arc::clone(&self.queue).append(write, then)
    }
}

fn load<R: Record + prost::Message>(file: &StoreFile, kind: Kind) -> Result<Kept<R>, StoreError> {
    let (records, owners) = file.read(kind)?;
    let decode = |(name, bytes): (String, Vec<u8>)| match R::decode(bytes.as_slice()) {
        Ok(record) if record.name() == name => Ok(Arc::new(record)),
        Ok(_) => Err(StoreError::damaged(file.path(), format!("the {} {name:?} stands under a wrong name", R::WHAT))),
        Err(error) => Err(StoreError::damaged(file.path(), format!("the {} {name:?}: {error}", R::WHAT))),
    };
    Ok(Kept {
        records: records.into_iter().map(decode).collect::<Result<_, _>>()?,
        owners: owners.into_iter().map(|(name, owner)| (name.into(), owner.into())).collect(),
    })
}

impl<R: Record> std::fmt::Debug for FileJournal<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileJournal({} in {:?})", R::WHAT, self.queue)
    }
}
