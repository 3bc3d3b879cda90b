//! What an agent sends, as the SDK's types.

use nsm_sdk::identity::{Bundles, IdentityError, Svid};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use spiffe::{X509Bundle, X509Context, X509Svid};

/// The identity and the bundles in one message of an agent: the SVID with this hint, or else the first.
pub(crate) fn read(context: &X509Context, hint: Option<&str>) -> Result<(Svid, Bundles), IdentityError> {
    let svids = context.svids();
    let chosen = match hint {
        Some(hint) => svids.iter().find(|svid| svid.hint() == Some(hint)).ok_or_else(|| {
            let hints: Vec<_> = svids.iter().filter_map(|svid| svid.hint()).collect();
            IdentityError::NoSvid { reason: format!("no SVID has the hint {hint:?}; those here have {hints:?}") }
        })?,
        None => context
            .default_svid()
            .ok_or_else(|| IdentityError::NoSvid { reason: "the agent sent an empty list".to_owned() })?,
    };
    Ok((svid(chosen)?, bundles(context, chosen)?))
}

fn svid(svid: &X509Svid) -> Result<Svid, IdentityError> {
    let chain = svid.cert_chain().iter().map(|one| CertificateDer::from(one.as_bytes().to_vec())).collect();
    Svid::new(chain, PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec()))
}

/// A bundle that cannot be used is left out, so that a foreign domain's mistake is its own: its members are refused. Without a
/// bundle of our own domain there is nothing to go by.
fn bundles(context: &X509Context, own: &X509Svid) -> Result<Bundles, IdentityError> {
    let own = own.spiffe_id().trust_domain();
    let mut bundles = Bundles::default();
    for (domain, bundle) in context.bundle_set().iter() {
        match bundles.clone().with(domain.as_str(), roots(bundle)) {
            Ok(more) => bundles = more,
            Err(error) if domain == own => return Err(error),
            Err(error) => {
                tracing::warn!(trust_domain = domain.as_str(), %error, "a federated bundle is left out");
            }
        }
    }
    Ok(bundles)
}

fn roots(bundle: &X509Bundle) -> Vec<CertificateDer<'static>> {
    bundle.authorities().iter().map(|one| CertificateDer::from(one.as_bytes().to_vec())).collect()
}

pub(crate) fn same_svid(one: &Svid, other: &Svid) -> bool {
    one.chain() == other.chain()
}

pub(crate) fn same_bundles(one: &Bundles, other: &Bundles) -> bool {
    one.trust_domains().eq(other.trust_domains())
        && one.trust_domains().all(|domain| one.roots(domain) == other.roots(domain))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::{CertificateParams, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, SanType};
    use spiffe::{TrustDomain, X509BundleSet};

    use super::*;

    #[test]
    fn a_key_of_another_kind_is_refused_with_what_is_needed() {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI("spiffe://example.org/a".try_into().unwrap())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let svid = X509Svid::parse_from_der(certificate.der(), &key.serialize_der()).unwrap();
        let mut bundles = X509BundleSet::new();
        bundles.add_bundle(X509Bundle::new(TrustDomain::new("example.org").unwrap()));
        let error = read(&X509Context::new([Arc::new(svid)], bundles), None).unwrap_err();
        assert!(matches!(error, IdentityError::Key { .. }), "{error}");
        assert!(error.to_string().contains("P-256"), "{error}");
    }
}
