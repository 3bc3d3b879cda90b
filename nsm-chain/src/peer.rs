//! Who is at the other end of a link, and the tokens that travel with each call.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use nsm_api::SpiffeId;

use crate::Descriptors;

/// The authenticated other end of a link, as its TLS handshake showed it.
#[derive(Clone)]
pub struct Peer {
    /// The SPIFFE ID in the certificate's URI name.
    pub id: SpiffeId,
    /// The leaf certificate, DER. Path tokens are verified against its key.
    pub certificate: Arc<[u8]>,
    /// When that certificate ends.
    pub not_after: SystemTime,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Peer").field(&self.id).finish()
    }
}

/// A signed path token with the expiry that is reported beside it.
///
/// Its text never shows in `Debug`: tokens do not reach a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The JWT as it travels.
    pub text: Arc<str>,
    /// When it (or the certificate behind it) ends.
    pub expires: SystemTime,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// Makes this workload's tokens.
pub trait Tokens: Send + Sync + 'static {
    /// A token for `audience`, the identity of the peer that will check it (none: a link without identity).
    ///
    /// # Errors
    /// When there is no valid certificate to sign with.
    fn token(&self, audience: Option<&SpiffeId>) -> Result<Token, TokenError>;
}

/// No token could be made.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "no token can be signed: {reason}; check that the identity source (SPIFFE agent or development authority) is up"
)]
pub struct TokenError {
    /// Why.
    pub reason: String,
}

/// A token inside a registry path: text only, hidden from `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PathToken(
    /// The JWT as it travels.
    pub String,
);

impl fmt::Debug for PathToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<none>" } else { "<token>" })
    }
}

/// What is known of a link, in both directions: of the one a call came in on (the transport puts it into the request's
/// extensions, and elements find it as a fact of the call), and of the one an answer came over ([`ServerLink`]).
///
/// ```
/// # use nsm_chain::{Call, LinkInfo};
/// # fn example(call: &Call) {
/// let from_another_process = call.fact::<LinkInfo>().is_some_and(|link| !link.in_process);
/// # }
/// ```
#[derive(Clone, Default)]
pub struct LinkInfo {
    /// Who is at the other end; none on a link without identity.
    pub peer: Option<Arc<Peer>>,
    /// Makes the tokens that the other end will check: signed with the key of the certificate that this link has shown it,
    /// also after a rotation. Links that have shown the same certificate share it; none on a link without identity.
    pub shown: Option<Arc<dyn Tokens>>,
    /// The file descriptors that come and go on it; none where none can, as over TCP.
    pub descriptors: Option<Arc<dyn Descriptors>>,
    /// Whether both ends are in this process, where a path means the same to both.
    pub in_process: bool,
}

impl LinkInfo {
    /// This workload's token for the other end, made by `otherwise` on a link without identity. What is reported as its end is
    /// not later than that of the other end's certificate.
    ///
    /// # Errors
    /// When there is no valid certificate to sign with.
    pub fn token(&self, otherwise: &dyn Tokens) -> Result<Token, TokenError> {
        let tokens = self.shown.as_deref().unwrap_or(otherwise);
        let Some(peer) = &self.peer else {
            return tokens.token(None);
        };
        let mut token = tokens.token(Some(&peer.id))?;
        token.expires = token.expires.min(peer.not_after);
        Ok(token)
    }
}

impl fmt::Debug for LinkInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkInfo")
            .field("peer", &self.peer)
            .field("descriptors", &self.descriptors)
            .field("in_process", &self.in_process)
            .finish_non_exhaustive()
    }
}

/// A fact: the link over which the answer came, left in a call that came back.
#[derive(Debug, Clone)]
pub struct ServerLink(
    /// As it was for this very answer.
    pub LinkInfo,
);
