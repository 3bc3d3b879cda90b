//! Which hosts the connections of one client reach, counted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use super::address_set::AddressSet;

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

#[derive(Debug, Default)]
struct Table {
    users: HashMap<IpAddr, Vec<(Group, usize)>>,
    /// The same hosts, ready to be told as prefixes.
    set: AddressSet,
}

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
        let table = self.lock();
        let mut closed = table.set.clone();
        own.iter().for_each(|host| closed.remove(*host));
        if group.is_some() {
            let shared = table.users.iter().filter(|(_, users)| !others(users, group, false));
            shared.for_each(|(host, _)| closed.remove(*host));
        }
        closed.prefixes()
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
            if table.users.get(address).is_some_and(|users| others(users, group, mine)) {
                return Err(Collision::InUse(*address));
            }
        }
        for host in &hosts {
            table.enter(*host, group);
        }
        Ok(Hosts { table: self.clone(), group, list: hosts.into() })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().users.is_empty()
    }
}

impl Table {
    fn enter(&mut self, host: IpAddr, group: Group) {
        self.set.insert(host);
        let users = self.users.entry(host).or_default();
        match users.iter_mut().find(|(other, _)| *other == group) {
            Some((_, count)) => *count += 1,
            None => users.push((group, 1)),
        }
    }

    fn leave(&mut self, host: IpAddr, group: Group) {
        let Some(users) = self.users.get_mut(&host) else {
            return;
        };
        users.iter_mut().filter(|(other, _)| *other == group).for_each(|(_, count)| *count -= 1);
        users.retain(|(_, count)| *count > 0);
        if users.is_empty() {
            self.users.remove(&host);
            self.set.remove(host);
        }
    }
}

/// Whether somebody uses a host that a connection of this group does not share with; `mine`: it is one of the users.
fn others(users: &[(Group, usize)], group: Group, mine: bool) -> bool {
    users.iter().any(|(other, count)| match (*other == group, group) {
        (true, Some(_)) => false,
        (true, None) => *count > usize::from(mine),
        (false, _) => true,
    })
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        for host in &*self.list {
            table.leave(*host, self.group);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    proptest! {
        /// The model is the list of all connections with what they have.
        #[test]
        fn a_connection_is_told_of_just_the_hosts_it_must_keep_out_of(
            steps in prop::collection::vec((0usize..6, prop::option::of(0usize..2), prop::collection::btree_set(0u8..24, 0..4)), 0..40),
        ) {
            let in_use = HostsInUse::default();
            let mut held: HashMap<usize, Hosts> = HashMap::new();
            for (id, group, wanted) in steps {
                let wanted: Vec<IpAddr> = wanted.into_iter().map(host).collect();
                // A connection keeps its group.
                let (group, own) = held.get(&id).map_or((group, Vec::new()), |hosts| (hosts.group, hosts.list.to_vec()));
                let shares = |other: Group| other == group && group.is_some();
                let foreign = |host: &IpAddr| held.iter().any(|(other, hosts)| *other != id && !shares(hosts.group) && hosts.list.contains(host));
                let closed = in_use.closed_to(group, &own);
                for probe in (0u8..32).map(host) {
                    let told = closed.iter().filter(|prefix| prefix.contains(&probe)).count();
                    prop_assert_eq!(told, usize::from(foreign(&probe) && !own.contains(&probe)), "{}", probe);
                }
                let collides = wanted.iter().any(foreign);
                let claimed = in_use.claim(group, &own, &wanted, wanted.clone());
                prop_assert_eq!(claimed.is_err(), collides);
                match claimed {
                    Ok(hosts) => drop(held.insert(id, hosts)),
                    Err(_) => drop(held.remove(&id)),
                }
            }
            held.clear();
            prop_assert!(in_use.is_empty());
            prop_assert!(in_use.closed_to(None, &[]).is_empty());
        }
    }
}
