//! What is free in a set of prefixes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use super::exclusions::Exclusions;
use super::intervals::{Interval, Intervals};
use super::lease::{Lease, LeaseError};

/// Addresses of one family to hand out, lowest first.
///
/// It keeps what is free as intervals, so that a `/64` costs as little as a `/30`, and what is given back joins its
/// neighbours again. Clones share it.
///
/// ```
/// use nsm_sdk::ipam::{Exclusions, Pool};
///
/// let pool = Pool::new(["192.168.1.0/24".parse()?])?;
/// let excluded = Exclusions::new(["192.168.1.1/32".parse()?]);
/// let (low, high) = pool.lease_pair(&excluded)?;
/// assert_eq!((low.to_string(), high.to_string()), ("192.168.1.0".into(), "192.168.1.2".into()));
/// drop(low);
/// assert_eq!(pool.lease(&Exclusions::NONE)?.to_string(), "192.168.1.0");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

pub(super) struct Shared {
    prefixes: Box<[IpNet]>,
    v4: bool,
    free: Mutex<Intervals>,
}

/// Prefixes that do not make a pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// There are none.
    #[error("a pool needs a prefix: name one, such as 172.16.0.0/16")]
    Empty,
    /// Two contain the same addresses.
    #[error("{one} and {other} overlap: name each address once, or it would be handed out twice")]
    Overlap {
        /// The one.
        one: IpNet,
        /// The other.
        other: IpNet,
    },
    /// Two are of different families.
    #[error("{one} and {other} are of different families: make a pool of each and put a source of each into a Group")]
    Families {
        /// The one.
        one: IpNet,
        /// The other.
        other: IpNet,
    },
}

impl Pool {
    /// A pool of every address in these prefixes, the first and the last of each included. Host bits do not count.
    ///
    /// # Errors
    /// [`PoolError`] when there is no prefix, or two overlap or are of different families.
    pub fn new(prefixes: impl IntoIterator<Item = IpNet>) -> Result<Self, PoolError> {
        let prefixes: Box<[IpNet]> = prefixes.into_iter().map(|prefix| prefix.trunc()).collect();
        let first = *prefixes.first().ok_or(PoolError::Empty)?;
        let v4 = first.addr().is_ipv4();
        let mut free = Intervals::default();
        for (at, &prefix) in prefixes.iter().enumerate() {
            if prefix.addr().is_ipv4() != v4 {
                return Err(PoolError::Families { one: first, other: prefix });
            }
            if free.insert(interval(prefix)).is_err() {
                let overlaps = |one: &&IpNet| one.contains(&prefix) || prefix.contains(*one);
                let one = prefixes[..at].iter().find(overlaps).copied().unwrap_or(first);
                return Err(PoolError::Overlap { one, other: prefix });
            }
        }
        Ok(Self(Arc::new(Shared { prefixes, v4, free: Mutex::new(free) })))
    }

    /// The lowest free address that is not excluded.
    ///
    /// # Errors
    /// [`LeaseError::Exhausted`] when there is none.
    pub fn lease(&self, excluded: &Exclusions) -> Result<Lease, LeaseError> {
        let mut free = self.0.free();
        let number = self.lowest(&free, 0, excluded)?;
        free.remove(number);
        Ok(self.granted(number))
    }

    /// The two lowest free addresses that are not excluded, the lower one first.
    ///
    /// # Errors
    /// [`LeaseError::Exhausted`] when there are no two.
    pub fn lease_pair(&self, excluded: &Exclusions) -> Result<(Lease, Lease), LeaseError> {
        let mut free = self.0.free();
        let low = self.lowest(&free, 0, excluded)?;
        let above = low.checked_add(1).ok_or_else(|| self.exhausted())?;
        let high = self.lowest(&free, above, excluded)?;
        free.remove(low);
        free.remove(high);
        Ok((self.granted(low), self.granted(high)))
    }

    /// This address, if it is free.
    ///
    /// # Errors
    /// [`LeaseError::Taken`] when it is not, [`LeaseError::Foreign`] when it is of no prefix of the pool.
    pub fn take(&self, address: IpAddr) -> Result<Lease, LeaseError> {
        if !self.contains(address) {
            return Err(LeaseError::Foreign { address, prefixes: self.to_string() });
        }
        if self.0.free().remove(number(address)) {
            Ok(self.granted(number(address)))
        } else {
            Err(LeaseError::Taken { address })
        }
    }

    /// Whether an address is of this pool, free or not.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.prefix_of(address).is_some()
    }

    /// The prefix of this pool that an address is of.
    #[must_use]
    pub fn prefix_of(&self, address: IpAddr) -> Option<IpNet> {
        self.0.prefixes.iter().find(|prefix| prefix.contains(&address)).copied()
    }

    /// The prefixes, as they were named, without host bits.
    #[must_use]
    pub fn prefixes(&self) -> &[IpNet] {
        &self.0.prefixes
    }

    /// How many addresses are free; [`u128::MAX`] also stands for one more.
    #[must_use]
    pub fn free(&self) -> u128 {
        self.0.free().iter().fold(0, |sum: u128, (first, last)| sum.saturating_add(last - first).saturating_add(1))
    }

    /// Steps from one interval to the next, and over what an exclusion covers: no address is looked at by itself.
    fn lowest(&self, free: &Intervals, start: u128, excluded: &Exclusions) -> Result<u128, LeaseError> {
        let mut seek = Some(start);
        while let Some(start) = seek.take() {
            for (first, last) in free.from(start) {
                match excluded.end(self.0.v4, first) {
                    None => return Ok(first),
                    // Exclusions do not touch each other: what follows one is not excluded.
                    Some(end) if end < last => return Ok(end + 1),
                    Some(end) if end == last => {}
                    Some(end) => {
                        seek = end.checked_add(1);
                        break;
                    }
                }
            }
        }
        Err(self.exhausted())
    }

    fn granted(&self, number: u128) -> Lease {
        Lease::new(Arc::clone(&self.0), address(self.0.v4, number))
    }

    fn exhausted(&self) -> LeaseError {
        LeaseError::Exhausted { prefixes: self.to_string() }
    }
}

impl Shared {
    fn free(&self) -> MutexGuard<'_, Intervals> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn give_back(&self, address: IpAddr) {
        let number = number(address);
        let again = self.free().insert((number, number));
        debug_assert!(again.is_ok(), "{address} was leased and free at once");
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, prefix) in self.0.prefixes.iter().enumerate() {
            write!(f, "{}{prefix}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({self}; {} free)", self.free())
    }
}

pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// The address of a number that [`number`] made of one of the same family.
fn address(v4: bool, number: u128) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if v4 => Ipv4Addr::from(number).into(),
        _ => Ipv6Addr::from(number).into(),
    }
}

pub(super) fn interval(prefix: IpNet) -> Interval {
    (number(prefix.network()), number(prefix.broadcast()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn pool(prefixes: &[&str]) -> Result<Pool, PoolError> {
        Pool::new(prefixes.iter().map(|prefix| prefix.parse().unwrap()))
    }

    #[test]
    fn prefixes_that_contradict_each_other_are_refused() {
        assert_eq!(pool(&[]).unwrap_err(), PoolError::Empty);
        let error = pool(&["10.1.0.0/16", "10.0.0.0/24", "10.0.0.7/8"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "10.1.0.0/16 and 10.0.0.0/8 overlap: name each address once, or it would be handed out twice"
        );
        assert!(matches!(pool(&["10.0.0.0/8", "::/0"]).unwrap_err(), PoolError::Families { .. }));
    }

    #[test]
    fn the_whole_of_either_family_makes_a_pool() {
        let (v4, v6) = (pool(&["0.0.0.0/0"]).unwrap(), pool(&["::/0"]).unwrap());
        assert_eq!((v4.free(), v6.free()), (1 << 32, u128::MAX));
        let last = v6.take(IpAddr::from([0xff; 16])).unwrap();
        assert_eq!(v6.free(), u128::MAX);
        drop(last);
        let all_but_last = Exclusions::new(["0.0.0.0/1", "128.0.0.0/2"].map(|prefix| prefix.parse().unwrap()));
        assert_eq!(v4.lease(&all_but_last).unwrap().to_string(), "192.0.0.0");
        assert!(v6.lease(&Exclusions::new(["::/0".parse().unwrap()])).is_err());
    }

    #[test]
    fn an_exhausted_pool_says_what_to_do_and_keeps_a_half_pair() {
        let pool = pool(&["10.0.0.0/31", "10.0.0.4/32"]).unwrap();
        let pair = pool.lease_pair(&Exclusions::NONE).unwrap();
        let error = pool.lease_pair(&Exclusions::NONE).unwrap_err();
        assert!(error.to_string().starts_with("no free address left in 10.0.0.0/31, 10.0.0.4/32"), "{error}");
        assert_eq!(pool.free(), 1);
        drop(pair);
        assert_eq!(pool.free(), 3);
    }

    #[test]
    fn a_particular_address_is_taken_once_and_only_if_it_is_of_the_pool() {
        let pool = pool(&["fd00::/126"]).unwrap();
        let lease = pool.take("fd00::2".parse().unwrap()).unwrap();
        assert!(matches!(pool.take(lease.address()), Err(LeaseError::Taken { .. })));
        assert!(matches!(pool.take("fd00::4".parse().unwrap()), Err(LeaseError::Foreign { .. })));
        assert!(matches!(pool.take("0.0.0.2".parse().unwrap()), Err(LeaseError::Foreign { .. })));
        drop(lease);
        assert!(pool.take("fd00::2".parse().unwrap()).is_ok());
    }

    /// How long ten thousand pairs take beside a thousand exclusions; printed, not judged.
    #[test]
    fn ten_thousand_pairs_beside_a_thousand_exclusions_are_distinct() {
        let pool = pool(&["10.0.0.0/8"]).unwrap();
        let excluded =
            Exclusions::new((0..1000u32).map(|n| IpNet::from(IpAddr::from(Ipv4Addr::from(0x0a00_0000 + 3 * n)))));
        let start = std::time::SystemTime::now();
        let pairs: Vec<_> = (0..10_000).map(|_| pool.lease_pair(&excluded).unwrap()).collect();
        println!("10 000 pairs, 1000 exclusions: {:?}", start.elapsed().unwrap_or_default());
        let distinct: BTreeSet<_> = pairs.iter().flat_map(|(low, high)| [low.address(), high.address()]).collect();
        assert_eq!(distinct.len(), 20_000);
        assert!(distinct.iter().all(|address| !excluded.contains(*address)));
        drop(pairs);
        assert_eq!(pool.free(), 1 << 24);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Lease,
        Pair,
        Take(u8),
        Drop(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Lease),
            2 => Just(Step::Pair),
            1 => (0u8..80).prop_map(Step::Take),
            3 => any::<usize>().prop_map(Step::Drop),
        ]
    }

    proptest! {
        /// The model is one flag for each address of 10.0.0.0/26 and 10.0.0.96/30.
        #[test]
        fn nothing_is_given_twice_or_lost_and_the_lowest_goes_first(steps in prop::collection::vec((step(), prop::collection::vec((0u8..112, 26u8..=32), 0..4)), 0..60)) {
            let pool = pool(&["10.0.0.0/26", "10.0.0.96/30"]).unwrap();
            let all: Vec<u8> = (0..64).chain(96..100).collect();
            let host = |n: u8| IpAddr::from([10, 0, 0, n]);
            let mut free: BTreeSet<u8> = all.iter().copied().collect();
            let mut held: Vec<(u8, Lease)> = Vec::new();
            for (step, excluded) in steps {
                let nets: Vec<IpNet> = excluded.iter().map(|(n, len)| IpNet::new(host(*n), *len).unwrap()).collect();
                let excluded = Exclusions::new(nets.iter().copied());
                let allowed: Vec<u8> = free.iter().copied().filter(|n| !nets.iter().any(|net| net.contains(&host(*n)))).collect();
                match step {
                    Step::Lease => match (pool.lease(&excluded), allowed.first()) {
                        (Ok(lease), Some(&lowest)) => held.push((lowest, lease)),
                        (Err(_), None) => {}
                        (lease, lowest) => prop_assert!(false, "{:?} for {:?}", lease, lowest),
                    },
                    Step::Pair => match (pool.lease_pair(&excluded), &allowed[..]) {
                        (Ok((low, high)), &[one, two, ..]) => held.extend([(one, low), (two, high)]),
                        (Err(_), [] | [_]) => {}
                        (pair, lowest) => prop_assert!(false, "{:?} for {:?}", pair, lowest),
                    },
                    Step::Take(n) => match (pool.take(host(n)), free.contains(&n)) {
                        (Ok(lease), true) => held.push((n, lease)),
                        (Err(_), false) => {}
                        (lease, free) => prop_assert!(false, "{:?} of {}, free: {}", lease, n, free),
                    },
                    Step::Drop(which) if !held.is_empty() => drop(held.swap_remove(which % held.len())),
                    Step::Drop(_) => {}
                }
                free = all.iter().copied().filter(|n| held.iter().all(|(held, _)| held != n)).collect();
                for (n, lease) in &held {
                    prop_assert_eq!(lease.address(), host(*n));
                }
                prop_assert_eq!(pool.free(), free.len() as u128);
            }
            drop(held);
            prop_assert_eq!(pool.free(), all.len() as u128);
            prop_assert_eq!(pool.lease(&Exclusions::NONE).unwrap().address(), host(0));
        }
    }
}
