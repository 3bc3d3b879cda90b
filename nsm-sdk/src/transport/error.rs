use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::Address;
use crate::identity::IdentityError;

/// A link that could not be made, or a socket that could not be listened on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    /// Somebody listens there.
    #[error("{address} is in use by another process; stop it, or listen elsewhere")]
    AddressInUse {
        /// The address.
        address: Address,
    },
    /// The socket could not be made.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: Address,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The connection ended before the peer was ready to serve.
    #[error(
        "{address} closed the connection: {reason}; check that a gRPC server listens there, with the same transport security"
    )]
    Closed {
        /// The address.
        address: Address,
        /// How it ended.
        reason: String,
    },
    /// The TLS handshake failed for another reason than a certificate.
    #[error("TLS handshake with {address} failed: {reason}; check that both ends use mutual TLS")]
    Handshake {
        /// The address.
        address: Address,
        /// What TLS said.
        reason: String,
    },
    /// We have no usable identity to show.
    #[error("cannot open a link to {address}: {source}")]
    Identity {
        /// The address.
        address: Address,
        /// Why.
        #[source]
        source: IdentityError,
    },
    /// Connecting failed for a reason without a name of its own.
    #[error("cannot connect to {address}: {source}")]
    Io {
        /// The address.
        address: Address,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// No such socket file, host name or pipe.
    #[error("nothing is at {address}; check the address, and that the role there has started")]
    NotFound {
        /// The address.
        address: Address,
    },
    /// The address exists, but nobody accepts.
    #[error("{address} refused the connection; check that the role there is running")]
    Refused {
        /// The address.
        address: Address,
    },
    /// The peer does not accept our certificate.
    #[error("{address} rejected our certificate: {reason}; its log says why (trust domain, expiry)")]
    Rejected {
        /// The address.
        address: Address,
        /// The alert it sent.
        reason: String,
    },
    /// It took too long.
    #[error("no link to {address} within {after:?}; check that the role there is not stuck and the network passes")]
    Timeout {
        /// The address.
        address: Address,
        /// The limit that passed.
        after: Duration,
    },
    /// We do not accept the peer's certificate.
    #[error("the peer at {address} is not trusted: {source}")]
    Untrusted {
        /// The address.
        address: Address,
        /// Why.
        #[source]
        source: IdentityError,
    },
}

impl TransportError {
    /// Sorts what the system says about a connect.
    pub(super) fn connect(address: &Address, error: io::Error) -> Self {
        let address = address.clone();
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused { address },
            io::ErrorKind::NotFound => Self::NotFound { address },
            _ => Self::Io { address, source: Arc::new(error) },
        }
    }

    /// Sorts what TLS says in a handshake, or on the first read after it, when a TLS 1.3 peer has judged our certificate.
    pub(super) fn tls(address: &Address, error: &io::Error) -> Self {
        let address = address.clone();
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            return Self::Closed { address, reason: error.to_string() };
        };
        match tls {
            rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => {
                match other.0.downcast_ref::<IdentityError>() {
                    Some(source) => Self::Untrusted { address, source: source.clone() },
                    None => Self::Handshake { address, reason: tls.to_string() },
                }
            }
            rustls::Error::InvalidCertificate(reason) => {
                let source = IdentityError::Malformed { reason: format!("{reason:?}") };
                Self::Untrusted { address, source }
            }
            rustls::Error::AlertReceived(alert) if is_about_certificates(*alert) => {
                Self::Rejected { address, reason: format!("{alert:?}") }
            }
            _ => Self::Handshake { address, reason: tls.to_string() },
        }
    }
}

fn is_about_certificates(alert: rustls::AlertDescription) -> bool {
    use rustls::AlertDescription as Alert;
    matches!(
        alert,
        Alert::AccessDenied
            | Alert::BadCertificate
            | Alert::CertificateExpired
            | Alert::CertificateRequired
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::UnsupportedCertificate
    )
}
