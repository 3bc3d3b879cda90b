use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use nsm_api::SpiffeId;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;

use super::{IdentityError, certificate, tls};

/// An X.509-SVID: a SPIFFE ID, the certificates that prove it, and their key.
///
/// Its key is ECDSA P-256, because path tokens are ES256 and are checked against the certificate that a link showed.
pub struct Svid {
    id: SpiffeId,
    chain: Vec<CertificateDer<'static>>,
    key: PrivatePkcs8KeyDer<'static>,
    not_after: SystemTime,
    signer: EcdsaKeyPair,
}

impl Svid {
    /// Reads the identity out of `chain` (leaf first, no root) and checks that `key` belongs to the leaf.
    ///
    /// # Errors
    /// [`IdentityError::Key`] if key and certificate do not fit or are not P-256, and what [`super::peer_of`] gives.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivatePkcs8KeyDer<'static>) -> Result<Self, IdentityError> {
        let leaf = chain.first().ok_or(IdentityError::NoCertificate)?;
        let (id, not_after) = certificate::subject(leaf)?;
        let bad_key = |reason: &str| IdentityError::Key { reason: reason.to_owned() };
        let point = certificate::p256_key(leaf)?.ok_or_else(|| bad_key("the certificate's key is of another kind"))?;
        let signer =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_pkcs8_der(), &SystemRandom::new())
                .map_err(|error| IdentityError::Key { reason: error.to_string() })?;
        if signer.public_key().as_ref() != point {
            return Err(bad_key("it belongs to another certificate"));
        }
        Ok(Self { id, chain, key, not_after, signer })
    }

    /// The SPIFFE ID.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The certificates, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The private key.
    #[must_use]
    pub fn key(&self) -> &PrivatePkcs8KeyDer<'static> {
        &self.key
    }

    /// When the leaf certificate ends.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    pub(super) fn signer(&self) -> &EcdsaKeyPair {
        &self.signer
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid").field("id", &self.id).field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// The roots of every trusted trust domain.
///
/// A peer must chain to the roots of the domain that its own SPIFFE ID names, never to those of another one.
#[derive(Clone, Default)]
pub struct Bundles {
    domains: BTreeMap<String, Bundle>,
}

#[derive(Clone)]
pub(super) struct Bundle {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) roots: Arc<RootCertStore>,
    pub(super) clients: Arc<dyn ClientCertVerifier>,
}

impl Bundles {
    /// These bundles and one more: `roots` sign for `trust_domain` (in place of earlier ones).
    ///
    /// # Errors
    /// [`IdentityError::Malformed`] for a root that is no certificate, or if there is none.
    pub fn with(mut self, trust_domain: &str, roots: Vec<CertificateDer<'static>>) -> Result<Self, IdentityError> {
        let malformed = |error: &dyn fmt::Display| IdentityError::Malformed { reason: error.to_string() };
        let mut store = RootCertStore::empty();
        for root in &roots {
            store.add(root.clone()).map_err(|error| malformed(&error))?;
        }
        let store = Arc::new(store);
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&store), tls::provider())
            .build()
            .map_err(|error| malformed(&error))?;
        self.domains.insert(trust_domain.to_owned(), Bundle { certificates: roots, roots: store, clients });
        Ok(self)
    }

    /// These bundles but the one of `trust_domain`.
    #[must_use]
    pub fn without(mut self, trust_domain: &str) -> Self {
        self.domains.remove(trust_domain);
        self
    }

    /// The names of the trusted domains, sorted.
    pub fn trust_domains(&self) -> impl Iterator<Item = &str> {
        self.domains.keys().map(String::as_str)
    }

    /// The root certificates of a domain; empty if it is not trusted.
    #[must_use]
    pub fn roots(&self, trust_domain: &str) -> &[CertificateDer<'static>] {
        self.bundle(trust_domain).map(|bundle| bundle.certificates.as_slice()).unwrap_or_default()
    }

    pub(super) fn bundle(&self, trust_domain: &str) -> Option<&Bundle> {
        self.domains.get(trust_domain)
    }
}

impl fmt::Debug for Bundles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.domains.keys()).finish()
    }
}

/// Where the workload's identity comes from. It may change at any time; everyone asks again for each use.
pub trait SvidSource: Send + Sync + 'static {
    /// The SVID to use now. The same `Arc` as long as nothing was rotated.
    ///
    /// # Errors
    /// [`IdentityError::NoSvid`] while the source has none.
    fn svid(&self) -> Result<Arc<Svid>, IdentityError>;

    /// Whom to trust now. The same `Arc` as long as nothing changed.
    fn bundle(&self) -> Arc<Bundles>;

    /// Counts up at each change of SVID or bundles.
    fn changed(&self) -> watch::Receiver<u64>;
}

/// A source that never changes: an SVID from files, or one of a given lifetime in a test.
#[derive(Debug)]
pub struct FixedSvid {
    svid: Arc<Svid>,
    bundles: Arc<Bundles>,
    version: watch::Sender<u64>,
}

impl FixedSvid {
    /// This SVID and these bundles, for good.
    #[must_use]
    pub fn new(svid: Svid, bundles: Bundles) -> Self {
        Self { svid: Arc::new(svid), bundles: Arc::new(bundles), version: watch::Sender::new(0) }
    }
}

impl SvidSource for FixedSvid {
    fn svid(&self) -> Result<Arc<Svid>, IdentityError> {
        Ok(Arc::clone(&self.svid))
    }

    fn bundle(&self) -> Arc<Bundles> {
        Arc::clone(&self.bundles)
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::identity::DevAuthority;

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let authority = DevAuthority::new("example.org").unwrap();
        let sign = || authority.sign("/a", Duration::from_secs(60)).unwrap();
        let (one, other) = (sign(), sign());
        let mixed = Svid::new(one.chain().to_vec(), other.key().clone_key());
        assert!(matches!(mixed, Err(IdentityError::Key { .. })), "{mixed:?}");
        let none = Svid::new(Vec::new(), one.key().clone_key());
        assert!(matches!(none, Err(IdentityError::NoCertificate)), "{none:?}");
        let garbage = Svid::new(vec![CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])], one.key().clone_key());
        assert!(matches!(garbage, Err(IdentityError::Malformed { .. })), "{garbage:?}");
    }

    #[test]
    fn a_root_that_is_no_certificate_and_an_empty_bundle_are_refused() {
        assert!(Bundles::default().with("example.org", vec![CertificateDer::from(vec![1, 2, 3])]).is_err());
        assert!(Bundles::default().with("example.org", Vec::new()).is_err());
    }
}
