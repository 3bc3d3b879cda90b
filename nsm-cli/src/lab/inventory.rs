//! Counting what is there before and after, to prove that nothing is left.

use std::collections::BTreeSet;
use std::time::Duration;

use nsm_kernel::{Census, Item, Netns, NetnsId};
use tokio::time::Instant;

use super::procfs::{netns_in_use, open_sockets};
use crate::failure::Failure;

/// How long tasks that were told to end may take to let go of descriptors. A hop that has ended still follows for five seconds
/// what others report, in case somebody comes back, and so holds its node's namespace.
const SETTLING: Duration = Duration::from_secs(10);

/// What was there before a lab, and the namespaces it has made since.
#[derive(Debug)]
pub(crate) struct Inventory {
    /// The namespace we were started in. Others work in it too: of what is new there only what carries a forwarder's
    /// mark can be ours.
    own: Netns,
    marked: BTreeSet<Item>,
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
    /// What was open before, where sockets must be gone too.
    sockets: Option<BTreeSet<String>>,
}

impl Inventory {
    /// Notes what there is now.
    pub(super) async fn of_now() -> Result<Self, Failure> {
        let failed = |error| Failure::of("inventory", &error);
        let own = Netns::current().map_err(failed)?;
        let marked = marked(Census::take(&own).await.map_err(failed)?);
        let sockets = open_sockets().map_err(|error| Failure::of("inventory", &error))?;
        Ok(Self { own, marked, sockets, watched: Vec::new() })
    }

    /// Notes what is in a namespace that was just made, or that we have just changed.
    pub(super) async fn watch(&mut self, name: &str, netns: &Netns) -> Result<(), Failure> {
        let before = Census::take(netns).await.map_err(|error| Failure::of(name, &error))?;
        self.watched.retain(|watched| watched.name != name);
        self.watched.push(Watched { name: name.to_owned(), netns: netns.clone(), before });
        Ok(())
    }

    /// These sockets are as good as there before.
    pub(super) fn excuse(&mut self, sockets: BTreeSet<String>) {
        self.sockets.extend(sockets);
    }

    /// How many namespaces were noted.
    pub(crate) fn namespaces(&self) -> usize {
        self.watched.len()
    }

    /// What is in the namespaces that was not there when they were made, and what of ours is in the one we started in.
    pub(super) async fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for watched in &self.watched {
            left.extend(watched.left().await);
        }
        match Census::take(&self.own).await {
            Ok(now) => left.extend(marked(now).difference(&self.marked).map(|item| format!("this namespace: {item}"))),
            Err(error) => left.push(format!("this namespace cannot be looked at: {error}")),
        }
        left
    }

    /// What is in the namespace of this name that was not there when it was made.
    pub(super) async fn left_of(&self, name: &str) -> Vec<String> {
        let mut left = Vec::new();
        for watched in self.watched.iter().filter(|watched| watched.name == name) {
            left.extend(watched.left().await);
        }
        left
    }

    /// Lets go of the namespace of this name.
    pub(super) fn forget(&mut self, name: &str) -> Ended {
        let (gone, stay) = std::mem::take(&mut self.watched).into_iter().partition(|watched| watched.name == name);
        self.watched = stay;
        Ended::of(gone)
    }

    /// Lets go of the namespaces.
    pub(super) fn end(self) -> Ended {
        Ended { sockets: Some(self.sockets), ..Ended::of(self.watched) }
    }
}

impl Watched {
    async fn left(&self) -> Vec<String> {
        match Census::take(&self.netns).await {
            Ok(now) => {
                let appeared = self.before.diff(&now).appeared;
                appeared.iter().map(|item| format!("{}: {item}", self.name)).collect()
            }
            Err(error) => vec![format!("{}: cannot be looked at: {error}", self.name)],
        }
    }
}

impl Ended {
    fn of(watched: Vec<Watched>) -> Self {
        let namespaces = watched.into_iter().map(|watched| (watched.name, watched.netns.id())).collect();
        Self { namespaces, sockets: None }
    }

    /// What is left when tasks that were told to end have let go of descriptors, or the time is over.
    pub(super) async fn in_time(&self) -> Vec<String> {
        let until = Instant::now() + SETTLING;
        loop {
            let left = self.left();
            if left.is_empty() || Instant::now() >= until {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What still holds a namespace that should be gone: a descriptor, or a thread in it; and sockets of this
    /// process that were not open before, which hold the namespace they were made in.
    pub(super) fn left(&self) -> Vec<String> {
        // What cannot be counted may be there.
        let (held, sockets) = match netns_in_use().and_then(|held| Ok((held, open_sockets()?))) {
            Ok(counted) => counted,
            Err(error) => {
                return vec![format!("this process cannot be looked at in /proc: {error}")];
            }
        };
        let kept = self.namespaces.iter().filter(|(_, id)| held.contains(&id.ino));
        let before = self.sockets.as_ref().unwrap_or(&sockets);
        let sockets = sockets.difference(before).map(|socket| format!("open {socket}"));
        kept.map(|(name, id)| format!("network namespace {id} of {name}")).chain(sockets).collect()
    }
}

/// The interfaces that carry the mark of a forwarder.
fn marked(census: Census) -> BTreeSet<Item> {
    let is_marked = |item: &Item| matches!(item, Item::Link { alias: Some(alias), .. } if alias.starts_with("nsm:"));
    census.items.into_iter().filter(is_marked).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsm_kernel::{InterfaceSpec, PeerNeighbours, VethWire};

    #[tokio::test]
    async fn an_interface_that_stays_is_found_with_all_that_is_on_it() {
        let (mut inventory, netns) = match (Inventory::of_now().await, Netns::create().await) {
            (Ok(inventory), Ok(netns)) => (inventory, netns),
            (inventory, netns) => return println!("SKIPPED: {inventory:?} {netns:?}"),
        };
        inventory.watch("nsc-1", &netns).await.unwrap();
        assert_eq!(inventory.left().await, [""; 0]);
        let end = |name| InterfaceSpec::new(name, "nsm:forwarder-1:42").unwrap();
        let near = end("nsm-1").with_address("10.1.0.1/32".parse().unwrap());
        VethWire::create((&netns, &near), (&netns, &end("nse")), PeerNeighbours::Learned).await.unwrap();
        let left = inventory.left().await;
        for what in ["nsc-1: interface nsm-1", "nsc-1: address 10.1.0.1/32 on nsm-1", "nsc-1: route 10.1.0.1/32"] {
            assert!(left.iter().any(|item| item.starts_with(what)), "{what} in {left:?}");
        }
    }

    #[tokio::test]
    async fn a_socket_and_a_namespace_that_stay_are_found() {
        let mut inventory = match Inventory::of_now().await {
            Ok(inventory) => inventory,
            Err(failure) => return println!("SKIPPED: {}", failure.cause),
        };
        let (a, _b) = tokio::net::UnixStream::pair().unwrap();
        // The namespace this test runs in stays for sure.
        inventory.watch("here", &Netns::current().unwrap()).await.unwrap();
        let ended = inventory.end();
        let left = ended.left();
        assert!(left.iter().any(|what| what.starts_with("network namespace") && what.ends_with("of here")), "{left:?}");
        assert!(left.iter().any(|what| what.starts_with("open socket:")), "{left:?}");
        drop(a);
    }
}
