use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use nsm_api::SpiffeId;
use nsm_chain::{Token, TokenError, Tokens};
use ring::hmac;
use serde_json::json;

use super::jwt;
use super::recent::Recent;

/// Tokens for links without identity (tests, benchmarks): HS256 with a key that everyone knows.
///
/// They decode, carry a subject, an audience and an end, and prove nothing: every signature rule denies them. The reference's test kit
/// does the same.
pub struct HmacTokens {
    subject: String,
    lifetime: Duration,
    key: hmac::Key,
    recent: Recent,
}

impl HmacTokens {
    /// Tokens in the name of `subject` that live an hour.
    #[must_use]
    pub fn new(subject: &SpiffeId) -> Self {
        Self::with_lifetime(subject, Duration::from_secs(3600))
    }

    /// The same, with another lifetime.
    #[must_use]
    pub fn with_lifetime(subject: &SpiffeId, lifetime: Duration) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"everyone knows this key");
        Self { subject: subject.to_string(), lifetime, key, recent: Recent::new(lifetime) }
    }
}

impl Tokens for HmacTokens {
    fn token(&self, audience: Option<&SpiffeId>) -> Result<Token, TokenError> {
        self.recent.token(audience, None, |now| {
            let end = now.checked_add(self.lifetime).unwrap_or(now).duration_since(UNIX_EPOCH).unwrap_or_default();
            let mut claims = json!({ "exp": end.as_secs(), "sub": self.subject });
            if let Some(audience) = audience {
                claims["aud"] = json!([audience.to_string()]);
            }
            let text = jwt::join("HS256", &claims, |signed| {
                Ok::<_, TokenError>(hmac::sign(&self.key, signed).as_ref().to_vec())
            })?;
            Ok(Token { text: text.into(), expires: UNIX_EPOCH + Duration::from_secs(end.as_secs()) })
        })
    }
}

impl fmt::Debug for HmacTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HmacTokens").field("subject", &self.subject).finish_non_exhaustive()
    }
}
