//! Watchers by what they ask for, so that a change reaches only those it may concern.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use nsm_chain::Record;

use super::queue::Watcher;

type List<R> = BTreeMap<u64, Arc<Watcher<R>>>;

/// A watcher stands in one list: of the name it asks for, else of the first service, else in that of the
/// general ones.
pub(super) struct Watchers<R: Record> {
    next: u64,
    names: HashMap<Box<str>, List<R>>,
    services: HashMap<Box<str>, List<R>>,
    general: List<R>,
}

impl<R: Record> Watchers<R> {
    /// Adds a watcher; the number takes it out again.
    pub(super) fn add(&mut self, watcher: Arc<Watcher<R>>) -> u64 {
        let number = self.next;
        self.next += 1;
        let list = match Asks::of::<R>(&watcher.query) {
            Asks::Name(name) => self.names.entry(name.into()).or_default(),
            Asks::Services([first, ..]) => self.services.entry(first.as_str().into()).or_default(),
            Asks::Services([]) | Asks::Anything => &mut self.general,
        };
        list.insert(number, watcher);
        number
    }

    pub(super) fn remove(&mut self, query: &R::Query, number: u64) {
        let (lists, key) = match Asks::of::<R>(query) {
            Asks::Name(name) => (&mut self.names, name),
            Asks::Services([first, ..]) => (&mut self.services, first.as_str()),
            Asks::Services([]) | Asks::Anything => {
                self.general.remove(&number);
                return;
            }
        };
        if let Some(list) = lists.get_mut(key) {
            list.remove(&number);
            if list.is_empty() {
                lists.remove(key);
            }
        }
    }

    /// Tells those whom this change of one record may concern.
    pub(super) fn tell(&self, before: Option<&Arc<R>>, now: Option<&Arc<R>>) {
        let Some(record) = now.or(before) else { return };
        let mut services: Vec<&String> = before.into_iter().chain(now).flat_map(|record| record.services()).collect();
        services.sort_unstable();
        services.dedup();
        let by_service = services.into_iter().filter_map(|service| self.services.get(service.as_str()));
        let lists = self.names.get(record.name()).into_iter().chain(by_service).chain([&self.general]);
        for watcher in lists.flat_map(BTreeMap::values) {
            watcher.note(before, now);
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Watcher<R>>> {
        let lists = self.names.values().chain(self.services.values()).chain([&self.general]);
        lists.flat_map(BTreeMap::values)
    }
}

impl<R: Record> Default for Watchers<R> {
    fn default() -> Self {
        Self { next: 0, names: HashMap::new(), services: HashMap::new(), general: BTreeMap::new() }
    }
}

/// By what a query can be looked up.
pub(super) enum Asks<'a> {
    Name(&'a str),
    Services(&'a [String]),
    Anything,
}

impl<'a> Asks<'a> {
    pub(super) fn of<R: Record>(query: &'a R::Query) -> Self {
        match R::pattern(query) {
            Some(pattern) if !pattern.name().is_empty() => Self::Name(pattern.name()),
            Some(pattern) if !pattern.services().is_empty() => Self::Services(pattern.services()),
            _ => Self::Anything,
        }
    }
}
