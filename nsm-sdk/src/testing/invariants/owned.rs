//! What is kept is what live connections own.

use std::collections::{BTreeMap, BTreeSet};

use nsm_api::Connection;

use super::{Rule, Violation};
use crate::testing::{Census, HopCensus};

/// Every hop keeps the connections that pass it on the paths of live ones, and no others.
#[must_use]
pub fn connections(census: &Census) -> Vec<Violation> {
    let mut owned: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for connection in live(census) {
        for segment in connection.path.iter().flat_map(|path| &path.path_segments).skip(1) {
            owned.entry(&segment.name).or_default().insert(&segment.id);
        }
    }
    let nothing = BTreeSet::new();
    let check = |(name, hop): (&String, &HopCensus)| {
        let expected = owned.get(name.as_str()).unwrap_or(&nothing);
        let seen: BTreeSet<_> = hop.connections.keys().map(String::as_str).collect();
        differs(Rule::Connections, name, expected, &seen)
    };
    census.hops.iter().filter_map(check).collect()
}

/// Every hop shows its watchers as many connections as it keeps.
#[must_use]
pub fn shown(census: &Census) -> Vec<Violation> {
    let check = |(name, hop): (&String, &HopCensus)| {
        let (expected, seen) = (hop.connections.len(), hop.shown?);
        (expected != seen).then(|| Violation::new(Rule::Shown, name, expected, seen))
    };
    census.hops.iter().filter_map(check).collect()
}

/// Every hop has one timer for each connection, by which it expires; a client one by which it is refreshed, and one
/// more where it looks whether packets flow.
#[must_use]
pub fn timers(census: &Census) -> Vec<Violation> {
    let check = |(name, hop): (&String, &HopCensus), most: usize| {
        let (least, most) = (hop.connections.len(), hop.connections.len() * most);
        let expected = if least == most { least.to_string() } else { format!("{least} to {most}") };
        (!(least..=most).contains(&hop.timers)).then(|| Violation::new(Rule::Timers, name, expected, hop.timers))
    };
    let hops = census.hops.iter().filter_map(|hop| check(hop, 1));
    hops.chain(census.clients.iter().filter_map(|client| check(client, 2))).collect()
}

/// There is one wire for each forwarder on the path of a live connection, and no other; each belongs to a forwarder
/// that runs.
#[must_use]
pub fn wires(census: &Census) -> Vec<Violation> {
    let passes = live(census).flat_map(|connection| connection.path.iter().flat_map(|path| &path.path_segments));
    let forwarders = passes.filter(|segment| census.fabric.has_forwarder(&segment.name));
    let expected: BTreeSet<_> = forwarders.map(|segment| (segment.name.clone(), segment.id.clone())).collect();
    let wires = census.fabric.wires();
    let seen: BTreeSet<_> = wires.iter().map(|(forwarder, wire)| (forwarder.clone(), wire.id.to_string())).collect();
    let mut found: Vec<_> = differs(Rule::Wires, "the data plane", &expected, &seen).into_iter().collect();
    if seen.len() != wires.len() {
        found.push(Violation::new(Rule::Wires, "the data plane", format!("{} wires", seen.len()), wires.len()));
    }
    let orphans = census.fabric.orphans().into_iter();
    found.extend(orphans.map(|(forwarder, wire)| {
        Violation::new(Rule::Wires, forwarder, "every wire to be claimed", format!("{} not to be", wire.id))
    }));
    found
}

/// Every forwarder holds as many tunnel identifiers as it has tunnels.
#[must_use]
pub fn vnis(census: &Census) -> Vec<Violation> {
    let mut tunnels: BTreeMap<String, usize> = BTreeMap::new();
    for (forwarder, wire) in census.fabric.wires() {
        let ends = [&wire.caller, &wire.next].into_iter().filter(|mechanism| mechanism.as_vxlan().is_some()).count();
        *tunnels.entry(forwarder).or_default() += ends;
    }
    let check = |name: String| {
        let (expected, seen) = (tunnels.get(&name).copied().unwrap_or_default(), census.fabric.vnis(&name)?);
        (expected != seen).then(|| Violation::new(Rule::Vnis, name, expected, seen))
    };
    census.fabric.forwarders().into_iter().filter_map(check).collect()
}

/// No endpoint has given an address to two connections.
#[must_use]
pub fn unshared(census: &Census) -> Vec<Violation> {
    let mut found = Vec::new();
    for (name, hop) in &census.hops {
        let mut owners: BTreeMap<String, &String> = BTreeMap::new();
        let last = hop.connections.iter().filter_map(|(id, connection)| Some((id, connection.as_deref()?)));
        for (id, connection) in last.filter(|(_, connection)| connection.next_segment().is_none()) {
            let ip = connection.context.as_ref().and_then(|context| context.ip_context.clone()).unwrap_or_default();
            for address in ip.src_ip_addrs {
                if let Some(owner) = owners.insert(address.clone(), id) {
                    let seen = format!("{owner} and {id} to have it");
                    found.push(Violation::new(Rule::Unshared, name, format!("one owner of {address}"), seen));
                }
            }
        }
    }
    found
}

/// No forwarder has done what the data plane's double holds against it.
#[must_use]
pub fn faultless(census: &Census) -> Vec<Violation> {
    let faults = census.fabric.faults().into_iter();
    faults.map(|fault| Violation::new(Rule::Unshared, "the data plane", "no fault", fault)).collect()
}

fn live(census: &Census) -> impl Iterator<Item = &Connection> {
    census.clients.values().flat_map(|client| client.connections.values()).filter_map(Option::as_deref)
}

/// What is missing and what is too much, if anything.
fn differs<T: Ord + std::fmt::Debug>(
    rule: Rule,
    at: &str,
    expected: &BTreeSet<T>,
    seen: &BTreeSet<T>,
) -> Option<Violation> {
    let missing: Vec<_> = expected.difference(seen).collect();
    let surplus: Vec<_> = seen.difference(expected).collect();
    (!missing.is_empty() || !surplus.is_empty()).then(|| {
        let seen = format!("without {missing:?}, with {surplus:?}");
        Violation::new(rule, at, format!("{} of live connections", expected.len()), seen)
    })
}
