use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use nsm_chain::time;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

use super::{Claims, IdentityError, certificate, jwt};
use crate::generations::Generations;

/// Why a token was not accepted. The token itself never shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRejected {
    /// Signed with something else than ES256, or not at all.
    #[error("it is signed with {algorithm:?}; only ES256 is accepted")]
    Algorithm {
        /// The algorithm it names.
        algorithm: String,
    },
    /// The certificate to check it against is unusable.
    #[error("the peer's certificate cannot verify tokens: {0}")]
    Certificate(#[source] IdentityError),
    /// Its time is over, or it names no end.
    #[error("it has expired; check the clocks, and that the sender refreshes in time")]
    Expired,
    /// It is no JWT.
    #[error("it is malformed: bad {part}")]
    Malformed {
        /// Which part.
        part: &'static str,
    },
    /// The signature was made with another key.
    #[error("it was not signed with the key of the peer's certificate")]
    Signature,
    /// Longer than any real token.
    #[error("it is {length} bytes long; the limit is {limit}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The longest accepted one in bytes.
        limit: usize,
    },
}

/// Takes a token apart without verifying it.
///
/// # Errors
/// [`TokenRejected::Malformed`] or [`TokenRejected::TooLong`].
pub fn claims(token: &str) -> Result<Claims, TokenRejected> {
    jwt::split(token).map(|parts| parts.claims)
}

/// Verifies ES256 tokens against the certificates of peers, and remembers which it has found good.
///
/// A token is presented again with every call until its owner signs a new one: the second time costs a hash look-up.
pub struct TokenVerifier {
    good: Mutex<Known>,
}

/// The tokens that were found good. Of those whose time is over it keeps no more than of the others.
struct Known {
    tokens: Generations<Box<str>, Good>,
    /// With so many it forgets the expired ones.
    full: usize,
}

/// A verified token is good for one certificate only.
struct Good {
    certificate: Arc<[u8]>,
    claims: Arc<Claims>,
}

impl TokenVerifier {
    /// An empty memory, bounded to some thousand tokens.
    #[must_use]
    pub fn new() -> Self {
        Self { good: Mutex::new(Known { tokens: Generations::new(BOUND), full: FEW }) }
    }

    /// The claims of `token`, if it was signed with the key in `certificate` (a leaf, DER) and lives at `now`.
    ///
    /// # Errors
    /// [`TokenRejected`], saying what is wrong with it.
    pub fn verify(&self, token: &str, certificate: &Arc<[u8]>, now: SystemTime) -> Result<Arc<Claims>, TokenRejected> {
        let claims = self.verify_signature(token, certificate)?;
        if claims.is_alive(now) { Ok(claims) } else { Err(TokenRejected::Expired) }
    }

    /// The same without a look at the clock: the policies check that by a rule of its own.
    pub(super) fn verify_signature(&self, token: &str, certificate: &Arc<[u8]>) -> Result<Arc<Claims>, TokenRejected> {
        if let Some(claims) = self.remembered(token, certificate) {
            return Ok(claims);
        }
        let parts = jwt::split(token)?;
        if parts.algorithm != ES256 {
            return Err(TokenRejected::Algorithm { algorithm: parts.algorithm });
        }
        let key = certificate::p256_key(certificate).map_err(TokenRejected::Certificate)?.ok_or_else(|| {
            TokenRejected::Certificate(IdentityError::Key { reason: "the certificate's key is of another kind".into() })
        })?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
            .verify(parts.signed.as_bytes(), &parts.signature)
            .map_err(|_| TokenRejected::Signature)?;
        let claims = Arc::new(parts.claims);
        let good = Good { certificate: Arc::clone(certificate), claims: Arc::clone(&claims) };
        self.good.lock().unwrap_or_else(PoisonError::into_inner).add(token, good);
        Ok(claims)
    }

    fn remembered(&self, token: &str, certificate: &Arc<[u8]>) -> Option<Arc<Claims>> {
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        let found = good.tokens.lookup(token)?;
        let same = Arc::ptr_eq(&found.certificate, certificate) || found.certificate == *certificate;
        same.then(|| Arc::clone(&found.claims))
    }
}

impl Known {
    fn add(&mut self, token: &str, good: Good) {
        if self.tokens.len() >= self.full {
            let now = time::now();
            self.tokens.retain(|good| good.claims.is_alive(now));
            // Seldom enough that all have been added since then, or nearly.
            self.full = (2 * self.tokens.len()).clamp(FEW, 2 * BOUND - 1);
        }
        self.tokens.insert(token.into(), good);
    }
}

impl Default for TokenVerifier {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenVerifier").finish_non_exhaustive()
    }
}

pub(super) const ES256: &str = "ES256";

const BOUND: usize = 4096;
/// Not worth looking through.
const FEW: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use nsm_chain::Tokens;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::identity::{Audience, DevAuthority, Es256Tokens, HmacTokens, SvidSource};

    fn signed(source: &Arc<dyn SvidSource>) -> String {
        let tokens = Es256Tokens::new(Arc::clone(source), Duration::from_secs(600));
        tokens.token(None).unwrap().text.to_string()
    }

    fn certificate(source: &Arc<dyn SvidSource>) -> Arc<[u8]> {
        source.svid().unwrap().chain()[0].as_ref().into()
    }

    #[tokio::test(start_paused = true)]
    async fn expired_tokens_are_forgotten() {
        let source = DevAuthority::new("example.org").unwrap().issue("/a").unwrap();
        let (verifier, leaf) = (TokenVerifier::new(), certificate(&source));
        let mut most = 0;
        for n in 0..20 * FEW as u64 {
            // Each is signed with another lifetime: they are different tokens.
            let tokens = Es256Tokens::new(Arc::clone(&source), Duration::from_secs(10 + n % 3));
            verifier.verify(&tokens.token(None).unwrap().text, &leaf, time::now()).unwrap();
            tokio::time::advance(Duration::from_secs(1)).await;
            most = most.max(verifier.good.lock().unwrap().tokens.len());
        }
        assert_eq!(most, FEW);
    }

    /// The key and the token of RFC 7515, appendix A.3.
    #[test]
    fn the_token_of_rfc_7515_verifies_against_its_key() {
        let part = |text| URL_SAFE_NO_PAD.decode(text).unwrap();
        let mut pkcs8 = vec![0x30, 0x81, 0x87, 2, 1, 0, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
        pkcs8.extend([6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 4, 0x6d, 0x30, 0x6b, 2, 1, 1, 4, 0x20]);
        pkcs8.extend(part("jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"));
        pkcs8.extend([0xa1, 0x44, 3, 0x42, 0, 4]);
        pkcs8.extend(part("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"));
        pkcs8.extend(part("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"));
        let key = KeyPair::try_from(pkcs8).unwrap();
        let certificate: Arc<[u8]> = CertificateParams::default().self_signed(&key).unwrap().der().as_ref().into();
        let token = "eyJhbGciOiJFUzI1NiJ9.\
            eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
            DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_300_819_380);
        let verifier = TokenVerifier::new();
        let claims = verifier.verify(token, &certificate, end - Duration::from_nanos(1)).unwrap();
        assert_eq!((claims.expires(), &claims.subject, &claims.audience), (Some(end), &None, &Audience::None));
        assert_eq!(verifier.verify(token, &certificate, end), Err(TokenRejected::Expired));
    }

    #[test]
    fn a_token_is_good_for_the_certificate_of_its_signer_only() {
        let authority = DevAuthority::new("example.org").unwrap();
        let (one, other) = (authority.issue("/one").unwrap(), authority.issue("/other").unwrap());
        let (verifier, token, now) = (TokenVerifier::new(), signed(&one), time::now());
        assert_eq!(verifier.verify(&token, &certificate(&other), now), Err(TokenRejected::Signature));
        verifier.verify(&token, &certificate(&one), now).unwrap();
        // Remembered now, for one certificate and no other, whichever copy of it.
        verifier.verify(&token, &certificate(&one), now).unwrap();
        assert_eq!(verifier.verify(&token, &certificate(&other), now), Err(TokenRejected::Signature));
    }

    #[test]
    fn every_change_to_a_token_is_found() {
        let authority = DevAuthority::new("example.org").unwrap();
        let source = authority.issue("/a").unwrap();
        let (verifier, token, leaf, now) = (TokenVerifier::new(), signed(&source), certificate(&source), time::now());
        verifier.verify(&token, &leaf, now).unwrap();
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(verifier.verify(&changed, &leaf, now).is_err(), "byte {at}");
        }
    }

    #[test]
    fn other_algorithms_are_refused_whatever_the_signature() {
        let authority = DevAuthority::new("example.org").unwrap();
        let source = authority.issue("/a").unwrap();
        let (verifier, leaf, now) = (TokenVerifier::new(), certificate(&source), time::now());
        let hmac = HmacTokens::new(source.svid().unwrap().id()).token(None).unwrap().text;
        assert_eq!(verifier.verify(&hmac, &leaf, now), Err(TokenRejected::Algorithm { algorithm: "HS256".into() }));
        let claims = signed(&source).split('.').nth(1).unwrap().to_owned();
        let none = format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#));
        assert_eq!(verifier.verify(&none, &leaf, now), Err(TokenRejected::Algorithm { algorithm: "none".into() }));
    }

    #[test]
    fn an_audience_reads_as_list_or_string() {
        let read = |payload: &str| {
            claims(&format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"x"}"#), URL_SAFE_NO_PAD.encode(payload)))
        };
        assert_eq!(read(r#"{"aud":["a","b"]}"#).unwrap().audience, Audience::List(vec!["a".into(), "b".into()]));
        assert_eq!(read(r#"{"aud":"a"}"#).unwrap().audience, Audience::One("a".into()));
        assert_eq!(read("{}").unwrap().audience, Audience::None);
        assert_eq!(
            read(r#"{"exp":1e300}"#).unwrap().expires(),
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(100_000_000_000))
        );
        assert_eq!(read(r#"{"exp":-5}"#).unwrap().expires(), Some(SystemTime::UNIX_EPOCH));
        for wrong in ["[]", "7", r#"{"aud":7}"#, r#"{"sub":["a"]}"#, r#"{"exp":"soon"}"#, "{"] {
            assert_eq!(read(wrong), Err(TokenRejected::Malformed { part: "claims" }), "{wrong}");
        }
        assert!(matches!(claims(&"a".repeat(9000)), Err(TokenRejected::TooLong { length: 9000, .. })));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[A-Za-z0-9_.-]{0,80}|\\PC{0,40}") {
            let _ = claims(&text);
        }
    }
}
