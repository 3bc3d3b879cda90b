//! What is in a namespace, read at once, to compare many interfaces with.

use std::collections::HashMap;

use crate::{
    InterfaceName, InterfaceSpec, MarkedLink, Netns, NetnsId, Result, VlanPort, nat,
    netns::{Lane, work},
    plan::Plan,
    rtnl::{Rtnl, link::LinkFacts, redirect, rule::RuleEntry},
    vlan,
};

/// The state of all interfaces of a namespace at one time.
///
/// It costs eight lists however many interfaces there are; comparing with it asks the kernel nothing.
#[derive(Debug)]
pub struct Snapshot {
    netns: Netns,
    /// By name.
    links: HashMap<String, LinkFacts>,
    /// By the number of their link.
    found: HashMap<u32, Plan>,
    rules: Vec<RuleEntry>,
    /// Sides of relays, and the number of the link that each is joined to.
    joined: HashMap<u32, u32>,
    /// Ports of hosts in VLANs, by the number of their link.
    vlans: HashMap<u32, VlanPort>,
    nat: nat::Tables,
}

impl Snapshot {
    /// Reads it.
    ///
    /// # Errors
    /// As [`links_with_mark`](crate::links_with_mark).
    pub async fn take(netns: &Netns) -> Result<Self> {
        Self::read(netns, None).await
    }

    /// Reads no more than what belongs to the interface of this name.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub async fn of(netns: &Netns, name: &InterfaceName) -> Result<Self> {
        Self::read(netns, Some(name.clone())).await
    }

    async fn read(netns: &Netns, only: Option<InterfaceName>) -> Result<Self> {
        let netns = netns.clone();
        work(Lane::Quick, move |here| {
            here.enter(&netns)?;
            let mut rtnl = Rtnl::open()?;
            netns.tables().load(&mut rtnl)?;
            let (links, index) = match &only {
                None => (rtnl.links()?, 0),
                Some(name) => match rtnl.link(name)? {
                    Some(link) => (vec![link.clone()], link.index),
                    None => {
                        return Ok(Self::empty(netns));
                    }
                },
            };
            let (found, rules) = (Plan::found(&mut rtnl, index)?, rtnl.rules(true)?);
            let joined = joined(&mut rtnl, links.iter().filter(|link| !found.contains_key(&link.index)))?;
            let vlans = vlans(&mut rtnl, links.iter().filter(|link| is_bare(found.get(&link.index))))?;
            let mut links: HashMap<_, _> = links.into_iter().map(|link| (link.name.clone(), link)).collect();
            for other in joined.values() {
                // Only one was asked for; the other side of its relay is told by its name.
                if only.is_some()
                    && let Some(link) = rtnl.link_at(*other)?
                {
                    links.insert(link.name.clone(), link);
                }
            }
            let nat = nat::Tables::read(only.as_ref())?;
            Ok(Self { netns, links, found, rules, joined, vlans, nat })
        })
        .await
    }

    fn empty(netns: Netns) -> Self {
        let (links, found) = (HashMap::new(), HashMap::new());
        let (joined, vlans) = (HashMap::new(), HashMap::new());
        Self { netns, links, found, rules: Vec::new(), joined, vlans, nat: nat::Tables::default() }
    }

    /// Of which namespace it is.
    pub fn netns(&self) -> NetnsId {
        self.netns.id()
    }

    /// The interfaces whose mark begins with `prefix`.
    pub fn marked(&self, prefix: &str) -> impl Iterator<Item = MarkedLink> {
        self.links.values().filter_map(move |link| {
            let alias = link.alias.as_ref().filter(|alias| alias.starts_with(prefix))?;
            Some(MarkedLink {
                name: link.name.clone(),
                alias: alias.clone(),
                index: link.index,
                kind: link.kind.clone(),
            })
        })
    }

    /// Numbers of the VXLAN devices whose mark does not begin with `prefix`.
    pub fn foreign_vnis(&self, prefix: &str) -> impl Iterator<Item = u32> {
        let is_ours = move |link: &LinkFacts| link.alias.as_ref().is_some_and(|alias| alias.starts_with(prefix));
        self.links.values().filter(move |link| !is_ours(link)).filter_map(|link| Some(link.vxlan?.0))
    }

    /// Whether the interface that `spec` names is there with its mark, up, and has all that `spec` says, with no other
    /// limit of its rate and no other NAT rules. What it has beyond that does not count, nor do neighbours that may age.
    pub fn shows(&self, spec: &InterfaceSpec) -> bool {
        let named = self.links.get(spec.name.as_str());
        let Some(link) = named.filter(|link| link.shows(spec)) else {
            return false;
        };
        if let Some(other) = &spec.joined_to {
            let other = self.links.get(other.as_str()).map(|link| link.index);
            if other.is_none() || self.joined.get(&link.index).copied() != other {
                return false;
            }
        }
        if spec.vlan.is_some() && self.vlans.get(&link.index) != spec.vlan.as_ref() {
            return false;
        }
        let nothing = Plan::default();
        let found = self.found.get(&link.index).unwrap_or(&nothing);
        let mut complete = true;
        let tables = self.netns.tables();
        let wanted = Plan::of(spec, |rules| {
            let table = tables.find(&spec.name, rules);
            complete &= table.is_some();
            Ok(table)
        });
        drop(tables);
        let Ok(wanted) = wanted else { return false };
        complete
            && wanted.addresses.is_subset(&found.addresses)
            && wanted.routes.is_subset(&found.routes)
            && wanted.rules.iter().all(|rule| self.rules.contains(rule))
            && self.nat.show(spec)
            && wanted.shaping == found.shaping
            && wanted.neighbours.values().all(|n| !n.permanent || found.neighbours.get(&n.ip) == Some(n))
    }
}

/// Which of these links are sides of a relay, and what they are joined to. Only devices of tunnels are asked, that have a
/// mark and nothing else.
fn joined<'a>(rtnl: &mut Rtnl, bare: impl Iterator<Item = &'a LinkFacts>) -> Result<HashMap<u32, u32>> {
    let mut joined = HashMap::new();
    for link in bare.filter(|link| link.alias.is_some() && matches!(link.kind.as_deref(), Some("vxlan" | "tun"))) {
        let other = rtnl.redirected(link.index)?.filter(|other| *other != redirect::GONE);
        joined.extend(other.map(|other| (link.index, other)));
    }
    Ok(joined)
}

/// Whether it has no addresses: nobody uses it.
fn is_bare(found: Option<&Plan>) -> bool {
    found.is_none_or(|found| found.addresses.is_empty())
}

/// Which of these links are ports of hosts in VLANs, and of which.
fn vlans<'a>(rtnl: &mut Rtnl, bare: impl Iterator<Item = &'a LinkFacts>) -> Result<HashMap<u32, VlanPort>> {
    let mut ports = HashMap::new();
    for link in bare.filter(|link| link.alias.is_some() && matches!(link.kind.as_deref(), Some("veth" | "vxlan"))) {
        ports.extend(vlan::found(rtnl, link.index, &link.name)?.map(|port| (link.index, port)));
    }
    Ok(ports)
}
