//! Which policy routing tables of a namespace are in use, and by which interface.
//!
//! Read from the kernel once for each namespace (after a restart the rules of an earlier life are there, known
//! by their protocol number), kept in memory from then on: choosing a table lists nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use crate::{
    Error, InterfaceName, InterfaceSpec, NetnsId, Policy, Result,
    rtnl::{Rtnl, rule::RuleEntry},
};

/// Table numbers set aside for policies, in each namespace.
const TABLES: RangeInclusive<u32> = 78_000..=82_095;
/// Priority of the rule of an interface's first policy; later ones come before it. The rules of the main and
/// default tables stand at 32766 and 32767.
const FIRST_PRIORITY: u32 = 32_000;

/// The tables of one namespace.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    read_from_kernel: bool,
    used: BTreeMap<u32, Used>,
}

#[derive(Debug)]
struct Used {
    /// `None`: of an earlier life, with no route left in it.
    interface: Option<InterfaceName>,
    rules: Vec<RuleEntry>,
}

impl Tables {
    /// Learns, the first time, what an earlier life left. `rtnl` is a socket in the namespace.
    pub(crate) fn load(&mut self, rtnl: &mut Rtnl) -> Result<()> {
        if self.read_from_kernel {
            return Ok(());
        }
        for rule in rtnl.rules(true)? {
            if TABLES.contains(&rule.table) {
                let used = Used { interface: None, rules: Vec::new() };
                self.used.entry(rule.table).or_insert(used).rules.push(rule);
            }
        }
        if !self.used.is_empty() {
            let links = rtnl.links()?;
            for route in rtnl.routes(0)? {
                if let Some(used) = self.used.get_mut(&route.entry.table) {
                    let link = links.iter().find(|link| link.index == route.index);
                    used.interface = link.and_then(|link| link.name.parse().ok());
                }
            }
        }
        self.read_from_kernel = true;
        Ok(())
    }

    /// The table that holds exactly these rules (compared without their table) for `interface`.
    pub(crate) fn find(&self, interface: &InterfaceName, rules: &[RuleEntry]) -> Option<u32> {
        self.used.iter().find_map(|(table, used)| {
            let same = used.interface.as_ref() == Some(interface)
                && used.rules.len() == rules.len()
                && rules.iter().all(|rule| used.rules.contains(&in_table(rule, *table)));
            same.then_some(*table)
        })
    }

    /// As [`find`](Self::find); takes the lowest free table if there is none yet.
    pub(crate) fn find_or_take(
        &mut self,
        netns: NetnsId,
        interface: &InterfaceName,
        rules: &[RuleEntry],
    ) -> Result<u32> {
        if let Some(table) = self.find(interface, rules) {
            return Ok(table);
        }
        let table = TABLES
            .clone()
            .find(|table| !self.used.contains_key(table))
            .ok_or(Error::TablesExhausted { netns, in_use: self.used.len() })?;
        let rules = rules.iter().map(|rule| in_table(rule, table)).collect();
        self.used.insert(table, Used { interface: Some(interface.clone()), rules });
        Ok(table)
    }

    /// All rules of an interface.
    pub(crate) fn rules_of(&self, interface: &InterfaceName) -> Vec<RuleEntry> {
        self.owned_by(Some(interface))
    }

    /// Rules of an earlier life that lead nowhere: their interface is gone.
    pub(crate) fn dangling(&self) -> Vec<RuleEntry> {
        self.owned_by(None)
    }

    fn owned_by(&self, interface: Option<&InterfaceName>) -> Vec<RuleEntry> {
        let owned = self.used.values().filter(|used| used.interface.as_ref() == interface);
        owned.flat_map(|used| used.rules.iter().cloned()).collect()
    }

    /// Gives back the interface's tables other than `kept`.
    pub(crate) fn keep(&mut self, interface: &InterfaceName, kept: &BTreeSet<u32>) {
        self.used.retain(|table, used| used.interface.as_ref() != Some(interface) || kept.contains(table));
    }

    /// Forgets what [`dangling`](Self::dangling) told, once it is removed.
    pub(crate) fn forget_dangling(&mut self) {
        self.used.retain(|_, used| used.interface.is_some());
    }
}

fn in_table(rule: &RuleEntry, table: u32) -> RuleEntry {
    RuleEntry { table, ..rule.clone() }
}

/// The rules that select a policy's traffic, still without a table: one for each address family it concerns.
///
/// The families are those of its source or its routes; a policy that names neither concerns the families the
/// interface has addresses of.
pub(crate) fn rules(spec: &InterfaceSpec, position: usize, policy: &Policy) -> Vec<RuleEntry> {
    let from = policy.from.map(|from| from.trunc());
    let families: BTreeSet<bool> = if let Some(from) = from {
        BTreeSet::from([from.addr().is_ipv4()])
    } else if policy.routes.is_empty() {
        spec.addresses.iter().map(|address| address.addr().is_ipv4()).collect()
    } else {
        policy.routes.iter().map(|route| route.prefix.addr().is_ipv4()).collect()
    };
    let position = u32::try_from(position).unwrap_or(u32::MAX);
    let rule = |v4| RuleEntry {
        v4,
        priority: FIRST_PRIORITY.saturating_sub(position).max(1),
        from,
        proto: policy.proto,
        dst_ports: policy.dst_ports.clone(),
        src_ports: policy.src_ports.clone(),
        table: 0,
    };
    families.into_iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NETNS: NetnsId = NetnsId { dev: 1, ino: 1 };

    fn name(n: u8) -> InterfaceName {
        format!("nsm-{n}").parse().unwrap()
    }

    fn rule(port: u16) -> Vec<RuleEntry> {
        let ports = Some(port..=port);
        vec![RuleEntry {
            v4: true,
            priority: 1,
            from: None,
            proto: Some(17),
            dst_ports: ports,
            src_ports: None,
            table: 0,
        }]
    }

    #[test]
    fn when_all_tables_are_taken_the_next_is_an_error_and_one_given_back_is_used_again() {
        let mut tables = Tables::default();
        for n in 0..TABLES.count() {
            tables.find_or_take(NETNS, &name((n % 2) as u8), &rule(n as u16)).unwrap();
        }
        let full = tables.find_or_take(NETNS, &name(0), &rule(u16::MAX)).unwrap_err();
        assert!(matches!(full, Error::TablesExhausted { in_use: 4096, .. }), "{full}");
        tables.keep(&name(1), &BTreeSet::new());
        assert_eq!(tables.find_or_take(NETNS, &name(0), &rule(u16::MAX)).unwrap(), 78_001);
    }

    proptest! {
        /// Against a model: the set of (interface, rule) pairs that hold a table.
        #[test]
        fn no_table_serves_two_and_none_is_lost(steps in prop::collection::vec((0u8..4, 1u16..6, any::<bool>()), 1..60)) {
            let mut tables = Tables::default();
            let mut model: BTreeMap<(u8, u16), u32> = BTreeMap::new();
            for (interface, port, take) in steps {
                if take {
                    let table = tables.find_or_take(NETNS, &name(interface), &rule(port)).unwrap();
                    let before = model.insert((interface, port), table);
                    prop_assert!(before.is_none_or(|before| before == table));
                } else {
                    tables.keep(&name(interface), &BTreeSet::new());
                    model.retain(|(owner, _), _| *owner != interface);
                }
                let distinct: BTreeSet<_> = model.values().collect();
                prop_assert_eq!(distinct.len(), model.len());
                prop_assert_eq!(tables.used.len(), model.len());
                for ((interface, port), table) in &model {
                    prop_assert_eq!(tables.find(&name(*interface), &rule(*port)), Some(*table));
                }
            }
        }
    }
}
