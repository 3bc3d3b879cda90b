use std::str::FromStr;
use std::time::Duration;

use super::Malformed;

/// A length of time as Go writes it: numbers with units, such as `1h2m3.5s` or `300ms`; `0` needs no unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

/// Units by their length in nanoseconds. `us` may be written with either of Unicode's two micro signs.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3600 * 1_000_000_000),
];

/// Go's durations end here: some 292 years.
const LONGEST: u64 = i64::MAX as u64;

impl FromStr for Span {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let fail = |why: &str| Malformed(format!("{why}; write a length of time such as 1h2m3.5s or 300ms"));
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest == "0" {
            return Ok(Self(Duration::ZERO));
        }
        if rest.is_empty() {
            return Err(fail("it is empty"));
        }
        if rest.starts_with('-') {
            return Err(fail("it is negative"));
        }
        let mut nanos: u64 = 0;
        while !rest.is_empty() {
            let (whole, fraction, after) = number(rest).ok_or_else(|| fail("a number is missing"))?;
            let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
            let (unit, after) = after.split_at(end);
            let unit = UNITS.iter().find(|(name, _)| *name == unit);
            let (_, unit) = unit.ok_or_else(|| fail("a unit is missing or none of h, m, s, ms, us, ns"))?;
            let part = part(whole, fraction, *unit).and_then(|part| nanos.checked_add(part));
            nanos = part.filter(|nanos| *nanos <= LONGEST).ok_or_else(|| fail("it is longer than 292 years"))?;
            rest = after;
        }
        Ok(Self(Duration::from_nanos(nanos)))
    }
}

/// The digits before and after the point, and what follows them.
fn number(text: &str) -> Option<(&str, &str, &str)> {
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (whole, rest) = text.split_at(digits(text));
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    (!whole.is_empty() || !fraction.is_empty()).then_some((whole, fraction, rest))
}

/// `whole.fraction` units in nanoseconds; what is less than one is cut.
fn part(whole: &str, fraction: &str, unit: u64) -> Option<u64> {
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    // Digits beyond these are less than a nanosecond of any unit.
    let fraction = fraction.get(..fraction.len().min(15)).unwrap_or_default();
    let of_one = if fraction.is_empty() { 0 } else { fraction.parse::<u128>().ok()? };
    let below = of_one * u128::from(unit) / 10_u128.pow(fraction.len().try_into().ok()?);
    whole.checked_mul(unit)?.checked_add(below.try_into().ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nanos(text: &str) -> Result<u64, Malformed> {
        text.parse::<Span>().map(|span| u64::try_from(span.0.as_nanos()).unwrap())
    }

    #[test]
    fn every_form_of_go_is_read() {
        for (text, expected) in [
            ("0", 0),
            ("0s", 0),
            ("+5s", 5_000_000_000),
            ("10m", 600_000_000_000),
            ("1h2m3.5s", 3_723_500_000_000),
            ("300ms", 300_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("7us", 7_000),
            ("7\u{b5}s", 7_000),
            ("7\u{3bc}s", 7_000),
            ("0.3333333333333333333h", 1_199_999_999_999),
            ("9223372036854775807ns", i64::MAX as u64),
        ] {
            assert_eq!(nanos(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused_with_a_reason() {
        for (text, why) in [
            ("", "empty"),
            ("5", "unit"),
            ("s", "number"),
            (".s", "number"),
            ("-1s", "negative"),
            ("1 s", "unit"),
            ("1d", "unit"),
            ("1hh", "unit"),
            ("9223372036854775808ns", "292 years"),
            ("99999999999999999999h", "292 years"),
        ] {
            let error = nanos(text).unwrap_err().0;
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn parts_add_up(h in 0u64..1000, m in 0u64..1000, s in 0u64..1000, ms in 0u64..1000, ns in 0u64..1000) {
            let expected = ((h * 60 + m) * 60 + s) * 1_000_000_000 + ms * 1_000_000 + ns;
            prop_assert_eq!(nanos(&format!("{h}h{m}m{s}s{ms}ms{ns}ns")), Ok(expected));
            prop_assert_eq!(nanos(&format!("{ns}ns{s}.{ms:03}s{m}m{h}h")), Ok(expected));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "[-+0-9.hmsun\u{b5} ]{0,30}|\\PC{0,20}") {
            let _ = text.parse::<Span>();
        }
    }
}
