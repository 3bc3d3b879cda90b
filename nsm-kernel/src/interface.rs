//! An interface we made, and what can be done with it later.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::{
    Error, InterfaceName, InterfaceSpec, Netns, Result,
    netns::{Here, Lane, work},
    plan::Plan,
    rtnl::{
        Rtnl,
        link::{self, LinkFacts},
        route::PROTOCOL,
    },
    sysctl,
};

/// What a change cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes {
    /// Changes asked of the kernel over netlink; 0 means that nothing was touched.
    pub writes: usize,
}

/// An interface of ours: where it is and the state it was last given.
///
/// A plain description, not a guard: dropping it leaves the interface in place (a forwarder may restart
/// without cutting its wires). Remove it with [`delete`](Self::delete), or find it again after a restart with
/// [`adopt`](Self::adopt).
#[derive(Debug, Clone)]
pub struct Interface {
    netns: Netns,
    spec: InterfaceSpec,
    index: u32,
    mac: [u8; 6],
}

impl Interface {
    pub(crate) fn made(netns: &Netns, spec: InterfaceSpec, facts: &LinkFacts) -> Self {
        let mac = facts.mac.unwrap_or_default();
        Self {
            netns: netns.clone(),
            spec,
            index: facts.index,
            mac,
        }
    }

    /// Finds the interface `spec` names, if it is there with the mark of `spec`, and turns it into what `spec`
    /// says; `None` if there is no such interface of ours.
    ///
    /// # Errors
    /// As [`reconcile`].
    pub async fn adopt(netns: &Netns, spec: &InterfaceSpec) -> Result<Option<Self>> {
        spec.validate()?;
        let (netns, spec) = (netns.clone(), spec.clone());
        work(Lane::Quick, move |here| {
            match reconcile_in(here, &netns, &spec) {
                Ok((facts, _)) => Ok(Some(Self::made(&netns, spec, &facts))),
                Err(Error::LinkNotFound { .. } | Error::NameTaken { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Where the interface is.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The state it was last given.
    pub fn spec(&self) -> &InterfaceSpec {
        &self.spec
    }

    /// Its number in its namespace.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its hardware address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Changes the interface to what `spec` says. If nothing changes, the kernel is not even asked.
    ///
    /// # Errors
    /// As [`apply`]; the interface keeps (or gets back) its former state.
    pub async fn update(&mut self, spec: &InterfaceSpec) -> Result<Changes> {
        let changes = apply(&self.netns, spec, Some(&self.spec)).await?;
        self.mac = spec.mac.unwrap_or(self.mac);
        self.spec.clone_from(spec);
        Ok(changes)
    }

    /// Removes the interface and its rules. `Ok(false)` if it was gone already.
    ///
    /// # Errors
    /// As [`delete_link`].
    pub async fn delete(&self) -> Result<bool> {
        delete_link(&self.netns, self.spec.name.as_str(), &self.spec.alias).await
    }
}

/// Changes the interface `spec.name` from `previous` to `spec`: only differences are written, and if there are
/// none nothing is read either. Without `previous` it is [`reconcile`].
///
/// # Errors
/// [`Error::InvalidSpec`], also when the names differ; [`Error::LinkNotFound`] if the interface is gone;
/// [`Error::NameTaken`] if another one (without the mark of `previous`) has its name; what the kernel refuses.
/// After a failure what was changed is changed back as far as possible.
pub async fn apply(
    netns: &Netns,
    spec: &InterfaceSpec,
    previous: Option<&InterfaceSpec>,
) -> Result<Changes> {
    let Some(previous) = previous else {
        return reconcile(netns, spec).await;
    };
    if spec == previous {
        return Ok(Changes::default());
    }
    spec.validate()?;
    if spec.name != previous.name {
        return Err(Error::InvalidSpec {
            interface: previous.name.to_string(),
            reason: format!(
                "cannot be renamed to {} while in use: delete and create it",
                spec.name
            ),
        });
    }
    let (netns, spec, previous) = (netns.clone(), spec.clone(), previous.clone());
    work(Lane::Quick, move |here| {
        here.enter(&netns)?;
        let mut rtnl = Rtnl::open()?;
        let facts = marked_link(&mut rtnl, &netns, &spec.name, &previous.alias)?;
        let tables = &mut *netns.tables();
        tables.load(&mut rtnl)?;
        let old = Plan::of(&previous, |rules| Ok(tables.find(&spec.name, rules)))?;
        converge(&mut rtnl, &netns, tables, &spec, &facts, &old)
    })
    .await
}

/// Reads the interface's actual state and turns it into what `spec` says: for adopting what an earlier life
/// of this process left. Addresses and permanent neighbours that `spec` does not name are removed; of routes
/// and rules only those made here.
///
/// # Errors
/// As [`apply`].
pub async fn reconcile(netns: &Netns, spec: &InterfaceSpec) -> Result<Changes> {
    spec.validate()?;
    let (netns, spec) = (netns.clone(), spec.clone());
    work(Lane::Quick, move |here| {
        reconcile_in(here, &netns, &spec).map(|(_, changes)| changes)
    })
    .await
}

/// Removes the interface `name` and the policy rules that belong to it, if it carries the mark `alias`.
/// `Ok(false)`: no such interface of ours is there; one without the mark is left alone.
///
/// # Errors
/// What the kernel refuses.
pub async fn delete_link(netns: &Netns, name: &str, alias: &str) -> Result<bool> {
    let name: InterfaceName = name.parse()?;
    let (netns, alias) = (netns.clone(), alias.to_owned());
    work(Lane::Slow, move |here| {
        delete_in(here, &netns, &name, &alias)
    })
    .await
}

pub(crate) fn delete_in(
    here: &mut Here,
    netns: &Netns,
    name: &InterfaceName,
    alias: &str,
) -> Result<bool> {
    here.enter(netns)?;
    let mut rtnl = Rtnl::open()?;
    let found = rtnl.link(name)?;
    let ours = match found {
        Some(facts) if facts.alias.as_deref() == Some(alias) => Some(facts.index),
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
    netns.allow_ping(here)?;
    if has_ipv6(spec) {
        here.enter(netns)?;
        sysctl::enable_ipv6(spec.name.as_str())?;
    }
    let alias = Some(spec.alias.clone());
    let created = Plan {
        mtu: spec.mtu,
        mac: spec.mac,
        alias,
        ..Plan::default()
    };
    let wanted = if spec.policies.is_empty() {
        Plan::of(spec, |_| Ok(None))?
    } else {
        let tables = &mut *netns.tables();
        tables.load(rtnl)?;
        Plan::of(spec, |rules| {
            tables.find_or_take(netns.id(), &spec.name, rules).map(Some)
        })?
    };
    let mut requests = vec![link::mark_and_up(facts.index, &spec.alias)];
    requests.extend(created.requests_to(&wanted, facts.index));
    rtnl.apply(requests)?;
    await_ipv6(rtnl, wanted.addresses.iter())
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

fn reconcile_in(
    here: &mut Here,
    netns: &Netns,
    spec: &InterfaceSpec,
) -> Result<(LinkFacts, Changes)> {
    here.enter(netns)?;
    let mut rtnl = Rtnl::open()?;
    let facts = marked_link(&mut rtnl, netns, &spec.name, &spec.alias)?;
    netns.allow_ping(here)?;
    let tables = &mut *netns.tables();
    tables.load(&mut rtnl)?;
    let actual = actual(&mut rtnl, &facts, tables.rules_of(&spec.name))?;
    let mut writes = 0;
    if !facts.up {
        rtnl.apply(vec![link::set_up(facts.index)])?;
        writes += 1;
    }
    let mut changes = converge(&mut rtnl, netns, tables, spec, &facts, &actual)?;
    changes.writes += writes;
    Ok((facts, changes))
}

/// Turns `old` into what `spec` says; back again if that fails.
fn converge(
    rtnl: &mut Rtnl,
    netns: &Netns,
    tables: &mut crate::policy::Tables,
    spec: &InterfaceSpec,
    facts: &LinkFacts,
    old: &Plan,
) -> Result<Changes> {
    let name = &spec.name;
    if has_ipv6(spec) {
        sysctl::enable_ipv6(name.as_str())?;
    }
    let before = rtnl.writes();
    let wanted = Plan::of(spec, |rules| {
        tables.find_or_take(netns.id(), name, rules).map(Some)
    });
    let outcome = wanted.and_then(|wanted| {
        match rtnl.apply(old.requests_to(&wanted, facts.index)) {
            Ok(()) => {
                await_ipv6(rtnl, wanted.addresses.difference(&old.addresses)).map(|()| wanted)
            }
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
            Ok(Changes {
                writes: rtnl.writes() - before,
            })
        }
        Err(error) => {
            tables.keep(name, &old.tables());
            Err(error)
        }
    }
}

/// The interface's state as the kernel has it.
fn actual(
    rtnl: &mut Rtnl,
    facts: &LinkFacts,
    rules: Vec<crate::rtnl::rule::RuleEntry>,
) -> Result<Plan> {
    let routes = rtnl.routes()?.into_iter();
    let neighbours = rtnl.permanent_neighbours()?.into_iter();
    Ok(Plan {
        mtu: Some(facts.mtu),
        mac: facts.mac,
        alias: facts.alias.clone(),
        addresses: rtnl
            .addresses(facts.index)?
            .into_iter()
            .map(|(_, address)| address)
            .collect(),
        routes: routes
            .filter(|route| route.index == facts.index && route.protocol == PROTOCOL)
            .map(|route| route.entry)
            .collect(),
        rules,
        neighbours: neighbours
            .filter(|(index, _)| *index == facts.index)
            .map(|(_, neighbour)| (neighbour.ip, neighbour))
            .collect(),
    })
}

fn marked_link(
    rtnl: &mut Rtnl,
    netns: &Netns,
    name: &InterfaceName,
    alias: &str,
) -> Result<LinkFacts> {
    match rtnl.link(name)? {
        Some(facts) if facts.alias.as_deref() == Some(alias) => Ok(facts),
        Some(facts) => Err(Error::NameTaken {
            name: name.to_string(),
            netns: netns.id(),
            alias: facts.alias,
        }),
        None => Err(Error::LinkNotFound {
            name: name.to_string(),
            netns: netns.id(),
        }),
    }
}

fn has_ipv6(spec: &InterfaceSpec) -> bool {
    spec.addresses
        .iter()
        .any(|address| address.addr().is_ipv6())
}
