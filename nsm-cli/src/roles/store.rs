//! Records on disk.

use std::path::PathBuf;

use nsm_sdk::registry::Journals;
use nsm_store::Store;

use crate::failure::Failure;

/// The journals in a file, where one is named.
pub(super) fn journals(path: &Option<PathBuf>) -> Result<Option<Journals>, Failure> {
    let open = |path: &PathBuf| Store::open(path).map(|store| store.journals());
    path.as_ref().map(open).transpose().map_err(|error| Failure::of("store", &error))
}
