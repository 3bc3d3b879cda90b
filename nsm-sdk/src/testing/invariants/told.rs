//! What an application is told of its connections.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nsm_api::Connection;

use super::{Rule, Violation};
use crate::lifecycle::{Change, Interface};
use crate::lifetime::Reason;
use crate::testing::HopCensus;

/// What a hop told of its connections, change by change: for [`Lifecycle::telling`](crate::lifecycle::Lifecycle::telling).
///
/// ```
/// use nsm_chain::elements;
/// use nsm_sdk::lifecycle::Lifecycle;
/// use nsm_sdk::testing::invariants::Told;
///
/// let told = Told::default();
/// let hears = told.clone();
/// let element = elements![Lifecycle::telling(move |id, change| hears.hear(id, change))];
/// ```
#[derive(Debug, Clone, Default)]
pub struct Told(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    last: BTreeMap<String, Last>,
    broke: Vec<(String, Reason)>,
    wrong: Vec<(String, String)>,
}

/// The last thing that was told of a connection.
#[derive(Debug)]
enum Last {
    Up(Interface),
    Down,
    Gone,
}

impl Told {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This was told of the connection of that id.
    pub fn hear(&self, id: &str, change: &Change) {
        let mut inner = self.lock();
        let before = inner.last.get(id);
        let may = match (change, before) {
            (Change::Up(_), None | Some(Last::Down | Last::Gone)) => true,
            (Change::Changed { what, .. }, Some(Last::Up(_))) => !what.is_empty(),
            (Change::Down { .. }, Some(Last::Up(_))) | (Change::Gone { .. }, Some(Last::Up(_) | Last::Down)) => true,
            _ => false,
        };
        let before = match before {
            None => "nothing",
            Some(Last::Up(_)) => "up",
            Some(Last::Down) => "down",
            Some(Last::Gone) => "gone",
        };
        if !may {
            inner.wrong.push((id.to_owned(), format!("{change}, after {before}")));
        }
        if let Change::Down { why, .. } | Change::Changed { why: Some(why), .. } = change {
            inner.broke.push((id.to_owned(), *why));
        }
        let last = match change {
            Change::Up(now) | Change::Changed { now, .. } => Last::Up(now.clone()),
            Change::Down { .. } => Last::Down,
            Change::Gone { .. } => Last::Gone,
        };
        inner.last.insert(id.to_owned(), last);
    }

    /// Changes that do not follow from what was told before.
    #[must_use]
    pub fn out_of_order(&self, hop: &str) -> Vec<Violation> {
        let wrong = self.lock().wrong.clone();
        let violation =
            |(id, seen)| Violation::new(Rule::Told, format!("{hop}/{id}"), "a change that may follow", seen);
        wrong.into_iter().map(violation).collect()
    }
}

/// Nothing broke, as far as an application was told, but for these reasons.
#[must_use]
pub fn nothing_broke(hop: &str, told: &Told, but_for: &[Reason]) -> Vec<Violation> {
    let inner = told.lock();
    let broke = inner.broke.iter().filter(|(_, why)| !but_for.contains(why));
    broke.map(|(id, why)| Violation::new(Rule::Told, format!("{hop}/{id}"), "nothing to break", why)).collect()
}

/// What was told last of each connection is how it is, now that it is quiet.
#[must_use]
pub fn told(hop: &str, told: &Told, census: &HopCensus) -> Vec<Violation> {
    let inner = told.lock();
    let violation = |id: &str, expected: String, seen: String| {
        Violation::new(Rule::Told, format!("{hop}/{id}"), format!("to be told: {expected}"), seen)
    };
    let there = census.connections.iter().filter_map(|(id, now)| Some((id, now.as_deref()?)));
    let wrong = there.filter_map(|(id, now)| match inner.last.get(id) {
        Some(Last::Up(last)) if same(last.connection(), now) && last.broken().is_none() => None,
        last => Some(violation(id, format!("up at {}", now.network_service_endpoint_name), format!("{last:?}"))),
    });
    let kept =
        inner.last.iter().filter(|(id, last)| !matches!(last, Last::Gone) && !census.connections.contains_key(*id));
    let gone = kept.map(|(id, last)| violation(id, "gone".into(), format!("{last:?}")));
    wrong.chain(gone).collect()
}

/// Whether an application would not see a difference.
fn same(told: &Connection, now: &Connection) -> bool {
    let addresses = |connection: &Connection| {
        let ip = connection.context.as_ref().and_then(|context| context.ip_context.clone()).unwrap_or_default();
        (ip.src_ip_addrs, ip.dst_ip_addrs)
    };
    told.network_service_endpoint_name == now.network_service_endpoint_name
        && told.mechanism == now.mechanism
        && addresses(told) == addresses(now)
}
