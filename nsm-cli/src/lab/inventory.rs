//! Counting what is there before and after, to prove that nothing is left.

use std::collections::BTreeSet;
use std::fs;

use nsm_kernel::{Census, Item, Netns, NetnsId};

use crate::failure::Failure;

/// What was there before a lab, and the namespaces it has made since.
#[derive(Debug)]
pub(crate) struct Inventory {
    /// The namespace we were started in.
    own: Netns,
    sockets: BTreeSet<String>,
    watched: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    name: String,
    netns: Netns,
    before: Census,
}

/// The namespaces that must be gone.
#[derive(Debug)]
pub(super) struct Ended {
    namespaces: Vec<(String, NetnsId)>,
    sockets: BTreeSet<String>,
}

impl Inventory {
    /// Notes what there is now.
    pub(super) fn of_now() -> Result<Self, Failure> {
        let own = Netns::current().map_err(|error| Failure::of("inventory", &error))?;
        Ok(Self { own, sockets: open_sockets(), watched: Vec::new() })
    }

    /// Notes what is in a namespace that was just made.
    pub(super) async fn watch(&mut self, name: &str, netns: &Netns) -> Result<(), Failure> {
        let before = Census::take(netns).await.map_err(|error| Failure::of(name, &error))?;
        self.watched.push(Watched { name: name.to_owned(), netns: netns.clone(), before });
        Ok(())
    }

    /// How many namespaces were noted.
    pub(crate) fn namespaces(&self) -> usize {
        self.watched.len()
    }

    /// What is in the namespaces that was not there when they were made, and what of ours is in the one we started in.
    pub(super) async fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for watched in &self.watched {
            match Census::take(&watched.netns).await {
                Ok(now) => {
                    let appeared = watched.before.diff(&now).appeared;
                    left.extend(appeared.iter().map(|item| format!("{}: {item}", watched.name)));
                }
                Err(error) => left.push(format!("{}: cannot be looked at: {error}", watched.name)),
            }
        }
        match Census::take(&self.own).await {
            // Others work in it too: of what is new there only what carries a forwarder's mark can be ours.
            Ok(now) => left.extend(now.items.iter().filter(|item| is_marked(item)).map(|item| format!("this namespace: {item}"))),
            Err(error) => left.push(format!("this namespace cannot be looked at: {error}")),
        }
        left
    }

    /// Lets go of the namespaces.
    pub(super) fn end(self) -> Ended {
        let namespaces = self.watched.into_iter().map(|watched| (watched.name, watched.netns.id())).collect();
        Ended { namespaces, sockets: self.sockets }
    }
}

impl Ended {
    /// What still holds a namespace that should be gone: a descriptor, a thread in it, or a mount; and sockets of this
    /// process that were not open before, which hold the namespace they were made in.
    pub(super) fn left(&self) -> Vec<String> {
        let held = netns_in_use();
        let kept = self.namespaces.iter().filter(|(_, id)| held.contains(&id.ino));
        let sockets = open_sockets();
        let sockets = sockets.difference(&self.sockets).map(|socket| format!("open {socket}"));
        kept.map(|(name, id)| format!("network namespace {id} of {name}")).chain(sockets).collect()
    }
}

fn is_marked(item: &Item) -> bool {
    matches!(item, Item::Link { alias: Some(alias), .. } if alias.starts_with("nsm:forwarder-"))
}

/// `socket:[inode]` of each open socket of this process.
fn open_sockets() -> BTreeSet<String> {
    links("/proc/self/fd").filter(|target| target.starts_with("socket:")).collect()
}

/// Inode numbers of network namespaces that this process holds open, has threads in, or sees mounted.
fn netns_in_use() -> BTreeSet<u64> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let threads = threads.filter_map(|thread| link(&thread.path().join("ns/net")));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // Field 4 of proc_pid_mountinfo(5) is what of the file system is mounted.
    let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(3).map(str::to_owned));
    let all = links("/proc/self/fd").chain(threads).chain(mounts);
    all.filter_map(|target| target.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()).collect()
}

fn links(directory: &str) -> impl Iterator<Item = String> {
    fs::read_dir(directory).into_iter().flatten().flatten().filter_map(|entry| link(&entry.path()))
}

fn link(path: &std::path::Path) -> Option<String> {
    Some(fs::read_link(path).ok()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_and_a_namespace_that_stay_are_found() {
        let mut inventory = Inventory::of_now().unwrap();
        let (a, _b) = tokio::net::UnixStream::pair().unwrap();
        // The namespace this test runs in stays for sure.
        let Ok(()) = inventory.watch("here", &Netns::current().unwrap()).await else {
            return println!("skipped: netlink is not allowed here");
        };
        let ended = inventory.end();
        let left = ended.left();
        assert!(left.iter().any(|what| what.starts_with("network namespace") && what.ends_with("of here")), "{left:?}");
        assert!(left.iter().any(|what| what.starts_with("open socket:")), "{left:?}");
        drop(a);
    }
}
