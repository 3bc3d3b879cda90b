//! Which hosts the connections of one client reach, counted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

/// An endpoint gave an address that must not be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Collision {
    /// Another connection of this client has it.
    #[error("another connection of this client has {0}")]
    InUse(IpAddr),
    /// The Request excluded just that address.
    #[error("the Request excluded {0}")]
    Excluded(IpAddr),
}

/// The group of connections that may share addresses; none shares with nobody.
pub(super) type Group = Option<usize>;

/// Hosts, and how many connections of each group reach them.
#[derive(Debug, Clone, Default)]
pub(super) struct HostsInUse(Arc<Mutex<Table>>);

type Table = HashMap<IpAddr, Vec<(Group, usize)>>;

/// One connection's hosts, sorted; dropped, they are no longer in use by it.
#[derive(Debug)]
pub(super) struct Hosts {
    table: HostsInUse,
    pub(super) group: Group,
    pub(super) list: Arc<[IpAddr]>,
}

impl HostsInUse {
    /// What a connection of this group must not get, in as few prefixes as can be; `own` it has already.
    pub(super) fn closed_to(&self, group: Group, own: &[IpAddr]) -> Vec<IpNet> {
        let closed = |(host, users): (&IpAddr, &Vec<(Group, usize)>)| {
            (others(users, group, false) && own.binary_search(host).is_err())
                .then_some(IpNet::from(*host))
        };
        let hosts: Vec<IpNet> = self.lock().iter().filter_map(closed).collect();
        IpNet::aggregate(&hosts)
    }

    /// Puts a connection's hosts into use. In the same step, its `addresses` must be nobody else's: two connections
    /// may have been answered at the same time.
    pub(super) fn claim(
        &self,
        group: Group,
        own: &[IpAddr],
        addresses: &[IpAddr],
        mut hosts: Vec<IpAddr>,
    ) -> Result<Hosts, Collision> {
        hosts.sort_unstable();
        hosts.dedup();
        let mut table = self.lock();
        for address in addresses {
            let mine = own.binary_search(address).is_ok();
            if table
                .get(address)
                .is_some_and(|users| others(users, group, mine))
            {
                return Err(Collision::InUse(*address));
            }
        }
        for host in &hosts {
            let users = table.entry(*host).or_default();
            match users.iter_mut().find(|(other, _)| *other == group) {
                Some((_, count)) => *count += 1,
                None => users.push((group, 1)),
            }
        }
        Ok(Hosts {
            table: self.clone(),
            group,
            list: hosts.into(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

/// Whether somebody uses a host that a connection of this group does not share with; `mine`: it is one of the users.
fn others(users: &[(Group, usize)], group: Group, mine: bool) -> bool {
    users
        .iter()
        .any(|(other, count)| match (*other == group, group) {
            (true, Some(_)) => false,
            (true, None) => *count > usize::from(mine),
            (false, _) => true,
        })
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        for host in &*self.list {
            let Some(users) = table.get_mut(host) else {
                continue;
            };
            if let Some(at) = users.iter().position(|(group, _)| *group == self.group) {
                users[at].1 -= 1;
                if users[at].1 == 0 {
                    users.swap_remove(at);
                }
            }
            if users.is_empty() {
                table.remove(host);
            }
        }
    }
}
