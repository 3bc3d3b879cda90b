use std::fmt;
use std::time::Duration;

use nsm_api::SpiffeId;
use nsm_chain::time;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::identity::{IdentityError, Svid, certificate};

/// A root certificate and the key behind it.
pub(super) struct Root {
    issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: CertificateDer<'static>,
}

impl Root {
    /// A new key, and a certificate over it that names the trust domain.
    pub(super) fn new(trust_domain: &str) -> Result<Self, IdentityError> {
        let id = SpiffeId::new(&format!("spiffe://{trust_domain}")).map_err(signing)?;
        if id.trust_domain() != trust_domain {
            return Err(signing("a trust domain has no path"));
        }
        let mut params = params(id.as_str(), ROOT_LIFETIME)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = p256()?;
        let certificate = params.self_signed(&key).map_err(signing)?.der().clone();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// One that was made earlier. Checks that the key is the certificate's.
    pub(super) fn load(
        certificate: CertificateDer<'static>,
        key: &PrivatePkcs8KeyDer<'_>,
    ) -> Result<Self, IdentityError> {
        let bad_key = |reason: String| IdentityError::Key { reason };
        let key = KeyPair::from_pkcs8_der_and_sign_algo(key, &PKCS_ECDSA_P256_SHA256)
            .map_err(|error| bad_key(error.to_string()))?;
        if certificate::p256_key(&certificate)?.as_deref() != Some(key.public_key_raw()) {
            return Err(bad_key("it belongs to another certificate".to_owned()));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|error| IdentityError::Malformed { reason: error.to_string() })?;
        Ok(Self { issuer, certificate })
    }

    pub(super) fn key(&self) -> &KeyPair {
        self.issuer.key()
    }

    /// A P-256 SVID of this identity, for use as client and as server.
    pub(super) fn sign(&self, id: &str, lifetime: Duration) -> Result<Svid, IdentityError> {
        let mut params = params(id, lifetime)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = p256()?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(signing)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Svid::new(vec![certificate.der().clone()], key)
    }
}

fn params(uri: &str, lifetime: Duration) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(signing)?)];
    params.distinguished_name.push(DnType::OrganizationName, "nsm development authority");
    let now = time::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = now.checked_add(lifetime).ok_or_else(|| signing("a lifetime beyond all time"))?.into();
    Ok(params)
}

fn p256() -> Result<KeyPair, IdentityError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(signing)
}

pub(super) fn signing(reason: impl fmt::Display) -> IdentityError {
    IdentityError::Signing { reason: reason.to_string() }
}

/// Peers on other machines may be a little behind.
const BACKDATED: Duration = Duration::from_secs(60);
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
