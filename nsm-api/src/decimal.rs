//! Numbers as Go's `strconv.ParseUint` takes them.

use std::str::FromStr;

/// An unsigned number in decimal digits and nothing else; `parse` alone would take a plus sign, too.
pub(crate) fn decimal<N: FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}
