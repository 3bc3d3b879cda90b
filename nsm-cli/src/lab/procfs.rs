//! What this process holds open, as proc(5) tells it.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

/// `socket:[inode]` of each open socket of this process.
pub(super) fn open_sockets() -> io::Result<BTreeSet<String>> {
    Ok(descriptors()?.into_iter().filter(|target| target.starts_with("socket:")).collect())
}

/// Inode numbers of network namespaces that this process holds open, or has threads in. Mounts do not count: others give
/// names to namespaces too, and the kernel gives numbers again.
pub(super) fn netns_in_use() -> io::Result<BTreeSet<u64>> {
    let mut all = descriptors()?;
    for thread in fs::read_dir("/proc/self/task")? {
        all.extend(link(&thread?.path().join("ns/net"))?);
    }
    Ok(all.iter().filter_map(|target| target.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()).collect())
}

/// What each descriptor of this process is.
fn descriptors() -> io::Result<Vec<String>> {
    let mut all = Vec::new();
    for descriptor in fs::read_dir("/proc/self/fd")? {
        all.extend(link(&descriptor?.path())?);
    }
    Ok(all)
}

/// What a link leads to; none if it has gone since it was listed, as a descriptor or a thread may.
fn link(path: &Path) -> io::Result<Option<String>> {
    match fs::read_link(path) {
        Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
        Err(error) if matches!(error.raw_os_error(), Some(nix::libc::ENOENT | nix::libc::ESRCH)) => Ok(None),
        Err(error) => Err(error),
    }
}
