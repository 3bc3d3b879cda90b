//! Which namespaces there are, and who is in them.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Netns, NetnsId};

/// How many namespaces are looked at.
const NAMESPACES: usize = 4096;
/// How many processes are asked for theirs.
const PROCESSES: usize = 65_536;

impl NetnsId {
    /// The one that a path names, which is not opened.
    pub(crate) fn at(path: impl AsRef<Path>) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self { dev: file.dev(), ino: file.ino() })
    }

    /// The one that a process is in.
    pub(crate) fn of_process(pid: i32) -> Option<Self> {
        Self::at(format!("/proc/{pid}/ns/net"))
    }
}

/// All processes, the longest running first, as far as numbers tell.
pub(crate) fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.collect::<BTreeSet<_>>().into_iter()
}

pub(super) fn seen() -> Vec<(PathBuf, Netns)> {
    let named = fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|entry| entry.path());
    let entered = processes().take(PROCESSES).map(|pid| format!("/proc/{pid}/ns/net").into());
    let mut known = HashSet::new();
    // Identity first: most processes share one namespace, and each open costs a descriptor for a moment.
    let each_once = named.chain(entered).filter(|path: &PathBuf| NetnsId::at(path).is_some_and(|id| known.insert(id)));
    each_once.filter_map(|path| Netns::open(&path).ok().map(|netns| (path, netns))).take(NAMESPACES).collect()
}
