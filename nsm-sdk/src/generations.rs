//! A bounded map that forgets what has not been used for long.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::mem;

/// Two generations: when the young one is full, the old one is forgotten and the young one becomes old; a hit in the old one
/// moves the entry back. So it behaves like LRU at the cost of a hash look-up, and holds at most twice its bound.
#[derive(Debug)]
pub(crate) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    bound: usize,
}

impl<K: Hash + Eq, V> Generations<K, V> {
    pub(crate) fn new(bound: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), bound }
    }

    pub(crate) fn lookup<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        if !self.young.contains_key(key) {
            let (key, value) = self.old.remove_entry(key)?;
            self.insert(key, value);
        }
        self.young.get(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.bound && !self.young.contains_key(&key) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// How many entries it holds.
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Forgets at once what is not to be kept.
    pub(crate) fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        for generation in [&mut self.young, &mut self.old] {
            generation.retain(|_, value| keep(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_is_forgotten() {
        let mut cache = Generations::new(10);
        for n in 0..1000 {
            cache.insert(n, n);
            assert_eq!(cache.lookup(&0), Some(&0), "after {n}");
            assert!(cache.young.len() + cache.old.len() <= 20);
        }
        assert_eq!(cache.lookup(&500), None);
        assert_eq!(cache.lookup(&999), Some(&999));
    }
}
