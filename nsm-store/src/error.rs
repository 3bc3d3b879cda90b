use std::io;
use std::path::{Path, PathBuf};

use nsm_chain::{Code, Error};

/// A store cannot be opened, or not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// What is in the file contradicts itself.
    #[error(
        "the store {} is damaged: {what}; put a copy of it in its place, or move it away to start empty (clients register \
         again by themselves, and names are free)",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file is something else.
    #[error("{} is not a registry's store; name another file", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Another process has it.
    #[error("the store {} is in use by another process; stop that, or give each registry a file of its own", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file or its directory cannot be opened, read or written.
    #[error("cannot use the store {}: {source}{}", path.display(), remedy(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A later version of this program wrote it.
    #[error("the store {} has format {found}, and this program knows format {known}; run the program that wrote it", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The format that is known.
        known: u64,
    },
    /// Somebody else wrote it meanwhile.
    #[error("the store {} was changed by another process; restart the registry", path.display())]
    Overtaken {
        /// The file.
        path: PathBuf,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space there",
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            "; the registry needs a place that it may write"
        }
        _ => "",
    }
}

impl StoreError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn damaged(path: &Path, what: impl ToString) -> Self {
        Self::Damaged { path: path.to_owned(), what: what.to_string() }
    }

    /// What went wrong in the database.
    pub(crate) fn database(path: &Path, error: impl Into<redb::Error>) -> Self {
        match error.into() {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
                Self::InUse { path: path.to_owned() }
            }
            redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                Self::Foreign { path: path.to_owned() }
            }
            redb::Error::Io(error) => Self::io(path, error),
            other => Self::damaged(path, other),
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Io { source, .. }
                if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                Code::ResourceExhausted
            }
            _ => Code::Unavailable,
        }
    }

    /// What a caller is told whose change cannot be kept: not where our files are.
    pub(crate) fn refusal(&self) -> Error {
        let (what, hint) = match self.code() {
            Code::ResourceExhausted => ("the registry has no space to keep this", "free some space where its store is"),
            _ => ("the registry cannot keep this", "its log says what is wrong with its store"),
        };
        Error::new(self.code(), what).hint(hint).with_detail(self.to_string())
    }
}
