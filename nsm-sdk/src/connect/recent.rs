use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Mutex, PoisonError};

use crate::generations::Generations;

/// Remembers the last names it was told, at least as many as [`AT_LEAST`] and at most twice that.
///
/// Only their hashes: whoever is taken for one of them is marked without need, which costs a few bytes.
#[derive(Debug)]
pub(super) struct Recent {
    names: Mutex<Generations<u64, ()>>,
    hasher: RandomState,
}

/// More than are closed and asked for again while news of their former lives can be under way.
const AT_LEAST: usize = 2048;

impl Recent {
    pub(super) fn add(&self, name: &str) {
        let name = self.hasher.hash_one(name);
        self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name, ());
    }

    pub(super) fn has(&self, name: &str) -> bool {
        let name = self.hasher.hash_one(name);
        self.names.lock().unwrap_or_else(PoisonError::into_inner).lookup(&name).is_some()
    }
}

impl Default for Recent {
    fn default() -> Self {
        Self { names: Mutex::new(Generations::new(AT_LEAST)), hasher: RandomState::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_names_are_known_and_their_number_is_bounded() {
        let recent = Recent::default();
        for name in 0..3 * AT_LEAST {
            recent.add(&name.to_string());
        }
        assert!((2 * AT_LEAST..3 * AT_LEAST).all(|name| recent.has(&name.to_string())));
        assert!(!recent.has("0"));
        assert!(recent.names.lock().unwrap().len() <= 2 * AT_LEAST);
    }
}
