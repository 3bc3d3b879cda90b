//! Files that count as they are now, and not as they were when the program started.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use tokio::time::Instant;

/// How old what is known of a file may be.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// More than this is none of our files.
const MAX_BYTES: u64 = 1 << 20;

/// A file whose content is asked for again and again.
///
/// It is looked at when somebody asks, at most once a second, and read again when its time, size or inode changed; there
/// is no watch and no task. A file that is not there says the same as `T::default()`. While it is empty or cannot be
/// understood the last good content stays, and the log says why.
pub struct WatchedFile<T> {
    path: Arc<Path>,
    parse: fn(&str) -> Result<T, FileError>,
    known: Mutex<Known<T>>,
}

struct Known<T> {
    content: Option<Arc<T>>,
    stamp: Option<Stamp>,
    problem: Option<String>,
    looked: Option<Instant>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The system does not let it be read.
    #[error("it cannot be read")]
    Unreadable(#[from] io::Error),
    /// It is a directory, a device, or something else one does not read.
    #[error("it is not a regular file")]
    NotFile,
    /// It is larger than 1 MiB.
    #[error("it is larger than 1 MiB")]
    TooLarge,
    /// It does not say what it should.
    #[error("{0}")]
    Malformed(String),
}

impl<T: Default + Send + Sync + 'static> WatchedFile<T> {
    /// Reads this file when it is first asked for, by this function.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, parse: fn(&str) -> Result<T, FileError>) -> Self {
        let known = Known { content: None, stamp: None, problem: None, looked: None };
        Self { path: path.into().into(), parse, known: Mutex::new(known) }
    }

    /// Which file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says now, or a second ago.
    ///
    /// # Errors
    /// [`FileError`], as long as it never said anything good.
    pub async fn current(&self) -> Result<Arc<T>, FileError> {
        let stamp = {
            let mut known = self.known();
            let fresh = known.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY);
            if let Some(content) = known.content.as_ref().filter(|_| fresh) {
                return Ok(Arc::clone(content));
            }
            known.looked = Some(Instant::now());
            known.stamp
        };
        let (path, parse) = (Arc::clone(&self.path), self.parse);
        let found = tokio::task::spawn_blocking(move || look(&path, stamp, parse)).await;
        self.known().learn(&self.path, found.unwrap_or_else(|error| Err(io::Error::other(error).into())))
    }

    fn known(&self) -> MutexGuard<'_, Known<T>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Default> Known<T> {
    fn learn(&mut self, path: &Path, found: Result<Found<T>, FileError>) -> Result<Arc<T>, FileError> {
        match found {
            Ok(Found::Same | Found::Empty) => {}
            Ok(Found::Missing) => self.accept(None, T::default()),
            Ok(Found::Content(stamp, content)) => self.accept(Some(stamp), content),
            Err(error) if self.content.is_some() => self.warn(path, &error),
            Err(error) => return Err(error),
        }
        Ok(Arc::clone(self.content.get_or_insert_default()))
    }

    fn accept(&mut self, stamp: Option<Stamp>, content: T) {
        self.stamp = stamp;
        self.content = Some(Arc::new(content));
        self.problem = None;
    }

    /// Says once what is wrong.
    fn warn(&mut self, path: &Path, error: &FileError) {
        let problem = error.to_string();
        if self.problem.as_ref() != Some(&problem) {
            tracing::warn!(path = %path.display(), error = problem, "keeping what the file said before");
            self.problem = Some(problem);
        }
    }
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    inode: u64,
    bytes: u64,
}

/// What a look at a file found.
enum Found<T> {
    /// It is not there.
    Missing,
    /// It is as it was.
    Same,
    /// It has no content: somebody has just made it, or is about to write it.
    Empty,
    /// It is new or has changed.
    Content(Stamp, T),
}

/// Looks at the file, and reads it if it is not what it was. Blocks.
fn look<T>(path: &Path, known: Option<Stamp>, parse: fn(&str) -> Result<T, FileError>) -> Result<Found<T>, FileError> {
    let file = match std::fs::metadata(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Found::Missing);
        }
        Err(error) => return Err(error.into()),
        Ok(metadata) if !metadata.is_file() => return Err(FileError::NotFile),
        Ok(metadata) => metadata,
    };
    let stamp = Stamp { modified: file.modified().ok(), inode: file.ino(), bytes: file.len() };
    if known == Some(stamp) {
        return Ok(Found::Same);
    }
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(FileError::TooLarge);
    }
    if text.trim().is_empty() {
        return Ok(Found::Empty);
    }
    Ok(Found::Content(stamp, parse(&text)?))
}

/// A file of YAML.
pub(crate) fn yaml<T: DeserializeOwned>(text: &str, shape: &str) -> Result<T, FileError> {
    serde_saphyr::from_str(text)
        .map_err(|error| FileError::Malformed(format!("it is not YAML with {shape}: {}", error.without_snippet())))
}

/// A file of YAML that says one text for each of some keys.
pub(crate) fn texts(text: &str) -> Result<BTreeMap<String, String>, FileError> {
    yaml(text, "a text for each key")
}

impl<T> fmt::Debug for WatchedFile<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WatchedFile({})", self.path.display())
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A file of its own for each test, gone afterwards.
    pub(crate) struct Scratch(PathBuf);

    impl Scratch {
        pub(crate) fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let folder = std::env::temp_dir().join(format!("nsm-file-{}-{number}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        pub(crate) fn holding(text: &str) -> Self {
            let scratch = Self::new();
            scratch.write(text);
            scratch
        }

        pub(crate) fn file(&self) -> PathBuf {
            self.0.join("file.yaml")
        }

        pub(crate) fn write(&self, text: &str) {
            fs::write(self.file(), text).unwrap();
        }

        pub(crate) fn remove(&self) {
            fs::remove_file(self.file()).unwrap();
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Scratch;
    use super::*;

    async fn seen(file: &WatchedFile<BTreeMap<String, String>>) -> String {
        let pairs: Vec<_> = file.current().await.unwrap().iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(" ")
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_counts_within_a_second_and_the_last_good_content_stays() {
        let scratch = Scratch::new();
        let file = WatchedFile::new(scratch.file(), texts);
        assert_eq!(seen(&file).await, "", "no file says nothing");
        scratch.write("a: one\nb: two\n");
        assert_eq!(seen(&file).await, "", "not looked at again at once");
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(seen(&file).await, "a=one b=two");
        for broken in ["a: [", "- a", ""] {
            scratch.write(broken);
            tokio::time::advance(LOOK_EVERY).await;
            assert_eq!(seen(&file).await, "a=one b=two", "{broken:?}");
        }
        scratch.remove();
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(seen(&file).await, "");
    }

    #[tokio::test(start_paused = true)]
    async fn without_anything_good_it_says_what_is_wrong() {
        let scratch = Scratch::holding("- a");
        let error = WatchedFile::new(scratch.file(), texts).current().await.unwrap_err();
        assert!(error.to_string().starts_with("it is not YAML with a text for each key"), "{error}");
        let error = WatchedFile::new("/dev/null", texts).current().await.unwrap_err();
        assert!(matches!(error, FileError::NotFile));
    }
}
