//! To whom names belong.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The first identity of each name's path, for as many names as fit: the one that was not used for longest
/// makes room for a new one.
pub(super) struct Owners {
    table: Mutex<Table>,
    capacity: usize,
}

/// What became of a claim.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// Who owns the name now.
    pub(super) owner: Arc<str>,
    /// Whether it was free.
    pub(super) was_free: bool,
    /// The name that made room.
    pub(super) evicted: Option<Arc<str>>,
}

#[derive(Default)]
struct Table {
    clock: u64,
    names: HashMap<Arc<str>, Owner>,
    by_age: BTreeMap<u64, Arc<str>>,
}

struct Owner {
    id: Arc<str>,
    /// The path ids of the record as it was answered; empty where nobody looks at them.
    path_ids: Arc<[String]>,
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

    /// Gives a free name to `id`.
    pub(super) fn claim(&self, name: &str, id: &str) -> Claim {
        let mut table = self.lock();
        if let Some(owner) = table.touch(name) {
            return Claim { owner, was_free: false, evicted: None };
        }
        let full = table.names.len() >= self.capacity;
        let evicted = full.then(|| table.by_age.pop_first()).flatten().map(|(_, oldest)| oldest);
        if let Some(oldest) = &evicted {
            table.names.remove(oldest);
        }
        let (name, id): (Arc<str>, Arc<str>) = (name.into(), id.into());
        table.clock += 1;
        let used = table.clock;
        table.by_age.insert(used, Arc::clone(&name));
        table.names.insert(name, Owner { id: Arc::clone(&id), path_ids: Arc::default(), used });
        Claim { owner: id, was_free: true, evicted }
    }

    /// Keeps the path ids of an owned name, for policies that look at them.
    pub(super) fn set_path_ids(&self, name: &str, path_ids: &[String]) {
        if let Some(owner) = self.lock().names.get_mut(name)
            && *owner.path_ids != *path_ids
        {
            owner.path_ids = path_ids.into();
        }
    }

    /// The path ids of all names. The first of each is its owner, whatever the record said.
    pub(super) fn path_ids(&self) -> BTreeMap<String, Vec<String>> {
        let ids = |owner: &Owner| {
            let rest = owner.path_ids.iter().skip(1).cloned();
            std::iter::once((*owner.id).to_owned()).chain(rest).collect()
        };
        self.lock().names.iter().map(|(name, owner)| ((**name).to_owned(), ids(owner))).collect()
    }

    /// Frees the name; tells whether it was taken.
    pub(super) fn release(&self, name: &str) -> bool {
        let mut table = self.lock();
        let owner = table.names.remove(name);
        if let Some(owner) = &owner {
            table.by_age.remove(&owner.used);
        }
        owner.is_some()
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

impl fmt::Debug for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} owned", self.len())
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
        assert_eq!(owners.claim("c", "spiffe://two").evicted.as_deref(), Some("b"));
        assert_eq!((owners.of("a").is_some(), owners.of("b"), owners.len()), (true, None, 2));
    }

    #[test]
    fn a_claim_of_a_taken_name_tells_its_owner() {
        let owners = Owners::with_room_for(2);
        assert!(owners.claim("a", "spiffe://one").was_free);
        let taken = Claim { owner: "spiffe://one".into(), was_free: false, evicted: None };
        assert_eq!(owners.claim("a", "spiffe://two"), taken);
        assert!(owners.release("a") && !owners.release("a"));
        assert!(owners.claim("a", "spiffe://two").was_free);
        assert_eq!(owners.len(), 1);
    }

    #[test]
    fn the_first_path_id_is_the_owner_whatever_the_record_says() {
        let owners = Owners::with_room_for(2);
        owners.claim("a", "spiffe://one");
        assert_eq!(owners.path_ids()["a"], ["spiffe://one"]);
        owners.set_path_ids("a", &["spiffe://forged".into(), "spiffe://nsmgr".into()]);
        owners.set_path_ids("unknown", &[]);
        assert_eq!(owners.path_ids()["a"], ["spiffe://one", "spiffe://nsmgr"]);
    }
}
