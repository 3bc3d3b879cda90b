//! What an earlier life of this forwarder left in the kernel.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use nsm_kernel::{Netns, delete_link, links_with_mark};

use super::Linux;

/// How many namespaces are looked at.
const NAMESPACES: usize = 4096;
/// How many processes are asked for theirs.
const PROCESSES: usize = 65_536;

/// Interfaces with this forwarder's mark that were there when it looked. See [`Linux::orphans`].
#[derive(Debug)]
pub struct Orphans {
    linux: Linux,
    found: Vec<Orphan>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Where it is. Kept open so that it can be found again.
    pub netns: Netns,
    /// Its name.
    pub name: String,
    /// Its mark.
    pub mark: String,
}

impl Linux {
    /// Looks for interfaces with this forwarder's mark in every namespace that can be seen from here: those named in
    /// `/run/netns`, and those of running processes. To be called at start, before the first Request.
    ///
    /// Nothing is touched yet. A Request for a connection of an earlier life adopts its interfaces; after a time in which
    /// all clients should have asked again, remove the rest by [`Orphans::remove_after`].
    pub async fn orphans(&self) -> Orphans {
        let namespaces = tokio::task::spawn_blocking(namespaces).await.unwrap_or_default();
        let mut found = Vec::new();
        for netns in namespaces {
            match links_with_mark(&netns, self.0.mark.prefix()).await {
                Ok(links) => found.extend(links.into_iter().map(|link| Orphan {
                    netns: netns.clone(),
                    name: link.name,
                    mark: link.alias,
                })),
                // Of another user, say: then nothing in it is ours.
                Err(error) => tracing::debug!(netns = %netns.id(), %error, "not looked at"),
            }
        }
        Orphans { linux: self.clone(), found }
    }
}

impl Orphans {
    /// What was found.
    #[must_use]
    pub fn found(&self) -> &[Orphan] {
        &self.found
    }

    /// Waits, then removes those that belong to no wire by then; returns what was removed.
    pub async fn remove_after(self, grace: Duration) -> Vec<Orphan> {
        if !self.found.is_empty() {
            tokio::time::sleep(grace).await;
        }
        let Self { linux, found } = self;
        let mut removed = Vec::new();
        for orphan in found {
            let link = (orphan.netns.id(), &*orphan.name, &*orphan.mark);
            if linux.0.table.claims(&linux.0.mark, link) {
                continue;
            }
            match delete_link(&orphan.netns, &orphan.name, &orphan.mark).await {
                Ok(true) => removed.push(orphan),
                // Gone with its peer, or by somebody else's hand.
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(name = orphan.name, mark = orphan.mark, %error, "an orphan is left");
                }
            }
        }
        removed
    }
}

/// Every namespace that can be seen, each once.
fn namespaces() -> Vec<Netns> {
    let mut known = HashSet::new();
    let mut open = Vec::new();
    let named = fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|entry| entry.path());
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name();
        let number = name.to_str()?.bytes().all(|byte| byte.is_ascii_digit());
        number.then(|| entry.path().join("ns/net"))
    });
    let mut look = |path: PathBuf| {
        // Identity first: most processes share one namespace, and each open costs a descriptor for a moment.
        let Ok(file) = fs::metadata(&path) else {
            return;
        };
        if open.len() < NAMESPACES
            && known.insert((file.dev(), file.ino()))
            && let Ok(netns) = Netns::open(&path)
        {
            open.push(netns);
        }
    };
    named.for_each(&mut look);
    processes.take(PROCESSES).for_each(&mut look);
    open
}
