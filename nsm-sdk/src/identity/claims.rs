use std::time::{Duration, SystemTime};

use serde::Deserialize;

/// What a path token claims (RFC 7519 §4.1). Other claims are ignored.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct Claims {
    /// Whose token it is.
    #[serde(rename = "sub", default)]
    pub subject: Option<String>,
    /// Whom it is for.
    #[serde(rename = "aud", default)]
    pub audience: Audience,
    #[serde(rename = "exp", default)]
    expires: Option<f64>,
}

/// Whom a token is for. Network Service Mesh writes a list, always; RFC 7519 also allows one bare string.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// A list of names.
    List(Vec<String>),
    /// One bare name.
    One(String),
    /// No audience.
    #[default]
    None,
}

impl Claims {
    /// When the token ends, if it says so. A time some thousand years ahead is capped, not refused.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        let seconds = self.expires.filter(|seconds| seconds.is_finite())?.max(0.0);
        // Far beyond every certificate, and safely inside SystemTime.
        let duration = Duration::try_from_secs_f64(seconds.min(1e11)).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(duration)
    }

    /// Whether the token names an end, and that is later than `now`.
    #[must_use]
    pub fn is_alive(&self, now: SystemTime) -> bool {
        self.expires().is_some_and(|end| end > now)
    }
}
