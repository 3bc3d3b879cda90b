//! What time does not change.

use std::collections::BTreeMap;
use std::sync::Arc;

use nsm_mechanisms::memory::{Write, Written};
use tokio::time::Instant;

use super::{Rule, Violation};
use crate::testing::Census;

/// In a time in which nothing was disturbed no client asked more often than `most` times: `requests` by client.
#[must_use]
pub fn unhurried(requests: &BTreeMap<String, usize>, most: usize) -> Vec<Violation> {
    let hurried = requests.iter().filter(|(_, count)| **count > most);
    let violation = |(client, count): (&String, &usize)| {
        Violation::new(Rule::Unhurried, client, format!("{most} Requests at most"), count)
    };
    hurried.map(violation).collect()
}

/// From when on a wire must not have been cut, because nothing that carries its packets was touched: by forwarder and
/// id there.
pub type Since = BTreeMap<(Arc<str>, Arc<str>), Instant>;

/// Of the wires that stood well nothing was removed or made anew: `log` is what the data plane did
/// ([`take_log`](nsm_mechanisms::memory::Fabric::take_log)). What an earlier life left under the same id may be swept.
#[must_use]
pub fn uncut(log: &[Write], healthy: &Since) -> Vec<Violation> {
    let cuts = log.iter().filter(|write| !matches!(write.what, Written::Adopted | Written::Changed | Written::Swept));
    let unjust = cuts.filter(|write| {
        let since = healthy.get(&(Arc::clone(&write.forwarder), Arc::clone(&write.id)));
        since.is_some_and(|since| write.at >= *since)
    });
    let violation = |write: &Write| {
        let at = format!("{}/{}", write.forwarder, write.id);
        Violation::new(Rule::Uncut, at, "its wire to be left alone", format!("{:?}", write.what))
    };
    unjust.map(violation).collect()
}

/// With all connections closed, and after the time in which caches and streams linger, everything is as it was before
/// the first one: nothing is kept, and no more tasks run, timers are armed and watchers listen than then.
#[must_use]
pub fn as_before(before: &Census, after: &Census) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut check = |at: &str, what: &str, expected: usize, seen: usize| {
        if seen > expected {
            found.push(Violation::new(Rule::AsBefore, at, format!("{expected} {what}"), seen));
        }
    };
    check("the runtime", "tasks", before.tasks, after.tasks);
    check("the data plane", "wires", 0, after.fabric.wires().len());
    for (kind, (records, watchers)) in &after.registry {
        let (_, watched) = before.registry.get(kind).copied().unwrap_or_default();
        check("the registry", &format!("watchers of {kind} records ({records} records)"), watched, *watchers);
    }
    for (name, hop) in after.hops.iter().chain(&after.clients) {
        let then = before.hops.get(name).or_else(|| before.clients.get(name)).cloned().unwrap_or_default();
        check(name, "connections", 0, hop.connections.len());
        check(name, "connections shown", 0, hop.shown.unwrap_or_default());
        check(name, "watchers", then.watchers, hop.watchers);
        check(name, "timers", 0, hop.timers);
    }
    for forwarder in after.fabric.forwarders() {
        check(&forwarder, "tunnel identifiers", 0, after.fabric.vnis(&forwarder).unwrap_or_default());
    }
    found
}

/// Samples of one quantity, each taken after a round of the same work, do not grow: none of the later half is more than
/// `percent` above the highest of the earlier half.
#[must_use]
pub fn flat(what: &str, samples: &[usize], percent: usize) -> Vec<Violation> {
    let (earlier, later) = samples.split_at(samples.len() / 2);
    let (Some(earlier), Some(later)) = (earlier.iter().max(), later.iter().max()) else {
        return Vec::new();
    };
    let most = earlier + earlier * percent / 100;
    let grown = (*later > most).then(|| Violation::new(Rule::Flat, what, format!("{most} at most"), later));
    grown.into_iter().collect()
}
