//! Ranges of ports.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::decimal::decimal;
use crate::excerpt::excerpt;

/// Ports from `first` to `last`, both included: `80` or `8000-8999`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Why text is not a range of ports.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text} is not a range of ports: write N or A-B, decimal, A at most B, up to 65535")]
pub struct PortRangeError {
    /// The text, quoted, cut when long.
    pub text: String,
}

impl PortRange {
    /// A range, `None` when `first` is greater than `last`.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The first port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The last port.
    pub fn last(self) -> u16 {
        self.last
    }

    /// Reads text in which nothing means any port.
    ///
    /// # Errors
    /// [`PortRangeError`].
    pub fn parse_optional(text: &str) -> Result<Option<Self>, PortRangeError> {
        if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
    }
}

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = decimal(first).zip(decimal(last)).and_then(|(first, last)| Self::new(first, last));
        range.ok_or_else(|| PortRangeError { text: excerpt(text) })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_port_or_two_joined_by_a_dash() {
        assert_eq!("80".parse(), Ok(PortRange { first: 80, last: 80 }));
        assert_eq!("80-90".parse(), Ok(PortRange { first: 80, last: 90 }));
        assert_eq!(PortRange::parse_optional(""), Ok(None));
        for text in ["", "-", "1-2-3", "90-80", "65536", "+1", " 1", "1-"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn ranges_round_trip(a in any::<u16>(), b in any::<u16>()) {
            let range = PortRange::new(a.min(b), a.max(b)).unwrap();
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,12}") {
            let _ = text.parse::<PortRange>();
        }
    }
}
