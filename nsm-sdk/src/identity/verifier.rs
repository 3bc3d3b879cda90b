//! The check of a peer's certificate inside a TLS handshake.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};

use super::{IdentityError, SvidSource, certificate, tls};

pub(super) struct SpiffeVerifier {
    source: Arc<dyn SvidSource>,
}

impl SpiffeVerifier {
    pub(super) fn new(source: Arc<dyn SvidSource>) -> Self {
        Self { source }
    }

    /// Reads the ID, finds its bundle, and lets `chain` do the path validation with it.
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        now: UnixTime,
        chain: impl FnOnce(&super::svid::Bundle) -> Result<(), Error>,
    ) -> Result<(), IdentityError> {
        let (id, not_after) = certificate::subject(leaf)?;
        let bundles = self.source.bundle();
        let Some(bundle) = bundles.bundle(id.trust_domain()) else {
            return Err(IdentityError::WrongTrustDomain { id });
        };
        chain(bundle).map_err(|error| match error {
            Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                IdentityError::expired(id, not_after)
            }
            error => IdentityError::NotTrusted { id, reason: format!("{error} (at {})", now.as_secs()) },
        })
    }
}

impl ServerCertVerifier for SpiffeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, now, |bundle| {
            verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(end_entity)?,
                &bundle.roots,
                intermediates,
                now,
                tls::provider().signature_verification_algorithms.all,
            )
        })
        .map_err(into_tls)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let provider = tls::provider();
        rustls::crypto::verify_tls12_signature(message, cert, dss, &provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let provider = tls::provider();
        rustls::crypto::verify_tls13_signature(message, cert, dss, &provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for SpiffeVerifier {
    /// No hints: the client has one certificate, and names of authorities say nothing about trust domains.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, now, |bundle| {
            bundle.clients.verify_client_cert(end_entity, intermediates, now).map(drop)
        })
        .map_err(into_tls)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(self)
    }
}

impl fmt::Debug for SpiffeVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpiffeVerifier").finish_non_exhaustive()
    }
}

/// Carries the typed reason through rustls; the alert that the peer sees follows from the variant.
fn into_tls(error: IdentityError) -> Error {
    let certificate = match &error {
        IdentityError::Malformed { .. } => CertificateError::BadEncoding,
        _ => CertificateError::Other(OtherError(Arc::new(error))),
    };
    Error::InvalidCertificate(certificate)
}
