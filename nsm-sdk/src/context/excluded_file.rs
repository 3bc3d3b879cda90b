//! Prefixes that nobody on this node may get.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nsm_chain::{Call, Element, Error, Next, Result};
use tokio::time::Instant;

use super::exclude;
use super::prefix_list::{Found, PrefixListError, Stamp, look};

/// How old what is known of the file may be.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Adds the prefixes of a file to those a Request excludes, each once: the cluster's own, which endpoints must keep
/// out of.
/// A Close passes.
///
/// It stands in a manager, anywhere before the Request leaves for the forwarder.
///
/// The file is YAML with a list `prefixes`, as `cmd-exclude-prefixes-k8s` writes it. It is looked at when a Request
/// comes, at most once a second, and read again when its time, size or inode changed; there is no watch and no task.
/// A file that is not there excludes nothing. While it is empty or cannot be understood the last good list stays, and
/// the log says why; without any good list the Request is refused, because addresses would be given that are the
/// cluster's.
///
/// What a Request excluded once it goes on excluding: a shorter file counts for connections made from then on.
///
/// Reference: `common/excludedprefixes` (server) of the Go SDK.
#[derive(Debug)]
pub struct ExcludedPrefixesFile {
    path: Arc<Path>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    prefixes: Option<Arc<[String]>>,
    stamp: Option<Stamp>,
    problem: Option<String>,
    looked: Option<Instant>,
}

impl ExcludedPrefixesFile {
    /// Where the prefix collector of the reference puts it.
    pub const DEFAULT_PATH: &str = "/var/lib/networkservicemesh/config/excluded_prefixes.yaml";

    /// Reads this file when the first Request comes.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into().into(), known: Mutex::default() }
    }

    async fn prefixes(&self) -> Result<Arc<[String]>> {
        let stamp = {
            let mut known = self.known();
            let fresh = known.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY);
            if let Some(prefixes) = known.prefixes.as_ref().filter(|_| fresh) {
                return Ok(Arc::clone(prefixes));
            }
            known.looked = Some(Instant::now());
            known.stamp
        };
        let path = Arc::clone(&self.path);
        let found = tokio::task::spawn_blocking(move || look(&path, stamp)).await;
        let found = found.map_err(|error| Error::internal("reading the excluded prefixes").because(error))?;
        self.known().learn(&self.path, found)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn learn(&mut self, path: &Path, found: Result<Found, PrefixListError>) -> Result<Arc<[String]>> {
        match found {
            Ok(Found::Same) => {}
            Ok(Found::Empty) => {
                self.prefixes.get_or_insert_default();
            }
            Ok(Found::Missing) => self.accept(None, Arc::default()),
            Ok(Found::Prefixes(stamp, prefixes)) => self.accept(Some(stamp), prefixes),
            Err(error) if self.prefixes.is_some() => self.warn(path, &error),
            Err(error) => {
                return Err(Error::precondition(format!("excluded prefixes of {}", path.display()))
                    .because(error)
                    .hint("make it YAML such as `prefixes: [10.96.0.0/12]`, or remove it"));
            }
        }
        Ok(self.prefixes.clone().unwrap_or_default())
    }

    fn accept(&mut self, stamp: Option<Stamp>, prefixes: Arc<[String]>) {
        self.stamp = stamp;
        self.prefixes = Some(prefixes);
        self.problem = None;
    }

    /// Says once what is wrong.
    fn warn(&mut self, path: &Path, error: &PrefixListError) {
        let problem = error.to_string();
        if self.problem.as_ref() != Some(&problem) {
            tracing::warn!(path = %path.display(), error = problem, "keeping the last good list of excluded prefixes");
            self.problem = Some(problem);
        }
    }
}

impl Element for ExcludedPrefixesFile {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let prefixes = self.prefixes().await?;
        exclude(&mut call, prefixes.iter());
        next.request(call).await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nsm_chain::Code;

    use super::super::testing::{Hop, connection, ip, texts};
    use super::*;

    /// A file of its own for each test, gone afterwards.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("nsm-excluded-{}-{name}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        fn file(&self) -> PathBuf {
            self.0.join("prefixes.yaml")
        }

        fn write(&self, text: &str) {
            fs::write(self.file(), text).unwrap();
        }

        fn hop(&self) -> Hop {
            Hop::new(ExcludedPrefixesFile::new(self.file()))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    async fn excluded(hop: &Hop, id: &str) -> Vec<String> {
        ip(&hop.request(connection(id)).await.unwrap()).excluded_prefixes
    }

    #[tokio::test(start_paused = true)]
    async fn prefixes_are_added_once_beside_those_asked_for() {
        let scratch = Scratch::new("once");
        scratch.write("prefixes: [10.96.0.0/12, 10.244.0.0/16]");
        let hop = scratch.hop();
        let mut asked = connection("a");
        super::super::ip_context(&mut asked).excluded_prefixes = texts(&["10.244.0.0/16", "192.168.0.0/16"]);
        let answered = hop.request(asked).await.unwrap();
        assert_eq!(ip(&answered).excluded_prefixes, ["10.244.0.0/16", "192.168.0.0/16", "10.96.0.0/12"]);
        assert_eq!(hop.request(answered.clone()).await.unwrap(), answered, "a refresh adds nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_counts_within_a_second_and_what_was_excluded_stays() {
        let scratch = Scratch::new("changed");
        let hop = scratch.hop();
        assert!(excluded(&hop, "a").await.is_empty(), "no file, no exclusions");
        scratch.write("prefixes: [10.0.0.0/8]");
        assert!(excluded(&hop, "b").await.is_empty(), "not looked at again at once");
        tokio::time::advance(LOOK_EVERY).await;
        let first = hop.request(connection("c")).await.unwrap();
        assert_eq!(ip(&first).excluded_prefixes, ["10.0.0.0/8"]);
        fs::remove_file(scratch.file()).unwrap();
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(ip(&hop.request(first).await.unwrap()).excluded_prefixes, ["10.0.0.0/8"]);
        assert!(excluded(&hop, "d").await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_list_stays_while_the_file_is_broken() {
        let scratch = Scratch::new("broken");
        scratch.write("prefixes: [10.0.0.0/8]");
        let hop = scratch.hop();
        excluded(&hop, "a").await;
        for (broken, id) in [("prefixes: [nonsense]", "b"), ("prefixes: {", "c"), ("", "d")] {
            scratch.write(broken);
            tokio::time::advance(LOOK_EVERY).await;
            assert_eq!(excluded(&hop, id).await, ["10.0.0.0/8"], "{broken:?}");
        }
        scratch.write("prefixes: [fd00::/8]");
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(excluded(&hop, "e").await, ["fd00::/8"]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_any_good_list_a_request_is_refused_until_the_file_is_mended() {
        let scratch = Scratch::new("refused");
        scratch.write("prefixes: [10.0.0.0/99]");
        let hop = scratch.hop();
        let error = hop.request(connection("a")).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert!(error.to_string().contains(r#"prefixes[0] is "10.0.0.0/99""#), "{error}");
        scratch.write("prefixes: [10.0.0.0/9]");
        assert_eq!(excluded(&hop, "a").await, ["10.0.0.0/9"]);
    }
}
