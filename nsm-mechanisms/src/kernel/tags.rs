//! The VLANs of an endpoint's one interface.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nsm_chain::{Error, Result};

/// Those in use.
#[derive(Debug, Clone, Default)]
pub(super) struct Tags(Arc<Mutex<BTreeSet<u16>>>);

/// One, ours until this is dropped.
#[derive(Debug)]
pub(super) struct Tag {
    pub(super) number: u16,
    tags: Tags,
}

/// IEEE 802.1Q has reserved the others.
const NUMBERS: RangeInclusive<u16> = 1..=4094;

impl Tags {
    /// The one that a connection had in an earlier life of ours, if nobody has it now, else the lowest free one.
    pub(super) fn take(&self, former: Option<u16>) -> Result<Tag> {
        let mut used = self.used();
        let former = former.filter(|number| NUMBERS.contains(number) && !used.contains(number));
        let number = former.or_else(|| NUMBERS.clone().find(|number| !used.contains(number)));
        let number = number.ok_or_else(|| Error::exhausted("all VLANs of the endpoint's interface are in use"))?;
        used.insert(number);
        Ok(Tag { number, tags: self.clone() })
    }

    fn used(&self) -> MutexGuard<'_, BTreeSet<u16>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tag {
    fn drop(&mut self) {
        self.tags.used().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_one_is_given_and_one_that_was_given_back_again() {
        let tags = Tags::default();
        let mut taken: Vec<_> = NUMBERS.map(|_| tags.take(None).unwrap()).collect();
        assert!(taken.iter().map(|tag| tag.number).eq(NUMBERS));
        assert_eq!(tags.take(Some(7)).unwrap_err().code(), nsm_chain::Code::ResourceExhausted);
        taken.remove(41);
        assert_eq!(tags.take(Some(7)).unwrap().number, 42, "7 is somebody's");
        taken.truncate(3);
        assert_eq!(tags.take(Some(9)).unwrap().number, 9);
        assert_eq!(tags.take(Some(4095)).unwrap().number, 4);
    }
}
