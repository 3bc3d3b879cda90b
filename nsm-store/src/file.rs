//! The file: its format, and one batch of changes at a time.

use std::fmt;
use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nsm_sdk::registry::OwnerChange;
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::time::Instant;

use crate::StoreError;

/// The layout below. A file with another number is another layout.
const FORMAT: u64 = 1;
/// Numbers about the file itself, by name.
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
/// In `ABOUT`: the layout, and how often something was written.
const FORMAT_ROW: &str = "format";
const WRITES_ROW: &str = "writes";

/// Everything is read once, and then only pages that change.
const CACHE: usize = 32 << 20;
/// For so long after a failure nothing is tried: opening reads the whole file.
const PAUSE: Duration = Duration::from_secs(1);

/// Which records: each kind has a table of them, and one of the owners of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Services,
    Endpoints,
}

impl Kind {
    /// Serialised messages by name.
    fn records(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(match self {
            Self::Services => "services",
            Self::Endpoints => "endpoints",
        })
    }

    /// SPIFFE IDs by name.
    fn owners(self) -> TableDefinition<'static, &'static str, &'static str> {
        TableDefinition::new(match self {
            Self::Services => "service-owners",
            Self::Endpoints => "endpoint-owners",
        })
    }
}

/// One change, as it is written.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) kind: Kind,
    pub(crate) name: Arc<str>,
    pub(crate) record: Option<Vec<u8>>,
    pub(crate) owners: Vec<OwnerChange>,
}

/// All of one kind: names with messages, and names with owners.
pub(crate) type Rows = (Vec<(String, Vec<u8>)>, Vec<(String, String)>);

pub(crate) struct StoreFile {
    path: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    /// None after a failure: the database refuses all that comes after one until it is opened again.
    database: Option<Database>,
    /// How often something was written, as far as we know.
    writes: u64,
    not_before: Option<Instant>,
}

impl StoreFile {
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let (database, writes) = open(path)?;
        let inner = Inner { database: Some(database), writes, not_before: None };
        Ok(Self { path: path.to_owned(), inner: Mutex::new(inner) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads all of one kind.
    pub(crate) fn read(&self, kind: Kind) -> Result<Rows, StoreError> {
        let mut inner = self.lock();
        let database = inner.database(&self.path)?;
        rows(database, kind).map_err(|error| StoreError::database(&self.path, error))
    }

    /// Writes all of these, or nothing: when this returns, they are on the disk.
    pub(crate) fn write(&self, batch: &[Write]) -> Result<(), StoreError> {
        let mut inner = self.lock();
        let writes = inner.writes + 1;
        let database = inner.database(&self.path)?;
        match write(database, batch, writes) {
            Ok(()) => inner.writes = writes,
            Err(error) => {
                inner.database = None;
                let error = StoreError::database(&self.path, error);
                // It may have come to the disk all the same, if only the last step failed.
                return match inner.reopen(&self.path) {
                    Ok(()) if inner.writes == writes => Ok(()),
                    _ => Err(error),
                };
            }
        }
        Ok(())
    }

    /// As after a failure.
    #[cfg(test)]
    pub(crate) fn fail(&self) {
        let mut inner = self.lock();
        inner.database = None;
        inner.not_before = Some(Instant::now() + PAUSE);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn database(&mut self, path: &Path) -> Result<&Database, StoreError> {
        if self.database.is_none() {
            if self.not_before.is_some_and(|then| Instant::now() < then) {
                return Err(StoreError::io(path, std::io::Error::other("it failed a moment ago")));
            }
            self.reopen(path)?;
        }
        self.database.as_ref().ok_or_else(|| StoreError::io(path, std::io::Error::other("it is closed")))
    }

    fn reopen(&mut self, path: &Path) -> Result<(), StoreError> {
        self.not_before = Some(Instant::now() + PAUSE);
        let (database, writes) = open(path)?;
        if writes != self.writes && writes != self.writes + 1 {
            return Err(StoreError::Overtaken { path: path.to_owned() });
        }
        *self = Self { database: Some(database), writes, not_before: None };
        Ok(())
    }
}

impl fmt::Debug for StoreFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreFile({})", self.path.display())
    }
}

/// The database with its number of writes.
fn open(path: &Path) -> Result<(Database, u64), StoreError> {
    let file = open_file(path).map_err(|error| StoreError::io(path, error))?;
    let failed = |error: redb::Error| StoreError::database(path, error);
    let backend = FileBackend::new(file).map_err(|error| failed(error.into()))?;
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    let database = builder.create_with_backend(backend).map_err(|error| failed(error.into()))?;
    match numbers(&database).map_err(failed)? {
        Some((FORMAT, writes)) => Ok((database, writes)),
        Some((found, _)) => Err(StoreError::Newer { path: path.to_owned(), found, known: FORMAT }),
        None => {
            begin(&database, path)?;
            Ok((database, 0))
        }
    }
}

fn open_file(path: &Path) -> std::io::Result<File> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let metadata = file.metadata()?;
    if metadata.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    if metadata.len() == 0 {
        // So that the file itself is there after a loss of power.
        File::open(directory)?.sync_all()?;
    }
    Ok(file)
}

/// The format and the number of writes; none in a file without tables.
fn numbers(database: &Database) -> Result<Option<(u64, u64)>, redb::Error> {
    let reading = database.begin_read()?;
    let about = match reading.open_table(ABOUT) {
        Ok(about) => about,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let number = |row| Ok::<_, redb::Error>(about.get(row)?.map(|number| number.value()));
    Ok(Some((number(FORMAT_ROW)?.unwrap_or(0), number(WRITES_ROW)?.unwrap_or(0))))
}

/// Makes the tables of an empty file.
fn begin(database: &Database, path: &Path) -> Result<(), StoreError> {
    let make = || -> Result<bool, redb::Error> {
        let writing = database.begin_write()?;
        if writing.list_tables()?.next().is_some() {
            return Ok(false);
        }
        writing.open_table(ABOUT)?.insert(FORMAT_ROW, FORMAT)?;
        for kind in [Kind::Services, Kind::Endpoints] {
            writing.open_table(kind.records())?;
            writing.open_table(kind.owners())?;
        }
        writing.commit()?;
        Ok(true)
    };
    match make() {
        Ok(true) => Ok(()),
        Ok(false) => Err(StoreError::Foreign { path: path.to_owned() }),
        Err(error) => Err(StoreError::database(path, error)),
    }
}

fn rows(database: &Database, kind: Kind) -> Result<Rows, redb::Error> {
    let reading = database.begin_read()?;
    let (mut records, mut owners) = (Vec::new(), Vec::new());
    for row in reading.open_table(kind.records())?.iter()? {
        let (name, record) = row?;
        records.push((name.value().to_owned(), record.value().to_owned()));
    }
    for row in reading.open_table(kind.owners())?.iter()? {
        let (name, owner) = row?;
        owners.push((name.value().to_owned(), owner.value().to_owned()));
    }
    Ok((records, owners))
}

fn write(database: &Database, batch: &[Write], writes: u64) -> Result<(), redb::Error> {
    let writing = database.begin_write()?;
    for kind in [Kind::Services, Kind::Endpoints] {
        let mut batch = batch.iter().filter(|write| write.kind == kind).peekable();
        if batch.peek().is_none() {
            continue;
        }
        let (mut records, mut owners) = (writing.open_table(kind.records())?, writing.open_table(kind.owners())?);
        for Write { name, record, owners: changes, .. } in batch {
            match record {
                Some(record) => drop(records.insert(&**name, record.as_slice())?),
                None => drop(records.remove(&**name)?),
            }
            for (name, owner) in changes {
                match owner {
                    // Most often it is the same: a page that is not touched is not written.
                    Some(owner) if owners.get(&**name)?.is_some_and(|before| before.value() == &**owner) => {}
                    Some(owner) => drop(owners.insert(&**name, &**owner)?),
                    None => drop(owners.remove(&**name)?),
                }
            }
        }
    }
    writing.open_table(ABOUT)?.insert(WRITES_ROW, writes)?;
    writing.commit()?;
    Ok(())
}
