//! Counting what is in a namespace: to find our own, and to prove that nothing is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    Netns, NetnsId, Result,
    netns::{Lane, work},
    nft::Nft,
    rtnl::{Rtnl, link::LinkFacts, rule::RuleEntry},
};

/// An interface that carries a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkedLink {
    /// Its name.
    pub name: String,
    /// Its mark (link alias).
    pub alias: String,
    /// Its number.
    pub index: u32,
    /// Kind of device as the kernel names it (`veth`, `vxlan`, …), if it has one.
    pub kind: Option<String>,
}

/// The interfaces of a namespace whose mark begins with `prefix`.
///
/// # Errors
/// [`Error::NoPrivileges`](crate::Error::NoPrivileges) or [`Error::Kernel`](crate::Error::Kernel).
pub async fn links_with_mark(netns: &Netns, prefix: &str) -> Result<Vec<MarkedLink>> {
    let (netns, prefix) = (netns.clone(), prefix.to_owned());
    work(Lane::Quick, move |here| {
        here.enter(&netns)?;
        let links = Rtnl::open()?.links()?;
        let marked = |link: LinkFacts| {
            let alias = link.alias.filter(|alias| alias.starts_with(&prefix))?;
            Some(MarkedLink { name: link.name, alias, index: link.index, kind: link.kind })
        };
        Ok(links.into_iter().filter_map(marked).collect())
    })
    .await
}

/// One thing found in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Item {
    /// An interface.
    Link {
        /// Its name.
        name: String,
        /// Its mark, if it has one.
        alias: Option<String>,
    },
    /// An address of universe scope.
    Address {
        /// The interface that has it.
        link: String,
        /// The address.
        address: IpNet,
    },
    /// A route in any table.
    Route {
        /// The interface it leads through; empty for one that leads nowhere (unreachable, blackhole).
        link: String,
        /// The table's number (254 is main, 255 local).
        table: u32,
        /// Where it leads.
        prefix: IpNet,
        /// Over which next hop.
        via: Option<IpAddr>,
    },
    /// A policy routing rule.
    Rule {
        /// The rule in words.
        text: String,
    },
    /// A permanent neighbour entry.
    Neighbour {
        /// The interface.
        link: String,
        /// The neighbour's address.
        ip: IpAddr,
    },
    /// A table of nf_tables, of whatever family.
    PacketTable {
        /// Its name.
        name: String,
    },
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link { name, alias: Some(alias) } => write!(f, "interface {name} (marked {alias:?})"),
            Self::Link { name, alias: None } => write!(f, "interface {name}"),
            Self::Address { link, address } => write!(f, "address {address} on {link}"),
            Self::Route { link, table, prefix, via } => {
                write!(f, "route {prefix}")?;
                if let Some(via) = via {
                    write!(f, " via {via}")?;
                }
                write!(f, " through {}", if link.is_empty() { "nothing" } else { link })?;
                if *table == 254 { Ok(()) } else { write!(f, " in table {table}") }
            }
            Self::Rule { text } => write!(f, "rule {text}"),
            Self::Neighbour { link, ip } => write!(f, "permanent neighbour {ip} on {link}"),
            Self::PacketTable { name } => write!(f, "table {name} of nf_tables"),
        }
    }
}

/// Everything found in a namespace at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    /// The namespace.
    pub netns: NetnsId,
    /// What was found.
    pub items: BTreeSet<Item>,
}

/// What differs between two censuses; empty means that nothing is left and nothing is missing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CensusDiff {
    /// In the later one only.
    pub appeared: Vec<Item>,
    /// In the earlier one only.
    pub vanished: Vec<Item>,
}

impl Census {
    /// Counts interfaces, addresses, routes in all tables, rules, permanent neighbours and tables of nf_tables; not the
    /// kernel's own IPv6 link-local addresses and routes.
    ///
    /// # Errors
    /// As [`links_with_mark`].
    pub async fn take(netns: &Netns) -> Result<Self> {
        let netns = netns.clone();
        work(Lane::Quick, move |here| {
            here.enter(&netns)?;
            let items = items(&mut Rtnl::open()?)?;
            Ok(Self { netns: netns.id(), items })
        })
        .await
    }

    /// What changed from this census to a `later` one.
    pub fn diff(&self, later: &Self) -> CensusDiff {
        CensusDiff {
            appeared: later.items.difference(&self.items).cloned().collect(),
            vanished: self.items.difference(&later.items).cloned().collect(),
        }
    }
}

impl CensusDiff {
    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.appeared.is_empty() && self.vanished.is_empty()
    }
}

impl fmt::Display for CensusDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing is left and nothing is missing");
        }
        let left = self.appeared.iter().map(|item| format!("left behind: {item}"));
        let missing = self.vanished.iter().map(|item| format!("missing: {item}"));
        f.write_str(&left.chain(missing).collect::<Vec<_>>().join("\n"))
    }
}

fn items(rtnl: &mut Rtnl) -> Result<BTreeSet<Item>> {
    let mut items = BTreeSet::new();
    let mut names = BTreeMap::from([(0, String::new())]);
    for link in rtnl.links()? {
        names.insert(link.index, link.name.clone());
        items.insert(Item::Link { name: link.name, alias: link.alias });
    }
    // Lists are taken one after the other: a link may have come or gone between them.
    let name = |index: u32| names.get(&index).cloned().unwrap_or_else(|| format!("number {index}"));
    for (index, address) in rtnl.addresses(0)? {
        items.insert(Item::Address { link: name(index), address });
    }
    for route in rtnl.routes(0)? {
        let entry = route.entry;
        if is_link_scope(entry.prefix.addr()) {
            continue;
        }
        items.insert(Item::Route { link: name(route.index), table: entry.table, prefix: entry.prefix, via: entry.via });
    }
    items.extend(rtnl.rules(false)?.iter().map(|rule| Item::Rule { text: in_words(rule) }));
    for (index, neighbour) in rtnl.permanent_neighbours(0)? {
        items.insert(Item::Neighbour { link: name(index), ip: neighbour.ip });
    }
    // A kernel without nf_tables has none.
    let tables = Nft::open().and_then(|mut nft| nft.tables()).unwrap_or_default();
    items.extend(tables.into_iter().map(|name| Item::PacketTable { name }));
    Ok(items)
}

/// IPv6 link-local and multicast: the kernel makes these routes by itself some time after an interface comes up,
/// and removes them with it.
fn is_link_scope(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local() || ip.is_multicast())
}

fn in_words(rule: &RuleEntry) -> String {
    let family = if rule.v4 { "IPv4" } else { "IPv6" };
    let mut text = format!("{} {family}", rule.priority);
    if let Some(from) = rule.from {
        text += &format!(" from {from}");
    }
    if let Some(proto) = rule.proto {
        text += &format!(" protocol {proto}");
    }
    for (side, ports) in [("source", &rule.src_ports), ("destination", &rule.dst_ports)] {
        if let Some(ports) = ports {
            text += &format!(" {side} ports {}-{}", ports.start(), ports.end());
        }
    }
    text + &format!(" to table {}", rule.table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_in_words() {
        let netns = NetnsId { dev: 4, ino: 7 };
        let before = Census { netns, items: BTreeSet::new() };
        let mut after = before.clone();
        assert_eq!(before.diff(&after).to_string(), "nothing is left and nothing is missing");
        after.items.insert(Item::Link { name: "nsm-1".into(), alias: Some("nsm:42".into()) });
        after.items.insert(Item::Route {
            link: "nsm-1".into(),
            table: 78_000,
            prefix: "10.0.0.0/8".parse().unwrap(),
            via: Some("10.0.0.1".parse().unwrap()),
        });
        assert_eq!(
            before.diff(&after).to_string(),
            "left behind: interface nsm-1 (marked \"nsm:42\")\n\
             left behind: route 10.0.0.0/8 via 10.0.0.1 through nsm-1 in table 78000"
        );
        assert_eq!(after.diff(&before).vanished.len(), 2);
    }
}
