//! To whom names belong.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The first identity of each name's path, for as many names as fit: the one that was not used for longest
/// makes room for a new one.
pub(super) struct Owners {
    table: Mutex<Table>,
    capacity: usize,
}

#[derive(Default)]
struct Table {
    clock: u64,
    names: HashMap<Arc<str>, Owner>,
    by_age: BTreeMap<u64, Arc<str>>,
}

struct Owner {
    id: Arc<str>,
    used: u64,
}

impl Owners {
    pub(super) fn with_room_for(capacity: usize) -> Self {
        Self { table: Mutex::default(), capacity: capacity.max(1) }
    }

    /// Who owns the name. Being asked for keeps it young.
    pub(super) fn of(&self, name: &str) -> Option<Arc<str>> {
        self.lock().touch(name)
    }

    /// Gives a free name to `id`. Tells who owns it now, and whether it was free.
    pub(super) fn claim(&self, name: &str, id: &str) -> (Arc<str>, bool) {
        let mut table = self.lock();
        if let Some(owner) = table.touch(name) {
            return (owner, false);
        }
        if table.names.len() >= self.capacity
            && let Some((_, oldest)) = table.by_age.pop_first()
        {
            table.names.remove(&oldest);
        }
        let (name, id): (Arc<str>, Arc<str>) = (name.into(), id.into());
        table.clock += 1;
        let used = table.clock;
        table.by_age.insert(used, Arc::clone(&name));
        table.names.insert(name, Owner { id: Arc::clone(&id), used });
        (id, true)
    }

    /// Frees the name.
    pub(super) fn release(&self, name: &str) {
        let mut table = self.lock();
        if let Some(owner) = table.names.remove(name) {
            table.by_age.remove(&owner.used);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lock().names.len()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn touch(&mut self, name: &str) -> Option<Arc<str>> {
        let owner = self.names.get_mut(name)?;
        self.clock += 1;
        let key = self.by_age.remove(&owner.used)?;
        owner.used = self.clock;
        self.by_age.insert(self.clock, key);
        Some(Arc::clone(&owner.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_unused_for_longest_makes_room() {
        let owners = Owners::with_room_for(2);
        owners.claim("a", "spiffe://one");
        owners.claim("b", "spiffe://one");
        assert!(owners.of("a").is_some());
        owners.claim("c", "spiffe://two");
        assert_eq!((owners.of("a").is_some(), owners.of("b"), owners.len()), (true, None, 2));
    }

    #[test]
    fn a_claim_of_a_taken_name_tells_its_owner() {
        let owners = Owners::with_room_for(2);
        assert!(owners.claim("a", "spiffe://one").1);
        assert_eq!(owners.claim("a", "spiffe://two"), ("spiffe://one".into(), false));
        owners.release("a");
        assert!(owners.claim("a", "spiffe://two").1);
        assert_eq!(owners.len(), 1);
    }
}
