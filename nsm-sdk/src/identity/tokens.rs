use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nsm_api::SpiffeId;
use nsm_chain::{Token, TokenError, Tokens};
use ring::rand::SystemRandom;
use serde_json::json;

use super::recent::Recent;
use super::verify::ES256;
use super::{IdentityError, Svid, SvidSource, jwt};

/// Path tokens signed with the workload's SVID: JWT, ES256, claims `sub`, `exp` and (peer known) a list `aud`.
///
/// `exp` is the earlier of now plus the longest lifetime and the certificate's end, in whole seconds. Signing
/// costs some 20 µs and is asked for on every call, so a token is shared by all calls to one audience for a twentieth
/// of its lifetime (at least a second); rotation ends that at once.
pub struct Es256Tokens {
    source: Arc<dyn SvidSource>,
    lifetime: Duration,
    random: SystemRandom,
    recent: Recent,
    latest: Mutex<Option<Arc<SvidTokens>>>,
}

/// Tokens signed with one particular SVID.
struct SvidTokens {
    tokens: Arc<Es256Tokens>,
    svid: Arc<Svid>,
}

impl Es256Tokens {
    /// Signs with the SVID of `source`; a token lives `max_lifetime` at most (the reference's default is ten minutes).
    #[must_use]
    pub fn new(source: Arc<dyn SvidSource>, max_lifetime: Duration) -> Self {
        Self {
            source,
            lifetime: max_lifetime,
            random: SystemRandom::new(),
            recent: Recent::new(max_lifetime),
            latest: Mutex::default(),
        }
    }

    /// The identity behind the tokens.
    #[must_use]
    pub fn source(&self) -> &Arc<dyn SvidSource> {
        &self.source
    }

    /// A token signed with one particular SVID: the one that a link has shown to its peer, because the peer checks the
    /// token against that certificate, also after we have rotated.
    ///
    /// # Errors
    /// [`IdentityError::Expired`] if that SVID has ended meanwhile.
    pub fn token_by(&self, svid: &Arc<Svid>, audience: Option<&SpiffeId>) -> Result<Token, IdentityError> {
        self.recent.token(audience, Some(svid), |now| self.sign(svid, audience, now))
    }

    /// Tokens like these for the links that have shown `svid`, the same for all of them.
    #[must_use]
    pub fn signed_with(self: &Arc<Self>, svid: &Arc<Svid>) -> Arc<dyn Tokens> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = latest.as_ref().filter(|one| Arc::ptr_eq(&one.svid, svid)) {
            return Arc::clone(same) as _;
        }
        let made = Arc::new(SvidTokens { tokens: Arc::clone(self), svid: Arc::clone(svid) });
        *latest = Some(Arc::clone(&made));
        made
    }

    fn sign(&self, svid: &Svid, audience: Option<&SpiffeId>, now: SystemTime) -> Result<Token, IdentityError> {
        if svid.not_after() <= now {
            return Err(IdentityError::expired(svid.id().clone(), svid.not_after()));
        }
        let end = now.checked_add(self.lifetime).unwrap_or(svid.not_after()).min(svid.not_after());
        let exp = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut claims = json!({ "exp": exp, "sub": svid.id().to_string() });
        if let Some(audience) = audience {
            claims["aud"] = json!([audience.to_string()]);
        }
        let text = jwt::join(ES256, &claims, |signed| {
            svid.signer().sign(&self.random, signed).map(|signature| signature.as_ref().to_vec())
        })
        .map_err(|_| IdentityError::Key { reason: "signing failed".into() })?;
        Ok(Token { text: text.into(), expires: UNIX_EPOCH + Duration::from_secs(exp) })
    }
}

impl Tokens for Es256Tokens {
    fn token(&self, audience: Option<&SpiffeId>) -> Result<Token, TokenError> {
        self.source
            .svid()
            .and_then(|svid| self.token_by(&svid, audience))
            .map_err(|error| TokenError { reason: error.to_string() })
    }
}

impl Tokens for SvidTokens {
    fn token(&self, audience: Option<&SpiffeId>) -> Result<Token, TokenError> {
        self.tokens.token_by(&self.svid, audience).map_err(|error| TokenError { reason: error.to_string() })
    }
}

impl fmt::Debug for Es256Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Es256Tokens").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use nsm_chain::time;

    use super::*;
    use crate::identity::{Bundles, DevAuthority, FixedSvid, TokenVerifier};
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    const LIFETIME: Duration = Duration::from_secs(600);

    fn id(text: &str) -> SpiffeId {
        SpiffeId::new(text).unwrap()
    }

    fn payload(token: &Token) -> serde_json::Value {
        let part = token.text.split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn claims_are_subject_end_and_a_list_of_one_audience() {
        let authority = DevAuthority::new("example.org").unwrap();
        let tokens = Es256Tokens::new(authority.issue("/a").unwrap(), LIFETIME);
        let exp = (time::now() + LIFETIME).duration_since(UNIX_EPOCH).unwrap().as_secs();
        let token = tokens.token(Some(&id("spiffe://example.org/b"))).unwrap();
        let wanted = json!({ "sub": "spiffe://example.org/a", "exp": exp, "aud": ["spiffe://example.org/b"] });
        assert_eq!(payload(&token), wanted);
        assert_eq!(token.expires, UNIX_EPOCH + Duration::from_secs(exp));
        let token = tokens.token(None).unwrap();
        assert_eq!(payload(&token), json!({ "sub": "spiffe://example.org/a", "exp": exp }));
        let header = URL_SAFE_NO_PAD.decode(token.text.split('.').next().unwrap()).unwrap();
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&header).unwrap(),
            json!({ "alg": "ES256", "typ": "JWT" })
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_does_not_outlive_the_certificate() {
        let authority = DevAuthority::new("example.org").unwrap();
        let svid = authority.sign("/a", Duration::from_secs(100)).unwrap();
        let end = svid.not_after();
        let tokens = Es256Tokens::new(Arc::new(FixedSvid::new(svid, Bundles::default())), LIFETIME);
        assert_eq!(tokens.token(None).unwrap().expires, end);
        tokio::time::advance(Duration::from_secs(101)).await;
        let error = tokens.token(None).unwrap_err().to_string();
        assert!(error.contains("expired"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_shared_for_a_twentieth_of_its_lifetime() {
        let authority = DevAuthority::new("example.org").unwrap();
        let tokens = Es256Tokens::new(authority.issue("/a").unwrap(), LIFETIME);
        let (b, c) = (id("spiffe://example.org/b"), id("spiffe://example.org/c"));
        let first = tokens.token(Some(&b)).unwrap();
        assert_ne!(tokens.token(Some(&c)).unwrap(), first);
        tokio::time::advance(Duration::from_secs(29)).await;
        assert!(Arc::ptr_eq(&tokens.token(Some(&b)).unwrap().text, &first.text));
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = tokens.token(Some(&b)).unwrap();
        assert_eq!(second.expires, first.expires + Duration::from_secs(30));
    }

    #[test]
    fn rotation_changes_the_key_at_once_but_a_link_may_still_use_the_old_one() {
        let authority = DevAuthority::new("example.org").unwrap();
        let source = authority.issue("/a").unwrap();
        let tokens = Es256Tokens::new(Arc::clone(&source), LIFETIME);
        let old = source.svid().unwrap();
        let (verifier, now) = (TokenVerifier::new(), time::now());
        authority.rotate().unwrap();
        let leaf = |svid: &Svid| Arc::from(svid.chain()[0].as_ref());
        let token = tokens.token(None).unwrap().text;
        verifier.verify(&token, &leaf(&source.svid().unwrap()), now).unwrap();
        let token = tokens.token_by(&old, None).unwrap().text;
        verifier.verify(&token, &leaf(&old), now).unwrap();
    }
}
