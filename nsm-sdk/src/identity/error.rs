use std::path::PathBuf;
use std::time::SystemTime;

use nsm_api::SpiffeId;

/// An identity that cannot be used, ours or a peer's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The directory of a development authority cannot be used.
    #[error("the development authority in {} cannot be used: {reason}", .directory.display())]
    Authority {
        /// The directory.
        directory: PathBuf,
        /// Why.
        reason: String,
    },
    /// The certificate's time is over.
    #[error("the certificate of {id} expired at {}; {advice}", nsm_chain::grpc::headers::rfc3339(*.not_after))]
    Expired {
        /// Whose certificate.
        id: SpiffeId,
        /// When it ended.
        not_after: SystemTime,
        /// Why there is no newer one, or what to do.
        advice: String,
    },
    /// The key is not the one that the certificate names, or not ECDSA P-256.
    #[error("the private key does not fit: {reason}; path tokens are ES256, so the key must be ECDSA P-256")]
    Key {
        /// Why.
        reason: String,
    },
    /// Bytes that are no X.509 certificate.
    #[error("malformed certificate: {reason}")]
    Malformed {
        /// Why.
        reason: String,
    },
    /// The peer showed no certificate.
    #[error("no certificate was shown; both ends of a link must have an SVID")]
    NoCertificate,
    /// The certificate carries no SPIFFE ID, or more than one URI name.
    #[error(
        "the certificate carries no SPIFFE ID: {reason}; an SVID has exactly one URI name, spiffe://<trust domain>/<path>"
    )]
    NoSpiffeId {
        /// Why.
        reason: String,
    },
    /// The source has no SVID (yet).
    #[error("there is no SVID: {reason}; check that the identity source is up and knows this workload")]
    NoSvid {
        /// Why.
        reason: String,
    },
    /// The certificate does not chain to the bundle of the trust domain that it names.
    #[error("the certificate of {id} is not signed by an authority of its trust domain: {reason}")]
    NotTrusted {
        /// Whom it claims to be.
        id: SpiffeId,
        /// Why.
        reason: String,
    },
    /// The authority could not sign.
    #[error("the development authority could not issue a certificate: {reason}")]
    Signing {
        /// Why.
        reason: String,
    },
    /// There is no bundle for the peer's trust domain.
    #[error(
        "trust domain of {id} is not trusted here; federate with it, or check which authority the peer got its SVID from"
    )]
    WrongTrustDomain {
        /// Whom the certificate names.
        id: SpiffeId,
    },
}

impl IdentityError {
    /// [`IdentityError::Expired`] where nothing more is known.
    pub(crate) fn expired(id: SpiffeId, not_after: SystemTime) -> Self {
        Self::Expired { id, not_after, advice: "rotate it, or check the clocks of both machines".to_owned() }
    }
}
