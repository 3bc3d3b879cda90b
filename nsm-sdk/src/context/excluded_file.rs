//! Prefixes that nobody on this node may get.

use std::path::PathBuf;

use nsm_chain::{Call, Element, Error, Next, Result};

use super::{exclude, prefix_list};
use crate::files::WatchedFile;

/// Adds the prefixes of a file to those a Request excludes, each once: the cluster's own, which endpoints must keep
/// out of.
/// A Close passes.
///
/// It stands in a manager, anywhere before the Request leaves for the forwarder.
///
/// The file is YAML with a list `prefixes`, as `cmd-exclude-prefixes-k8s` writes it, and counts as it is
/// ([`WatchedFile`]). One that is not there excludes nothing. While it was never good the Request is refused, because
/// addresses would be given that are the cluster's.
///
/// What a Request excluded once it goes on excluding: a shorter file counts for connections made from then on.
///
/// Reference: `common/excludedprefixes` (server) of the Go SDK.
#[derive(Debug)]
pub struct ExcludedPrefixesFile(WatchedFile<Vec<String>>);

impl ExcludedPrefixesFile {
    /// Where the prefix collector of the reference puts it.
    pub const DEFAULT_PATH: &str = "/var/lib/networkservicemesh/config/excluded_prefixes.yaml";

    /// Reads this file when the first Request comes.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(WatchedFile::new(path, prefix_list::parse))
    }
}

impl Element for ExcludedPrefixesFile {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let prefixes = self.0.current().await.map_err(|error| {
            Error::precondition(format!("excluded prefixes of {}", self.0.path().display()))
                .because(error)
                .hint("make it YAML such as `prefixes: [10.96.0.0/12]`, or remove it")
        })?;
        exclude(&mut call, prefixes.iter());
        next.request(call).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nsm_chain::Code;

    use super::super::testing::{Hop, connection, ip, texts};
    use super::*;
    use crate::files::testing::Scratch;

    const LOOK_EVERY: Duration = Duration::from_secs(1);

    fn hop(scratch: &Scratch) -> Hop {
        Hop::new(ExcludedPrefixesFile::new(scratch.file()))
    }

    async fn excluded(hop: &Hop, id: &str) -> Vec<String> {
        ip(&hop.request(connection(id)).await.unwrap()).excluded_prefixes
    }

    #[tokio::test(start_paused = true)]
    async fn prefixes_are_added_once_beside_those_asked_for() {
        let scratch = Scratch::new();
        scratch.write("prefixes: [10.96.0.0/12, 10.244.0.0/16]");
        let hop = hop(&scratch);
        let mut asked = connection("a");
        super::super::ip_context(&mut asked).excluded_prefixes = texts(&["10.244.0.0/16", "192.168.0.0/16"]);
        let answered = hop.request(asked).await.unwrap();
        assert_eq!(ip(&answered).excluded_prefixes, ["10.244.0.0/16", "192.168.0.0/16", "10.96.0.0/12"]);
        assert_eq!(hop.request(answered.clone()).await.unwrap(), answered, "a refresh adds nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_counts_within_a_second_and_what_was_excluded_stays() {
        let scratch = Scratch::new();
        let hop = hop(&scratch);
        assert!(excluded(&hop, "a").await.is_empty(), "no file, no exclusions");
        scratch.write("prefixes: [10.0.0.0/8]");
        assert!(excluded(&hop, "b").await.is_empty(), "not looked at again at once");
        tokio::time::advance(LOOK_EVERY).await;
        let first = hop.request(connection("c")).await.unwrap();
        assert_eq!(ip(&first).excluded_prefixes, ["10.0.0.0/8"]);
        scratch.remove();
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(ip(&hop.request(first).await.unwrap()).excluded_prefixes, ["10.0.0.0/8"]);
        assert!(excluded(&hop, "d").await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_list_stays_while_the_file_is_broken() {
        let scratch = Scratch::new();
        scratch.write("prefixes: [10.0.0.0/8]");
        let hop = hop(&scratch);
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
        let scratch = Scratch::new();
        scratch.write("prefixes: [10.0.0.0/99]");
        let hop = hop(&scratch);
        let error = hop.request(connection("a")).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert!(error.to_string().contains(r#"prefixes[0] is "10.0.0.0/99""#), "{error}");
        scratch.write("prefixes: [10.0.0.0/9]");
        assert_eq!(excluded(&hop, "a").await, ["10.0.0.0/9"]);
    }
}
