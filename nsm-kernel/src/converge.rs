//! Bringing an interface from one state into another, on a worker thread.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::{
    Changes, Error, InterfaceName, InterfaceSpec, Netns, Result, nat,
    netns::Here,
    plan::Plan,
    policy::Tables,
    rtnl::{
        Rtnl,
        link::{self, LinkFacts},
        redirect,
        rule::RuleEntry,
    },
    sysctl,
};

/// As [`delete_link`](crate::delete_link); with an index, only the interface of that number: one that was made anew under the same
/// name and mark meanwhile is another.
pub(crate) fn delete_in(
    here: &mut Here,
    netns: &Netns,
    name: &InterfaceName,
    alias: &str,
    index: Option<u32>,
) -> Result<bool> {
    here.enter(netns)?;
    let mut rtnl = Rtnl::open()?;
    let found = rtnl.link(name)?;
    let ours = match found {
        Some(facts) if facts.alias.as_deref() == Some(alias) && index.is_none_or(|index| index == facts.index) => {
            Some(facts.index)
        }
        Some(_) => return Ok(false),
        None => None,
    };
    // Rules outlive their interface, so they are removed even if it went with its peer.
    {
        let tables = &mut *netns.tables();
        tables.load(&mut rtnl)?;
        let rules = tables.rules_of(name).into_iter().chain(tables.dangling());
        rtnl.apply(rules.map(|rule| rule.remove()).collect())?;
        tables.keep(name, &BTreeSet::new());
        tables.forget_dangling();
    }
    nat::remove(name)?;
    // Without the lock on the tables: others may work in this namespace while this one waits.
    rtnl.apply(ours.map(link::delete).into_iter().collect())?;
    Ok(ours.is_some())
}

/// Gives a new interface its mark and everything `spec` says beyond what it was created with.
pub(crate) fn configure_new(
    here: &mut Here,
    rtnl: &mut Rtnl,
    netns: &Netns,
    spec: &InterfaceSpec,
    facts: &LinkFacts,
) -> Result<()> {
    if let Some(other) = &spec.joined_to {
        let Some(other) = rtnl.link(other)? else {
            // It comes up when there is another side.
            return rtnl.apply(vec![link::set_alias(facts.index, &spec.alias)]);
        };
        join(here, rtnl, netns, spec, (facts.index, other.index))?;
    } else if let Some(vlan) = &spec.vlan {
        here.enter(netns)?;
        vlan.put(rtnl, netns, spec, facts.index)?;
    } else {
        netns.allow_ping(here)?;
    }
    if has_ipv6(spec) {
        here.enter(netns)?;
        sysctl::enable_ipv6(spec.name.as_str())?;
    }
    let alias = Some(spec.alias.clone());
    let created = Plan { mtu: spec.mtu, mac: spec.mac, alias, ..Plan::default() };
    let wanted = if spec.policies.is_empty() {
        Plan::of(spec, |_| Ok(None))?
    } else {
        let tables = &mut *netns.tables();
        tables.load(rtnl)?;
        Plan::of(spec, |rules| tables.find_or_take(netns.id(), &spec.name, rules).map(Some))?
    };
    let mut requests = vec![link::mark_and_up(facts.index, &spec.alias)];
    requests.extend(created.requests_to(&wanted, facts.index));
    rtnl.apply(requests)?;
    await_ipv6(rtnl, wanted.addresses.iter())?;
    if spec.nat.is_some() {
        here.enter(netns)?;
        nat::program(spec)?;
    }
    Ok(())
}

/// Has all that comes in through one side of a relay go out of the other; says how many changes that took.
fn join(
    here: &mut Here,
    rtnl: &mut Rtnl,
    netns: &Netns,
    spec: &InterfaceSpec,
    (side, other): (u32, u32),
) -> Result<usize> {
    here.enter(netns)?;
    sysctl::disable_ipv6(spec.name.as_str())?;
    let found = rtnl.redirected(side)?;
    if found == Some(other) {
        return Ok(0);
    }
    let before = rtnl.writes();
    rtnl.apply(found.map(|_| redirect::remove(side)).into_iter().chain(redirect::put(side, other)).collect())?;
    Ok(rtnl.writes() - before)
}

/// Waits until packets for new IPv6 addresses are delivered: the kernel makes an address's local route on a
/// work queue, some 50 µs after it acknowledged the address. (Duplicate address detection is off, there is
/// nothing else to wait for.)
fn await_ipv6<'a>(rtnl: &mut Rtnl, new: impl Iterator<Item = &'a IpNet>) -> Result<()> {
    let new = new.filter(|address| address.addr().is_ipv6());
    let mut patience = link::PATIENCE;
    for address in new {
        while !rtnl.is_local(address.addr())? {
            if patience == 0 {
                tracing::warn!(%address, "the kernel accepted an address but does not use it yet");
                return Ok(());
            }
            patience -= 1;
            std::thread::sleep(link::PAUSE);
        }
    }
    Ok(())
}

/// Takes back the rules and tables of a new interface whose making failed.
pub(crate) fn forget_rules(rtnl: &mut Rtnl, netns: &Netns, name: &InterfaceName) {
    let tables = &mut *netns.tables();
    let rules = tables.rules_of(name);
    if let Err(error) = rtnl.apply(rules.iter().map(|rule| rule.remove()).collect()) {
        tracing::warn!(%error, interface = %name, "could not remove the rules of an interface that failed");
    }
    tables.keep(name, &BTreeSet::new());
}

/// Takes back the NAT rules of a new interface whose making failed.
pub(crate) fn forget_nat(here: &mut Here, netns: &Netns, spec: &InterfaceSpec) {
    if spec.nat.is_some()
        && let Err(error) = here.enter(netns).and_then(|()| nat::remove(&spec.name))
    {
        tracing::warn!(%error, interface = %spec.name, "could not remove the NAT rules of an interface that failed");
    }
}

/// Reads the actual state and turns it into what `spec` says.
pub(crate) fn reconcile_in(here: &mut Here, netns: &Netns, spec: &InterfaceSpec) -> Result<(LinkFacts, Changes)> {
    here.enter(netns)?;
    let mut rtnl = Rtnl::open()?;
    let facts = marked_link(&mut rtnl, netns, &spec.name, &spec.alias)?;
    let mut writes = 0;
    if let Some(other) = &spec.joined_to {
        let gone = || Error::LinkNotFound { name: other.to_string(), netns: netns.id() };
        let other = rtnl.link(other)?.ok_or_else(gone)?;
        writes += join(here, &mut rtnl, netns, spec, (facts.index, other.index))?;
    } else if let Some(vlan) = &spec.vlan {
        writes += vlan.put(&mut rtnl, netns, spec, facts.index)?;
    } else {
        netns.allow_ping(here)?;
        here.enter(netns)?;
    }
    let tables = &mut *netns.tables();
    tables.load(&mut rtnl)?;
    // Of the rules that are remembered, those that are still there.
    let mut rules = tables.rules_of(&spec.name);
    if !rules.is_empty() {
        let there = rtnl.rules(true)?;
        rules.retain(|rule| there.contains(rule));
    }
    let actual = actual(&mut rtnl, &facts, rules)?;
    if !facts.up {
        rtnl.apply(vec![link::set_up(facts.index)])?;
        writes += 1;
    }
    let translated = nat::Tables::read(Some(&spec.name))?.show(spec);
    let mut changes = converge(&mut rtnl, netns, tables, spec, &facts, &actual, !translated)?;
    changes.writes += writes;
    Ok((facts, changes))
}

/// Turns `old` into what `spec` says, the NAT rules only if `translate` says so; back again if that fails.
pub(crate) fn converge(
    rtnl: &mut Rtnl,
    netns: &Netns,
    tables: &mut Tables,
    spec: &InterfaceSpec,
    facts: &LinkFacts,
    old: &Plan,
    translate: bool,
) -> Result<Changes> {
    let name = &spec.name;
    if has_ipv6(spec) {
        sysctl::enable_ipv6(name.as_str())?;
    }
    let before = rtnl.writes();
    let wanted = Plan::of(spec, |rules| tables.find_or_take(netns.id(), name, rules).map(Some));
    let outcome = wanted.and_then(|wanted| {
        let changed = rtnl
            .apply(old.requests_to(&wanted, facts.index))
            .and_then(|()| await_ipv6(rtnl, wanted.addresses.difference(&old.addresses)))
            // Last, because it is all or nothing.
            .and_then(|()| if translate { nat::program(spec) } else { Ok(()) });
        match changed {
            Ok(()) => Ok(wanted),
            Err(error) => {
                if let Err(stuck) = rtnl.apply(wanted.requests_to(old, facts.index)) {
                    tracing::warn!(error = %stuck, interface = %name, "could not restore an interface after a failed change");
                }
                Err(error)
            }
        }
    });
    match outcome {
        Ok(wanted) => {
            tables.keep(name, &wanted.tables());
            Ok(Changes { writes: rtnl.writes() - before + usize::from(translate) })
        }
        Err(error) => {
            tables.keep(name, &old.tables());
            Err(error)
        }
    }
}

/// The interface's state as the kernel has it.
fn actual(rtnl: &mut Rtnl, facts: &LinkFacts, rules: Vec<RuleEntry>) -> Result<Plan> {
    let found = Plan::found(rtnl, facts.index)?.remove(&facts.index).unwrap_or_default();
    Ok(Plan { mtu: Some(facts.mtu), mac: facts.mac, alias: facts.alias.clone(), rules, ..found })
}

/// The interface, if it is there and carries the mark.
pub(crate) fn marked_link(rtnl: &mut Rtnl, netns: &Netns, name: &InterfaceName, alias: &str) -> Result<LinkFacts> {
    match rtnl.link(name)? {
        Some(facts) if facts.alias.as_deref() == Some(alias) => Ok(facts),
        Some(facts) => Err(Error::NameTaken { name: name.to_string(), netns: netns.id(), alias: facts.alias }),
        None => Err(Error::LinkNotFound { name: name.to_string(), netns: netns.id() }),
    }
}

fn has_ipv6(spec: &InterfaceSpec) -> bool {
    spec.addresses.iter().any(|address| address.addr().is_ipv6())
}
