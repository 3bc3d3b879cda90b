//! Per-connection state: one typed slot an element, dropped as a whole when the connection ends.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sync::Mutex;

/// The state one hop keeps for one connection.
///
/// [`Begin`](crate::Begin) makes it at the first Request and drops it when the connection ends or that Request fails.
/// A resource (an address, a VNI, a timer, a subscription) lives in it as a guard: dropping the state gives it back.
#[derive(Default)]
pub struct State {
    slots: Mutex<Vec<(u64, Box<dyn Any + Send>)>>,
}

impl State {
    fn with<R>(&self, work: impl FnOnce(&mut Vec<(u64, Box<dyn Any + Send>)>) -> R) -> R {
        work(&mut self.slots.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Drops everything, last made first.
    pub(crate) fn clear(&self) {
        let mut slots = self.with(std::mem::take);
        while let Some(slot) = slots.pop() {
            drop(slot);
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.clear();
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "State({} slots)", self.with(|slots| slots.len()))
    }
}

/// An element's key to its own slot. The key is the element, not the type: two elements of one type in one chain do
/// not meet.
///
/// ```
/// # use nsm_chain::{Slot, State};
/// let (mine, other) = (Slot::<u32>::new(), Slot::<u32>::new());
/// let state = State::default();
/// mine.set(&state, 7);
/// assert_eq!(mine.cloned(&state), Some(7));
/// assert_eq!(other.cloned(&state), None);
/// assert_eq!(mine.take(&state), Some(7));
/// ```
pub struct Slot<T> {
    key: u64,
    holds: PhantomData<fn() -> T>,
}

impl<T: Send + 'static> Slot<T> {
    /// A key nobody else has.
    #[must_use]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { key: NEXT.fetch_add(1, Ordering::Relaxed), holds: PhantomData }
    }

    /// Puts a value in, and hands back the one that was there.
    pub fn set(&self, state: &State, value: T) -> Option<T> {
        state.with(|slots| match find(slots, self.key) {
            Some(at) => slots[at].1.downcast_mut().map(|old| std::mem::replace(old, value)),
            None => {
                slots.push((self.key, Box::new(value)));
                None
            }
        })
    }

    /// Takes the value out.
    pub fn take(&self, state: &State) -> Option<T> {
        state
            .with(|slots| find(slots, self.key).map(|at| slots.swap_remove(at)))
            .and_then(|(_, value)| value.downcast().ok())
            .map(|value| *value)
    }

    /// Works on the value in place. The state is locked meanwhile: no other slot may be touched in `work`.
    pub fn with<R>(&self, state: &State, work: impl FnOnce(Option<&mut T>) -> R) -> R {
        state.with(|slots| {
            let at = find(slots, self.key);
            work(at.and_then(|at| slots[at].1.downcast_mut()))
        })
    }

    /// A copy of the value.
    pub fn cloned(&self, state: &State) -> Option<T>
    where
        T: Clone,
    {
        self.with(state, |value| value.cloned())
    }
}

fn find(slots: &[(u64, Box<dyn Any + Send>)], key: u64) -> Option<usize> {
    slots.iter().position(|(other, _)| *other == key)
}

impl<T: Send + 'static> Default for Slot<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({})", self.key)
    }
}

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn dropping_the_state_drops_every_guard() {
        let guard = Arc::new(());
        let state = State::default();
        let (one, two) = (Slot::new(), Slot::new());
        one.set(&state, Arc::clone(&guard));
        two.set(&state, Arc::clone(&guard));
        assert_eq!(Arc::strong_count(&guard), 3);
        drop(state);
        assert_eq!(Arc::strong_count(&guard), 1);
    }

    #[test]
    fn a_guard_may_reach_the_state_it_is_dropped_from() {
        struct Nosy(std::sync::Weak<State>);
        impl Drop for Nosy {
            fn drop(&mut self) {
                if let Some(state) = self.0.upgrade() {
                    state.with(|slots| assert!(slots.is_empty()));
                }
            }
        }
        let state = Arc::new(State::default());
        Slot::new().set(&state, Nosy(Arc::downgrade(&state)));
        state.clear();
    }
}
