use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

use super::cache::Generations;
use super::{Claims, IdentityError, certificate, jwt};

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
    good: Mutex<Generations<Box<str>, Good>>,
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
        Self { good: Mutex::new(Generations::new(BOUND)) }
    }

    /// The claims of `token`, if it was signed with the key in `certificate` (a leaf, DER) and lives at `now`.
    ///
    /// # Errors
    /// [`TokenRejected`], saying what is wrong with it.
    pub fn verify(
        &self,
        token: &str,
        certificate: &Arc<[u8]>,
        now: SystemTime,
    ) -> Result<Arc<Claims>, TokenRejected> {
        let claims = self.verify_signature(token, certificate)?;
        if claims.is_alive(now) { Ok(claims) } else { Err(TokenRejected::Expired) }
    }

    /// The same without a look at the clock: the policies check that by a rule of its own.
    pub(super) fn verify_signature(
        &self,
        token: &str,
        certificate: &Arc<[u8]>,
    ) -> Result<Arc<Claims>, TokenRejected> {
        if let Some(claims) = self.remembered(token, certificate) {
            return Ok(claims);
        }
        let parts = jwt::split(token)?;
        if parts.algorithm != ES256 {
            return Err(TokenRejected::Algorithm { algorithm: parts.algorithm });
        }
        let key = certificate::p256_key(certificate)
            .map_err(TokenRejected::Certificate)?
            .ok_or_else(|| TokenRejected::Certificate(IdentityError::Key {
                reason: "the certificate's key is of another kind".into(),
            }))?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
            .verify(parts.signed.as_bytes(), &parts.signature)
            .map_err(|_| TokenRejected::Signature)?;
        let claims = Arc::new(parts.claims);
        let good = Good { certificate: Arc::clone(certificate), claims: Arc::clone(&claims) };
        self.good.lock().unwrap_or_else(PoisonError::into_inner).insert(token.into(), good);
        Ok(claims)
    }

    fn remembered(&self, token: &str, certificate: &Arc<[u8]>) -> Option<Arc<Claims>> {
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        let found = good.lookup(token)?;
        let same = Arc::ptr_eq(&found.certificate, certificate) || found.certificate == *certificate;
        same.then(|| Arc::clone(&found.claims))
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
