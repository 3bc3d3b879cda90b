use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nsm_api::mechanism::{VniParity, Vxlan};

use crate::Random;

/// The VXLAN network identifiers in use on this node.
///
/// One belongs to a connection and the node at the tunnel's other end: two nodes may insist on the same one, as the reference
/// does, which keeps them unique for each source address. What is issued here is unique on this node, for the kernel's devices
/// are told apart by it, and two of the same need a detour.
pub struct Vnis {
    taken: Mutex<Taken>,
    range: RangeInclusive<u32>,
    random: Random,
}

#[derive(Default)]
struct Taken {
    /// By connections, each towards a node.
    owned: BTreeSet<(u32, IpAddr)>,
    /// By what an earlier life left, and by how many of it; may be claimed, which takes it up, but is not issued to others.
    reserved: HashMap<u32, usize>,
}

/// An identifier that is not issued to anybody until this is dropped.
pub struct Reserved {
    number: u32,
    pool: Arc<Vnis>,
}

/// One identifier, ours until this is dropped.
pub struct Vni {
    number: u32,
    peer: IpAddr,
    pool: Arc<Vnis>,
}

/// Why an identifier cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VniError {
    /// Another connection with the same other node has it.
    #[error("VXLAN network identifier {0} belongs to another connection between these nodes; ask again without it")]
    Taken(u32),
    /// Not an identifier.
    #[error("{0} is not a VXLAN network identifier: it must be a number from 1 to 16777215")]
    OutOfRange(u32),
    /// All that this side may issue are in use.
    #[error("all VXLAN network identifiers that this side may issue are in use; close connections")]
    Exhausted,
}

impl Vnis {
    /// All 24 bits but 0 (RFC 7348, section 5).
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::within(1..=Vxlan::LARGEST_VNI, Random::default())
    }

    /// Issues identifiers of a range only, in an order of one's own choice.
    #[must_use]
    pub fn within(range: RangeInclusive<u32>, random: Random) -> Arc<Self> {
        let (first, last) = range.into_inner();
        let range = first.max(1)..=last.min(Vxlan::LARGEST_VNI);
        Arc::new(Self { taken: Mutex::default(), range, random })
    }

    /// One that nobody on this node uses, of the half that this side of a tunnel to `peer` may issue.
    ///
    /// # Errors
    /// [`VniError::Exhausted`].
    pub fn draw(self: &Arc<Self>, parity: VniParity, peer: IpAddr) -> Result<Vni, VniError> {
        let (start, end) = (*self.range.start(), *self.range.end());
        let first = if parity.admits(start) { start } else { start + 1 };
        let count = if first > end { 0 } else { (end - first) / 2 + 1 };
        let from = self.random.below(count);
        let mut taken = self.taken();
        // From a random place on to the next free one: ends even when all are taken.
        let mut numbers = (0..count).map(|step| first + 2 * ((from + step) % count));
        let number = numbers.find(|number| !taken.reserved.contains_key(number) && !taken.is_owned(*number));
        let number = number.ok_or(VniError::Exhausted)?;
        taken.owned.insert((number, peer));
        Ok(self.guard(number, peer))
    }

    /// This very one, for a tunnel to `peer`: issued by that node, or by us in an earlier life.
    ///
    /// # Errors
    /// [`VniError::Taken`] or [`VniError::OutOfRange`].
    pub fn claim(self: &Arc<Self>, number: u32, peer: IpAddr) -> Result<Vni, VniError> {
        if number == 0 || number > Vxlan::LARGEST_VNI {
            return Err(VniError::OutOfRange(number));
        }
        let is_free = self.taken().owned.insert((number, peer));
        if is_free { Ok(self.guard(number, peer)) } else { Err(VniError::Taken(number)) }
    }

    /// Keeps one from being issued: a tunnel that an earlier life left has it. It may still be claimed, by who takes that
    /// tunnel up.
    pub fn reserve(self: &Arc<Self>, number: u32) -> Reserved {
        *self.taken().reserved.entry(number).or_default() += 1;
        Reserved { number, pool: Arc::clone(self) }
    }

    /// How many connections have one.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.taken().owned.len()
    }

    fn guard(self: &Arc<Self>, number: u32, peer: IpAddr) -> Vni {
        Vni { number, peer, pool: Arc::clone(self) }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Whether a connection has it, towards whatever node.
    fn is_owned(&self, number: u32) -> bool {
        let (first, last) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)));
        self.owned.range((number, first)..=(number, last)).next().is_some()
    }
}

impl Vni {
    /// The identifier.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The node at the other end of the tunnel.
    #[must_use]
    pub fn peer(&self) -> IpAddr {
        self.peer
    }
}

impl Drop for Vni {
    fn drop(&mut self) {
        self.pool.taken().owned.remove(&(self.number, self.peer));
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut taken = self.pool.taken();
        if let Some(count) = taken.reserved.get_mut(&self.number) {
            *count -= 1;
            if *count == 0 {
                taken.reserved.remove(&self.number);
            }
        }
    }
}

impl fmt::Debug for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reserved({})", self.number)
    }
}

impl fmt::Debug for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vni({})", self.number)
    }
}

impl fmt::Debug for Vnis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vnis({} in use)", self.in_use())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn peer(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    #[derive(Debug, Clone)]
    enum Step {
        Draw(bool, u8),
        Claim(u32, u8),
        Drop(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (any::<bool>(), 0u8..3).prop_map(|(even, peer)| Step::Draw(even, peer)),
            (0u32..70, 0u8..3).prop_map(|(number, peer)| Step::Claim(number, peer)),
            any::<prop::sample::Index>().prop_map(Step::Drop),
        ]
    }

    proptest! {
        #[test]
        fn no_identifier_is_owned_twice_none_is_zero_and_none_is_lost(
            seed in any::<u64>(), first in 0u32..4, steps in prop::collection::vec(step(), 0..200)
        ) {
            let pool = Vnis::within(first..=40, Random::seeded(seed));
            let mut held: BTreeMap<(u32, IpAddr), Vni> = BTreeMap::new();
            let is_held = |held: &BTreeMap<(u32, IpAddr), Vni>, n: u32| held.keys().any(|(held, _)| *held == n);
            let free = |held: &BTreeMap<(u32, IpAddr), Vni>, parity: VniParity| {
                (first.max(1)..=40).filter(|n| parity.admits(*n) && !is_held(held, *n)).count()
            };
            for step in steps {
                match step {
                    Step::Draw(even, last) => {
                        let parity = if even { VniParity::Even } else { VniParity::Odd };
                        match pool.draw(parity, peer(last)) {
                            Ok(vni) => {
                                prop_assert!(vni.number() != 0 && parity.admits(vni.number()));
                                prop_assert!(!is_held(&held, vni.number()));
                                prop_assert!(held.insert((vni.number(), vni.peer()), vni).is_none());
                            }
                            Err(error) => {
                                prop_assert_eq!(error, VniError::Exhausted);
                                prop_assert_eq!(free(&held, parity), 0);
                            }
                        }
                    }
                    Step::Claim(number, last) => match pool.claim(number, peer(last)) {
                        Ok(vni) => prop_assert!(held.insert((number, peer(last)), vni).is_none()),
                        Err(VniError::Taken(_)) => prop_assert!(held.contains_key(&(number, peer(last)))),
                        Err(error) => prop_assert_eq!((error, number), (VniError::OutOfRange(0), 0)),
                    },
                    Step::Drop(index) => {
                        if let Some(number) = (!held.is_empty()).then(|| *index.get(&held.keys().copied().collect::<Vec<_>>())) {
                            held.remove(&number);
                        }
                    }
                }
                prop_assert_eq!(pool.in_use(), held.len());
            }
        }
    }

    #[test]
    fn what_a_former_tunnel_has_is_issued_to_nobody_and_may_be_taken_up() {
        let pool = Vnis::within(1..=4, Random::seeded(1));
        let reserved = pool.reserve(3);
        let again = pool.reserve(3);
        let odd = pool.draw(VniParity::Odd, peer(1)).unwrap();
        assert_eq!((odd.number(), pool.draw(VniParity::Odd, peer(1)).unwrap_err()), (1, VniError::Exhausted));
        let taken_up = pool.claim(3, peer(1)).unwrap();
        drop(reserved);
        assert_eq!(pool.claim(3, peer(1)).unwrap_err(), VniError::Taken(3));
        drop(taken_up);
        // Two had it.
        assert_eq!(pool.draw(VniParity::Odd, peer(1)).unwrap_err(), VniError::Exhausted);
        drop(again);
        assert_eq!(pool.draw(VniParity::Odd, peer(1)).unwrap().number(), 3);
    }

    #[test]
    fn two_nodes_may_insist_on_the_same_one_and_a_third_gets_another() {
        let pool = Vnis::within(1..=4, Random::seeded(1));
        let [one, two] = [1, 2].map(|last| pool.claim(2, peer(last)).unwrap());
        assert_eq!(pool.claim(2, peer(1)).unwrap_err(), VniError::Taken(2));
        assert_eq!(pool.draw(VniParity::Even, peer(3)).unwrap().number(), 4);
        drop(one);
        let four = [0; 2].map(|_| pool.draw(VniParity::Even, peer(3)).map(|vni| vni.number()));
        assert_eq!((four, two.number()), ([Ok(4), Ok(4)], 2));
    }

    #[test]
    fn the_whole_range_starts_behind_zero() {
        let pool = Vnis::new();
        assert_eq!(pool.claim(0, peer(1)).unwrap_err(), VniError::OutOfRange(0));
        assert_eq!(pool.claim(1 << 24, peer(1)).unwrap_err(), VniError::OutOfRange(1 << 24));
        let vni = pool.claim(0xff_ffff, peer(1)).unwrap();
        assert_eq!(pool.claim(0xff_ffff, peer(1)).unwrap_err(), VniError::Taken(vni.number()));
    }
}
