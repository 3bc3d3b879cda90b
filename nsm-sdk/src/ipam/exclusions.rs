//! Prefixes that a connection must not get addresses from.

use std::net::IpAddr;

use ipnet::IpNet;
use nsm_api::IpContext;

use super::intervals::Interval;
use super::pool::{interval, number};

/// Prefixes that a connection must not get addresses from, ready to be asked.
///
/// It is made once a Request and shared by every pool that gives something to it. A pool steps over what is in it;
/// it does not copy itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exclusions {
    v4: Vec<Interval>,
    v6: Vec<Interval>,
}

/// An excluded prefix that cannot be read. Nothing is handed out then: a lost exclusion is an address conflict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("excluded_prefixes[{index}] is {text:?}, not a prefix")]
pub struct ExclusionError {
    /// Its place in the list.
    pub index: usize,
    /// Its beginning.
    pub text: String,
}

impl Exclusions {
    /// Nothing is excluded.
    pub const NONE: Self = Self { v4: Vec::new(), v6: Vec::new() };

    /// These prefixes are.
    #[must_use]
    pub fn new(prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        let mut all = Self::NONE;
        for prefix in prefixes {
            let list = if prefix.addr().is_ipv4() { &mut all.v4 } else { &mut all.v6 };
            list.push(interval(prefix));
        }
        join(&mut all.v4);
        join(&mut all.v6);
        all
    }

    /// Those that a Request names in `excluded_prefixes`: prefixes, or single addresses.
    ///
    /// # Errors
    /// [`ExclusionError`] names the first that cannot be read.
    pub fn of(context: &IpContext) -> Result<Self, ExclusionError> {
        let read = |(index, text): (usize, &String)| {
            let prefix = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            prefix.map_err(|_| ExclusionError { index, text: text.chars().take(48).collect() })
        };
        let prefixes: Vec<_> = context.excluded_prefixes.iter().enumerate().map(read).collect::<Result<_, _>>()?;
        Ok(Self::new(prefixes))
    }

    /// Whether an address is excluded.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.end(address.is_ipv4(), number(address)).is_some()
    }

    /// The last number of the excluded interval that this one lies in.
    pub(super) fn end(&self, v4: bool, number: u128) -> Option<u128> {
        let list = if v4 { &self.v4 } else { &self.v6 };
        let (_, last) = *list.get(list.partition_point(|(first, _)| *first <= number).checked_sub(1)?)?;
        (number <= last).then_some(last)
    }
}

/// Sorts, and joins what touches or overlaps.
fn join(list: &mut Vec<Interval>) {
    list.sort_unstable();
    list.dedup_by(|later, earlier| {
        let touches = later.0 <= earlier.1.saturating_add(1);
        if touches {
            earlier.1 = earlier.1.max(later.1);
        }
        touches
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn context(prefixes: &[&str]) -> IpContext {
        IpContext { excluded_prefixes: prefixes.iter().map(ToString::to_string).collect(), ..Default::default() }
    }

    #[test]
    fn families_do_not_mix() {
        let excluded = Exclusions::of(&context(&["0.0.0.0/1", "::/120"])).unwrap();
        assert!(excluded.contains("127.255.255.255".parse().unwrap()));
        assert!(!excluded.contains("128.0.0.0".parse().unwrap()));
        assert!(excluded.contains("::ff".parse().unwrap()));
        assert!(!excluded.contains("::100".parse().unwrap()));
    }

    #[test]
    fn an_address_without_length_is_one_host() {
        let excluded = Exclusions::of(&context(&["10.0.0.1"])).unwrap();
        assert_eq!(excluded, Exclusions::new(["10.0.0.1/32".parse().unwrap()]));
    }

    #[test]
    fn what_cannot_be_read_is_named_and_cut() {
        let long = "x".repeat(5000);
        let error = Exclusions::of(&context(&["10.0.0.0/8", &long])).unwrap_err();
        assert_eq!(error.index, 1);
        assert_eq!(error.text.len(), 48);
    }

    proptest! {
        #[test]
        fn it_contains_what_one_of_its_prefixes_does(prefixes in prop::collection::vec((any::<u8>(), 24u8..=32), 0..12), probe in any::<u8>()) {
            let nets: Vec<IpNet> = prefixes.iter().map(|(host, len)| IpNet::new([10, 0, 0, *host].into(), *len).unwrap()).collect();
            let probe = IpAddr::from([10, 0, 0, probe]);
            prop_assert_eq!(Exclusions::new(nets.iter().copied()).contains(probe), nets.iter().any(|net| net.contains(&probe)));
        }
    }
}
