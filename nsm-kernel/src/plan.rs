//! The difference between two states of an interface, as requests.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    InterfaceSpec, Neighbour, Result, Route, policy,
    rate::Shaping,
    rtnl::{
        Request, Rtnl, address, link, neighbour, qdisc,
        route::{MAIN, PROTOCOL, RouteEntry},
        rule::RuleEntry,
    },
};

/// State of an interface in the kernel's terms: sets, so that order and repetition do not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) mtu: Option<u32>,
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) alias: Option<String>,
    pub(crate) addresses: BTreeSet<IpNet>,
    pub(crate) routes: BTreeSet<RouteEntry>,
    pub(crate) rules: Vec<RuleEntry>,
    pub(crate) neighbours: BTreeMap<IpAddr, Neighbour>,
    pub(crate) shaping: Option<Shaping>,
}

impl Plan {
    /// What `spec` asks for; `table` chooses the table for a policy's rules (`None`: leave that policy out).
    pub(crate) fn of(spec: &InterfaceSpec, mut table: impl FnMut(&[RuleEntry]) -> Result<Option<u32>>) -> Result<Self> {
        let mut plan = Self {
            mtu: spec.mtu,
            mac: spec.mac,
            alias: Some(spec.alias.clone()),
            addresses: spec.addresses.iter().copied().collect(),
            routes: spec.routes.iter().map(|route| entry(MAIN, route)).collect(),
            rules: Vec::new(),
            neighbours: spec.neighbours.iter().map(|n| (n.ip, n.clone())).collect(),
            shaping: spec.rate.map(|rate| Shaping::of(rate, spec.mtu)),
        };
        for (position, policy) in spec.policies.iter().enumerate() {
            let rules = policy::rules(spec, position, policy);
            let Some(table) = table(&rules)? else {
                continue;
            };
            if policy.routes.is_empty() {
                plan.routes.extend(rules.iter().map(|rule| RouteEntry {
                    table,
                    prefix: everything(rule.v4),
                    via: None,
                }));
            }
            plan.routes.extend(policy.routes.iter().map(|route| entry(table, route)));
            plan.rules.extend(rules.into_iter().map(|rule| RuleEntry { table, ..rule }));
        }
        Ok(plan)
    }

    /// What the kernel has for the interface of this number, or for all (0), by their numbers: addresses, our routes, permanent
    /// neighbours and our limit. One that has nothing is left out.
    pub(crate) fn found(rtnl: &mut Rtnl, index: u32) -> Result<HashMap<u32, Self>> {
        let mut found: HashMap<u32, Self> = HashMap::new();
        for (link, address) in rtnl.addresses(index)? {
            found.entry(link).or_default().addresses.insert(address);
        }
        for route in rtnl.routes(index)?.into_iter().filter(|route| route.protocol == PROTOCOL) {
            found.entry(route.index).or_default().routes.insert(route.entry);
        }
        for (link, neighbour) in rtnl.permanent_neighbours(index)? {
            found.entry(link).or_default().neighbours.insert(neighbour.ip, neighbour);
        }
        for limit in rtnl.limits()?.into_iter().filter(|limit| index == 0 || limit.index == index) {
            found.entry(limit.index).or_default().shaping = Some(limit.shaping);
        }
        Ok(found)
    }

    /// The tables its rules lead to.
    pub(crate) fn tables(&self) -> BTreeSet<u32> {
        self.rules.iter().map(|rule| rule.table).collect()
    }

    /// Requests that turn an interface in state `self` into one in state `wanted`; none if they are equal.
    ///
    /// Order: the new address comes before the old one goes, since with its last address an interface loses
    /// routes and neighbours. An IPv4 address that goes may take others of its subnet with it (secondary
    /// addresses), and with the last of them the rest: then all IPv4 state is asserted again.
    pub(crate) fn requests_to(&self, wanted: &Self, index: u32) -> Vec<Request> {
        let mut requests = Vec::new();
        if wanted.alias.is_some() && wanted.alias != self.alias {
            requests.extend(wanted.alias.as_deref().map(|alias| link::set_alias(index, alias)));
        }
        if wanted.mtu != self.mtu {
            requests.extend(wanted.mtu.map(|mtu| link::set_mtu(index, mtu)));
        }
        if wanted.mac != self.mac {
            requests.extend(wanted.mac.map(|mac| link::set_mac(index, mac)));
        }
        let stale_rules = self.rules.iter().filter(|rule| !wanted.rules.contains(rule));
        requests.extend(stale_rules.map(RuleEntry::remove));
        requests.extend(self.routes.difference(&wanted.routes).map(|route| route.remove(index)));
        let stale_neighbours = self.neighbours.keys().filter(|ip| !wanted.neighbours.contains_key(ip));
        requests.extend(stale_neighbours.map(|ip| neighbour::remove(index, *ip)));

        let new_addresses = wanted.addresses.difference(&self.addresses);
        requests.extend(new_addresses.map(|address| address::put(index, *address)));
        let stale_addresses: Vec<_> = self.addresses.difference(&wanted.addresses).collect();
        requests.extend(stale_addresses.iter().map(|address| address::remove(index, **address)));
        let shaken = stale_addresses.iter().any(|address| address.addr().is_ipv4());
        if shaken {
            let v4 = wanted.addresses.iter().filter(|address| address.addr().is_ipv4());
            requests.extend(v4.map(|address| address::put(index, *address)));
        }

        // On-link destinations first: they may be the next hops of the others.
        let missing = |route: &&RouteEntry| !self.routes.contains(*route) || (shaken && route.prefix.addr().is_ipv4());
        let (direct, routed): (Vec<_>, Vec<_>) =
            wanted.routes.iter().filter(missing).partition(|route| route.via.is_none());
        requests.extend(direct.into_iter().chain(routed).map(|route| route.add(index)));
        let new_rules = wanted.rules.iter().filter(|rule| !self.rules.contains(rule));
        requests.extend(new_rules.map(RuleEntry::add));
        // Neighbour entries are also flushed when the own hardware address changes.
        let flushed = shaken || (wanted.mac.is_some() && wanted.mac != self.mac);
        let missing_neighbours =
            wanted.neighbours.values().filter(|n| flushed || self.neighbours.get(&n.ip) != Some(n));
        requests.extend(missing_neighbours.map(|n| neighbour::put(index, n)));
        if wanted.shaping != self.shaping {
            requests.push(wanted.shaping.map_or_else(|| qdisc::remove(index), |shaping| qdisc::put(index, shaping)));
        }
        requests
    }
}

fn entry(table: u32, route: &Route) -> RouteEntry {
    RouteEntry { table, prefix: route.prefix.trunc(), via: route.via }
}

fn everything(v4: bool) -> IpNet {
    if v4 { Ipv4Net::default().into() } else { Ipv6Net::default().into() }
}
