//! A set of numbers as intervals that neither touch nor overlap.

use std::collections::BTreeMap;

/// First and last number of an interval, both in it.
pub(crate) type Interval = (u128, u128);

/// A set of numbers; every step costs the logarithm of the number of its intervals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Intervals(BTreeMap<u128, u128>);

impl Intervals {
    /// Adds an interval, joined with its neighbours. `Err` names what it would overlap, and changes nothing.
    pub(crate) fn insert(&mut self, (first, last): Interval) -> Result<(), Interval> {
        let mut joined = (first, last);
        if let Some((&before, &end)) = self.0.range(..=first).next_back() {
            if end >= first {
                return Err((before, end));
            }
            if end + 1 == first {
                joined.0 = before;
            }
        }
        if let Some((&after, &end)) = self.0.range(first..).next() {
            if after <= last {
                return Err((after, end));
            }
            if last + 1 == after {
                self.0.remove(&after);
                joined.1 = end;
            }
        }
        self.0.insert(joined.0, joined.1);
        Ok(())
    }

    /// Takes one number out; whether it was there.
    pub(crate) fn remove(&mut self, number: u128) -> bool {
        let Some((first, last)) = self.around(number) else {
            return false;
        };
        if first == number {
            self.0.remove(&first);
        } else {
            self.0.insert(first, number - 1);
        }
        if number < last {
            self.0.insert(number + 1, last);
        }
        true
    }

    /// The interval a number lies in.
    fn around(&self, number: u128) -> Option<Interval> {
        let (&first, &last) = self.0.range(..=number).next_back()?;
        (number <= last).then_some((first, last))
    }

    /// What of the set is from `start` on, lowest first.
    pub(crate) fn from(&self, start: u128) -> impl Iterator<Item = Interval> + '_ {
        let cut = self.around(start).filter(|(first, _)| *first < start).map(|(_, last)| (start, last));
        cut.into_iter().chain(self.0.range(start..).map(|(&first, &last)| (first, last)))
    }

    /// The intervals, lowest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Interval> + '_ {
        self.0.iter().map(|(&first, &last)| (first, last))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ends_of_the_number_line_are_ordinary_numbers() {
        let mut set = Intervals::default();
        set.insert((0, u128::MAX)).unwrap();
        assert!(set.remove(u128::MAX));
        assert!(set.remove(0));
        assert!(!set.remove(0));
        assert_eq!(set.from(0).next(), Some((1, u128::MAX - 1)));
        assert_eq!(set.from(u128::MAX).next(), None);
        set.insert((u128::MAX, u128::MAX)).unwrap();
        set.insert((0, 0)).unwrap();
        assert_eq!(set.iter().collect::<Vec<_>>(), [(0, u128::MAX)]);
    }

    proptest! {
        #[test]
        fn it_does_what_a_set_of_single_numbers_does(steps in prop::collection::vec((any::<bool>(), 0u128..64, 0u128..6), 0..80)) {
            let (mut set, mut model) = (Intervals::default(), BTreeSet::new());
            for (add, number, more) in steps {
                if add {
                    let free = (number..=number + more).all(|n| !model.contains(&n));
                    prop_assert_eq!(set.insert((number, number + more)).is_ok(), free);
                    if free {
                        model.extend(number..=number + more);
                    }
                } else {
                    prop_assert_eq!(set.remove(number), model.remove(&number));
                }
                let rest: Vec<_> = set.from(number).flat_map(|(first, last)| first..=last).collect();
                prop_assert_eq!(rest, model.range(number..).copied().collect::<Vec<_>>());
                let intervals: Vec<_> = set.iter().collect();
                prop_assert!(intervals.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "not joined: {:?}", intervals);
                let numbers: Vec<_> = intervals.iter().flat_map(|(first, last)| *first..=*last).collect();
                prop_assert_eq!(numbers, model.iter().copied().collect::<Vec<_>>());
            }
        }
    }
}
