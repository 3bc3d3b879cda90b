//! Interfaces whose packets pass through a namespace on their way.
//!
//! A workload between two wires of one connection has at each of them the address of the other's far end, so that its kernel would
//! take every packet for its own. A rule for each such interface stands before the one that says so: what comes in there is looked
//! up in the main table first, where a route of the other wire leads on. What the workload itself sends is not concerned.

use nix::libc::{EEXIST, ENOENT};

use crate::{
    InterfaceName, Netns, Result,
    netns::{Lane, work},
    rtnl::{Rtnl, rule},
    sysctl,
};

impl Netns {
    /// Has all that comes in through the interface of this name, which need not be there yet, forwarded by the main table's routes,
    /// also if it is for an address that this namespace has. It makes the namespace a router: it forwards IPv4 and IPv6, takes
    /// packets that have its own addresses as their source, and answers ARP for others on interfaces that are made later.
    ///
    /// # Errors
    /// [`Error::NoPrivileges`](crate::Error::NoPrivileges) or [`Error::Kernel`](crate::Error::Kernel).
    pub async fn pass_on(&self, interface: &InterfaceName) -> Result<()> {
        let (netns, interface) = (self.clone(), interface.clone());
        work(Lane::Quick, move |here| {
            here.enter(&netns)?;
            sysctl::be_router()?;
            let mut requests = Vec::new();
            for v4 in [true, false] {
                let mut passing = rule::passing(v4, &interface);
                passing.content_with = &[EEXIST];
                // The rule for local addresses goes behind it: among those of one priority the last one added is the last.
                requests.extend([passing, rule::local_again(v4), rule::local_once(v4)]);
            }
            Rtnl::open()?.apply(requests)
        })
        .await
    }

    /// Takes that back; the namespace stays a router. Content if the interface was not passed on.
    ///
    /// # Errors
    /// As [`pass_on`](Self::pass_on).
    pub async fn pass_no_more(&self, interface: &InterfaceName) -> Result<()> {
        let (netns, interface) = (self.clone(), interface.clone());
        work(Lane::Quick, move |here| {
            here.enter(&netns)?;
            let remove = |v4| {
                let mut remove = rule::pass_no_more(v4, &interface);
                remove.content_with = &[ENOENT];
                remove
            };
            Rtnl::open()?.apply([true, false].map(remove).into())
        })
        .await
    }
}
