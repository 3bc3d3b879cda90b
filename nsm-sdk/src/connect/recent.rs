use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Remembers the last names it was told, at least as many as [`AT_LEAST`] and at most twice that.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashSet<String>,
    old: HashSet<String>,
}

/// More than are closed and asked for again while news of their former lives can be under way.
const AT_LEAST: usize = 2048;

impl Recent {
    pub(super) fn add(&self, name: &str) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.young.len() >= AT_LEAST {
            names.old = std::mem::take(&mut names.young);
        }
        names.young.insert(name.to_owned());
    }

    pub(super) fn has(&self, name: &str) -> bool {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.young.contains(name) || names.old.contains(name)
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
        let names = recent.0.lock().unwrap();
        assert!(names.young.len() + names.old.len() <= 2 * AT_LEAST);
    }
}
