//! What an X.509-SVID says: the SPIFFE ID, the key, the end of its time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nsm_api::SpiffeId;
use nsm_chain::Peer;
use rustls::pki_types::CertificateDer;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::IdentityError;

/// The identity in a peer's certificates, leaf first, as a TLS handshake gives them.
///
/// This reads the leaf; that it chains to a trusted root is the business of the verifiers in [`super::TlsConfigs`].
///
/// # Errors
/// [`IdentityError::NoCertificate`], [`IdentityError::Malformed`] or [`IdentityError::NoSpiffeId`].
pub fn peer_of(certificates: &[CertificateDer<'_>]) -> Result<Peer, IdentityError> {
    let leaf = certificates.first().ok_or(IdentityError::NoCertificate)?;
    let (id, not_after) = subject(leaf)?;
    Ok(Peer { id, certificate: Arc::from(leaf.as_ref()), not_after })
}

/// SPIFFE ID and end of time of a leaf (X509-SVID specification, §2: exactly one URI name).
pub(super) fn subject(leaf: &[u8]) -> Result<(SpiffeId, SystemTime), IdentityError> {
    let certificate = parse(leaf)?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| IdentityError::Malformed { reason: error.to_string() })?
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let no_id = |reason: String| IdentityError::NoSpiffeId { reason };
    let uri = uris.next().ok_or_else(|| no_id("it has no URI name".into()))?;
    if uris.next().is_some() {
        return Err(no_id("it has several URI names".into()));
    }
    let id = SpiffeId::new(uri).map_err(|error| no_id(error.to_string()))?;
    let end = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    let not_after = SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(end))
        .ok_or_else(|| IdentityError::Malformed { reason: "its end lies beyond all time".into() })?;
    Ok((id, not_after))
}

/// The uncompressed P-256 point of a leaf's key; none if its key is of another kind.
pub(super) fn p256_key(leaf: &[u8]) -> Result<Option<Vec<u8>>, IdentityError> {
    let certificate = parse(leaf)?;
    let info = certificate.public_key();
    let curve = info.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
    let p256 = info.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_EC_P256);
    Ok(p256.then(|| info.subject_public_key.data.to_vec()))
}

fn parse(leaf: &[u8]) -> Result<X509Certificate<'_>, IdentityError> {
    match X509Certificate::from_der(leaf) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(IdentityError::Malformed { reason: "bytes follow its end".into() }),
        Err(error) => Err(IdentityError::Malformed { reason: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.iter().map(|&name| SanType::URI(name.try_into().unwrap())).collect();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn exactly_one_spiffe_uri_makes_an_identity() {
        let peer = peer_of(&[certificate(&["spiffe://example.org/a"])]).unwrap();
        assert_eq!(peer.id.as_str(), "spiffe://example.org/a");
        for names in [
            &[][..],
            &["https://example.org/a"],
            &["spiffe://example.org/a", "spiffe://example.org/b"],
            &["spiffe://example.org/a", "https://example.org"],
        ] {
            let refused = peer_of(&[certificate(names)]);
            assert!(matches!(refused, Err(IdentityError::NoSpiffeId { .. })), "{names:?}: {refused:?}");
        }
        assert_eq!(peer_of(&[]).unwrap_err(), IdentityError::NoCertificate);
    }

    proptest! {
        #[test]
        fn damaged_certificates_give_errors_and_no_panic(at in 0_usize..300, byte: u8, cut in 0_usize..300) {
            let mut der = certificate(&["spiffe://example.org/a"]).to_vec();
            der[at] = byte;
            let _ = peer_of(&[CertificateDer::from(der.clone())]);
            let _ = p256_key(&der);
            der.truncate(cut);
            prop_assert!(peer_of(&[CertificateDer::from(der)]).is_err());
        }
    }
}
