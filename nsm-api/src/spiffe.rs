//! SPIFFE ids.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::excerpt::excerpt;

const SCHEME: &str = "spiffe://";
/// Longest id in octets (SPIFFE-ID, section 2.3).
const LONGEST_ID: usize = 2048;
/// Longest trust domain in octets (SPIFFE-ID, section 2.1).
const LONGEST_TRUST_DOMAIN: usize = 255;

/// A SPIFFE id: `spiffe://trust.domain/path`. Cheap to clone.
///
/// Valid by the SPIFFE-ID standard, section 2: a lower-case trust domain, a path without empty, `.` or
/// `..` segments (or no path), no query, no escapes.
///
/// ```
/// use nsm_api::SpiffeId;
/// let id: SpiffeId = "spiffe://example.org/ns/nsm-system/nsmgr".parse()?;
/// assert_eq!(id.trust_domain(), "example.org");
/// # Ok::<(), nsm_api::spiffe::SpiffeIdError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId(Arc<str>);

/// Why text is not a SPIFFE id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text} is not a SPIFFE id: {reason}; write spiffe://trust.domain/path")]
pub struct SpiffeIdError {
    /// The text, quoted, cut when long.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl SpiffeId {
    /// Parses an id.
    ///
    /// # Errors
    /// [`SpiffeIdError`] says which rule is broken.
    pub fn new(text: &str) -> Result<Self, SpiffeIdError> {
        match flaw(text) {
            None => Ok(Self(text.into())),
            Some(reason) => Err(SpiffeIdError { text: excerpt(text), reason }),
        }
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain, without scheme and path.
    pub fn trust_domain(&self) -> &str {
        self.split().0
    }

    /// The path with its leading `/`; empty for the id of a trust domain itself.
    pub fn path(&self) -> &str {
        self.split().1
    }

    fn split(&self) -> (&str, &str) {
        split(self.0.strip_prefix(SCHEME).unwrap_or_default())
    }
}

fn split(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find('/').unwrap_or(rest.len()))
}

fn flaw(text: &str) -> Option<&'static str> {
    if text.len() > LONGEST_ID {
        return Some("it is longer than 2048 octets");
    }
    let Some(rest) = text.strip_prefix(SCHEME) else {
        return Some("it does not begin with spiffe://");
    };
    let (trust_domain, path) = split(rest);
    let in_domain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
    let in_path = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if trust_domain.is_empty() || trust_domain.len() > LONGEST_TRUST_DOMAIN {
        return Some("its trust domain is empty or longer than 255 octets");
    }
    if !trust_domain.chars().all(in_domain) {
        return Some("its trust domain has characters other than a-z, 0-9, dot, dash, underscore");
    }
    let segments = path.split('/').skip(1);
    for segment in segments {
        if matches!(segment, "" | "." | "..") {
            return Some("its path has an empty, `.` or `..` segment");
        }
        if !segment.chars().all(in_path) {
            return Some("its path has characters other than letters, digits, dot, dash, underscore");
        }
    }
    None
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl AsRef<str> for SpiffeId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_has_a_trust_domain_and_a_path() {
        let id = SpiffeId::new("spiffe://example.org/a/b").unwrap();
        assert_eq!((id.trust_domain(), id.path()), ("example.org", "/a/b"));
        let domain = SpiffeId::new("spiffe://example.org").unwrap();
        assert_eq!((domain.trust_domain(), domain.path()), ("example.org", ""));
    }

    #[test]
    fn what_breaks_the_standard_is_refused() {
        for text in [
            "",
            "example.org/a",
            "http://example.org/a",
            "spiffe://",
            "spiffe:///a",
            "spiffe://Example.org/a",
            "spiffe://example.org:80/a",
            "spiffe://user@example.org/a",
            "spiffe://example.org/",
            "spiffe://example.org/a/",
            "spiffe://example.org/a//b",
            "spiffe://example.org/../b",
            "spiffe://example.org/a?b",
            "spiffe://example.org/a%20b",
        ] {
            assert!(SpiffeId::new(text).is_err(), "{text}");
        }
        assert!(SpiffeId::new(&format!("spiffe://e/{}", "x".repeat(2048))).is_err());
    }

    proptest! {
        #[test]
        fn valid_ids_round_trip(domain in "[a-z0-9._-]{1,20}", path in "(/[a-zA-Z0-9_-]{1,8}){0,4}") {
            let text = format!("spiffe://{domain}{path}");
            let id = SpiffeId::new(&text).unwrap();
            prop_assert_eq!(id.to_string(), text);
            prop_assert_eq!(id.trust_domain(), domain);
            prop_assert_eq!(id.path(), path);
        }

        #[test]
        fn arbitrary_text_never_panics(text in "(spiffe://)?.{0,40}") {
            if let Ok(id) = SpiffeId::new(&text) {
                prop_assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
            }
        }
    }
}
