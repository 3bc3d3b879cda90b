//! A registry's journal in a file: what a registry told its callers survives the end of its process, also by SIGKILL.
//!
//! The file holds the records of both kinds and to whom names belong. It is read once, when the registry starts; from
//! then on the registry answers from memory, and a Register or Unregister is acknowledged once it is on the disk.
//! However many wait for that, they share one write.
//!
//! ```
//! use nsm_chain::Call;
//! use nsm_sdk::registry::stacks::{Admission, MemoryRegistry};
//! use nsm_store::Store;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = std::env::temp_dir().join(format!("nsm-store-doc-{}", std::process::id()));
//! # let path = directory.join("registry");
//! let vpn = nsm_api::NetworkService { name: "vpn".into(), ..Default::default() };
//! let registry = MemoryRegistry::builder("registry", Admission::open()).restore(&Store::open(&path)?.journals()).await?;
//! registry.services.request(Call::new(vpn)).await?;
//! drop(registry); // or kill -9
//!
//! let registry = MemoryRegistry::builder("registry", Admission::open()).restore(&Store::open(&path)?.journals()).await?;
//! assert_eq!(registry.services.close(Call::new(nsm_api::NetworkService { name: "vpn".into(), ..Default::default() })).await?.closed(), nsm_chain::Closed::Done);
//! # std::fs::remove_dir_all(directory)?;
//! # Ok(()) }
//! ```
#![deny(missing_docs)]

mod error;
mod file;
mod journal;
mod queue;

use std::path::Path;
use std::sync::Arc;

use nsm_sdk::registry::Journals;

pub use error::StoreError;

use file::{Kind, StoreFile};
use journal::FileJournal;
use queue::Queue;

/// The file in which a registry keeps its records. One process at a time has it.
#[derive(Debug, Clone)]
pub struct Store {
    queue: Arc<Queue>,
}

impl Store {
    /// Opens the file, or makes it, with the directories that lead to it. Only its owner may read and write it.
    ///
    /// All of it is read and checked, so this takes a moment where there is much in it. What a crash left half written
    /// is taken back: nobody was told that it was kept.
    ///
    /// # Errors
    /// When another process has it, when it is damaged or from a later version, or when it cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Ok(Self { queue: Arc::new(Queue::new(StoreFile::open(path.as_ref())?)) })
    }

    /// What a registry is [restored](nsm_sdk::registry::stacks::MemoryRegistryBuilder::restore) from and writes to.
    #[must_use]
    pub fn journals(&self) -> Journals {
        Journals {
            services: Arc::new(FileJournal::new(Kind::Services, Arc::clone(&self.queue))),
            endpoints: Arc::new(FileJournal::new(Kind::Endpoints, Arc::clone(&self.queue))),
        }
    }
}

#[cfg(test)]
mod tests;
