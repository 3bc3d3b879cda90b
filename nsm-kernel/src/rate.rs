//! How much an interface may send.

use std::{fmt, num::NonZeroU64, str::FromStr};

/// A rate in bits a second, counted over whole Ethernet frames.
///
/// As text it is a whole number and its unit: `bit`, `kbit`, `Mbit`, `Gbit` or `Tbit`, in steps of 1000.
///
/// ```
/// # use nsm_kernel::Rate;
/// let rate: Rate = "100Mbit".parse()?;
/// assert_eq!(rate.bits_per_second(), 100_000_000);
/// assert_eq!(rate.to_string(), "100Mbit");
/// assert!("100MB".parse::<Rate>().is_err());
/// # Ok::<(), nsm_kernel::RateError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rate(NonZeroU64);

/// A text that is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no rate: {reason}; write a whole number and bit, kbit, Mbit, Gbit or Tbit (a second), as in 100Mbit"
)]
pub struct RateError {
    /// The text, or the beginning of it.
    text: String,
    /// What is wrong with it.
    reason: &'static str,
}

/// The smallest rate in bits a second: an octet.
const LEAST: u64 = 8;
/// The greatest: at it what waits for a twentieth of a second still fits the kernel's field.
const MOST: u64 = 400_000_000_000;

const UNITS: [(&str, u64); 5] =
    [("Tbit", 1_000_000_000_000), ("Gbit", 1_000_000_000), ("Mbit", 1_000_000), ("kbit", 1000), ("bit", 1)];

impl Rate {
    /// This many bits a second; `None` below 8 and above 400 Gbit.
    #[must_use]
    pub fn new(bits_per_second: u64) -> Option<Self> {
        let fits = (LEAST..=MOST).contains(&bits_per_second);
        NonZeroU64::new(bits_per_second).filter(|_| fits).map(Self)
    }

    /// In bits a second.
    #[must_use]
    pub fn bits_per_second(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let wrong = |reason| RateError { text: text.chars().take(32).collect(), reason };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let (_, factor) = UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .ok_or_else(|| wrong("its unit is none of bits"))?;
        let number: u64 = number.parse().map_err(|_| wrong("it does not begin with a whole number"))?;
        let bits = number.checked_mul(*factor).ok_or_else(|| wrong("it is above 400Gbit"))?;
        Self::new(bits).ok_or_else(|| wrong(if bits < LEAST { "it is below 8bit" } else { "it is above 400Gbit" }))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.bits_per_second();
        let (unit, factor) = UNITS.into_iter().find(|(_, factor)| bits.is_multiple_of(*factor)).unwrap_or(("bit", 1));
        write!(f, "{}{unit}", bits / factor)
    }
}

/// A rate in the terms of a token bucket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shaping {
    pub(crate) bytes_per_second: u64,
    /// Octets that pass at once after a pause: 10 ms of the rate, at least ten packets.
    pub(crate) burst: u32,
    /// Octets that may wait: the burst and 50 ms of the rate, at least ten packets more. What comes then is dropped.
    pub(crate) queue: u32,
}

/// The kernel keeps the burst as a time, rounded. It follows from the two others.
impl PartialEq for Shaping {
    fn eq(&self, other: &Self) -> bool {
        (self.bytes_per_second, self.queue) == (other.bytes_per_second, other.queue)
    }
}

impl Eq for Shaping {}

impl Shaping {
    /// For an interface of this MTU; the default of most where it is not known.
    pub(crate) fn of(rate: Rate, mtu: Option<u32>) -> Self {
        // With the header of Ethernet and a tag.
        let ten_packets = 10 * (u64::from(mtu.unwrap_or(1500)) + 18);
        let bytes_per_second = rate.bits_per_second() / 8;
        let burst = (bytes_per_second / 100).max(ten_packets);
        let queue = burst + (bytes_per_second / 20).max(ten_packets);
        let fitting = |octets: u64| u32::try_from(octets).unwrap_or(u32::MAX);
        Self { bytes_per_second, burst: fitting(burst), queue: fitting(queue) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_read_strictly() {
        let bits = |text: &str| text.parse::<Rate>().map(Rate::bits_per_second);
        assert_eq!((bits("8bit"), bits("64KBIT"), bits("400Gbit")), (Ok(8), Ok(64_000), Ok(400_000_000_000)));
        for wrong in [
            "",
            "0",
            "0bit",
            "7bit",
            "100",
            "100 Mbit",
            "1.5Mbit",
            "-1bit",
            "+8bit",
            "100Mbps",
            "100MB",
            "Mbit",
            "401Gbit",
            "99999999999999999999bit",
            "9999999999Tbit",
        ] {
            let error = bits(wrong).unwrap_err();
            assert!(error.to_string().contains("100Mbit"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_rate_is_read_as_it_is_written(bits in LEAST..=MOST, text in ".{0,40}") {
            let rate = Rate::new(bits).unwrap();
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
            let _any_text_is_fine = text.parse::<Rate>();
            let shaping = Shaping::of(rate, Some(65_535));
            prop_assert!(shaping.burst < shaping.queue && shaping.queue < u32::MAX);
        }
    }
}
