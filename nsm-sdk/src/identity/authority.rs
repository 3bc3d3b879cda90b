use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use nsm_api::SpiffeId;
use nsm_chain::time;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::sync::watch;

use super::{Bundles, IdentityError, Svid, SvidSource};

/// A certificate authority inside the process, for quick starts, tests and benchmarks: no agent, no files.
///
/// It issues P-256 SVIDs with one URI name, for use as client and as server. What [`DevAuthority::issue`] hands out is
/// renewed when half of its lifetime is over (at its next use: no task runs for it) and at [`DevAuthority::rotate`].
///
/// ```
/// use nsm_sdk::identity::{DevAuthority, SvidSource};
///
/// let authority = DevAuthority::new("example.org")?;
/// let client = authority.issue("/client-1")?;
/// assert_eq!(client.svid()?.id().to_string(), "spiffe://example.org/client-1");
/// # Ok::<(), nsm_sdk::identity::IdentityError>(())
/// ```
#[derive(Clone)]
pub struct DevAuthority {
    inner: Arc<Authority>,
}

struct Authority {
    trust_domain: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
    lifetime: Duration,
    state: Mutex<State>,
}

struct State {
    bundles: Arc<Bundles>,
    issued: Vec<Weak<Issued>>,
}

impl DevAuthority {
    /// A new authority for `trust_domain` with a key of its own. What it issues lives a day.
    ///
    /// # Errors
    /// [`IdentityError::Signing`] if the name is no trust domain or a key cannot be made.
    pub fn new(trust_domain: &str) -> Result<Self, IdentityError> {
        Self::with_lifetime(trust_domain, Duration::from_secs(24 * 3600))
    }

    /// The same, with certificates that live as long as said.
    ///
    /// # Errors
    /// As [`DevAuthority::new`].
    pub fn with_lifetime(trust_domain: &str, lifetime: Duration) -> Result<Self, IdentityError> {
        let id = SpiffeId::new(&format!("spiffe://{trust_domain}")).map_err(signing)?;
        if id.trust_domain() != trust_domain {
            return Err(signing("a trust domain has no path"));
        }
        let mut params = params(id.as_str(), ROOT_LIFETIME)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, p256()?).map_err(signing)?;
        let bundles = Bundles::default().with(trust_domain, vec![issuer.der().clone()])?;
        let state = Mutex::new(State { bundles: Arc::new(bundles), issued: Vec::new() });
        let trust_domain = trust_domain.to_owned();
        Ok(Self { inner: Arc::new(Authority { trust_domain, issuer, lifetime, state }) })
    }

    /// A live identity `spiffe://<trust domain><path>`; `path` begins with a slash.
    ///
    /// # Errors
    /// [`IdentityError::Signing`] for a path that no SPIFFE ID can have.
    pub fn issue(&self, path: &str) -> Result<Arc<dyn SvidSource>, IdentityError> {
        let issued = Arc::new(Issued {
            authority: Arc::clone(&self.inner),
            path: path.to_owned(),
            current: Mutex::new(self.inner.renewable(path)?),
            version: watch::Sender::new(0),
        });
        let mut state = self.inner.state();
        state.issued.retain(|one| one.strong_count() > 0);
        state.issued.push(Arc::downgrade(&issued));
        Ok(issued)
    }

    /// One SVID that is never renewed, valid from a minute ago until `lifetime` from now.
    ///
    /// # Errors
    /// As [`DevAuthority::issue`].
    pub fn sign(&self, path: &str, lifetime: Duration) -> Result<Svid, IdentityError> {
        self.inner.sign(path, lifetime)
    }

    /// Gives every live identity a new key and certificate, now.
    ///
    /// # Errors
    /// [`IdentityError::Signing`]; identities before the failing one are rotated.
    pub fn rotate(&self) -> Result<(), IdentityError> {
        let live: Vec<_> = self.inner.state().issued.iter().filter_map(Weak::upgrade).collect();
        live.iter().try_for_each(|issued| issued.renew())
    }

    /// Lets everyone with an identity of this authority trust the other one's domain as well (federation, one way).
    ///
    /// # Errors
    /// [`IdentityError::Malformed`] never in practice: the other root is a certificate.
    pub fn trust(&self, other: &Self) -> Result<(), IdentityError> {
        let root = other.inner.issuer.der().clone();
        let live: Vec<_> = {
            let mut state = self.inner.state();
            let bundles = Bundles::clone(&state.bundles).with(&other.inner.trust_domain, vec![root])?;
            state.bundles = Arc::new(bundles);
            state.issued.iter().filter_map(Weak::upgrade).collect()
        };
        live.iter().for_each(|issued| issued.version.send_modify(|version| *version += 1));
        Ok(())
    }

    /// Whom the identities of this authority trust.
    #[must_use]
    pub fn bundles(&self) -> Arc<Bundles> {
        Arc::clone(&self.inner.state().bundles)
    }
}

impl fmt::Debug for DevAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DevAuthority").field(&self.inner.trust_domain).finish()
    }
}

impl Authority {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn renewable(&self, path: &str) -> Result<Current, IdentityError> {
        let svid = Arc::new(self.sign(path, self.lifetime)?);
        Ok(Current { svid, renew_at: time::now() + self.lifetime / 2 })
    }

    fn sign(&self, path: &str, lifetime: Duration) -> Result<Svid, IdentityError> {
        let id = format!("spiffe://{}{path}", self.trust_domain);
        if SpiffeId::new(&id).map_err(signing)?.path() != path {
            return Err(signing("the path does not begin with a slash"));
        }
        let mut params = params(&id, lifetime)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = p256()?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(signing)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Svid::new(vec![certificate.der().clone()], key)
    }
}

struct Issued {
    authority: Arc<Authority>,
    path: String,
    current: Mutex<Current>,
    version: watch::Sender<u64>,
}

struct Current {
    svid: Arc<Svid>,
    renew_at: SystemTime,
}

impl Issued {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn renew(&self) -> Result<(), IdentityError> {
        *self.current() = self.authority.renewable(&self.path)?;
        self.version.send_modify(|version| *version += 1);
        Ok(())
    }
}

impl SvidSource for Issued {
    fn svid(&self) -> Result<Arc<Svid>, IdentityError> {
        if time::now() >= self.current().renew_at {
            self.renew()?;
        }
        Ok(Arc::clone(&self.current().svid))
    }

    fn bundle(&self) -> Arc<Bundles> {
        Arc::clone(&self.authority.state().bundles)
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
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

fn signing(reason: impl fmt::Display) -> IdentityError {
    IdentityError::Signing { reason: reason.to_string() }
}

/// Peers on other machines may be a little behind.
const BACKDATED: Duration = Duration::from_secs(60);
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::certificate;

    #[test]
    fn an_issued_certificate_names_its_spiffe_id_and_ends_with_its_lifetime() {
        let authority = DevAuthority::with_lifetime("example.org", Duration::from_secs(600)).unwrap();
        let svid = authority.issue("/ns/a/client-1").unwrap().svid().unwrap();
        assert_eq!(svid.id().as_str(), "spiffe://example.org/ns/a/client-1");
        let left = time::until(svid.not_after());
        assert!((Duration::from_secs(595)..=Duration::from_secs(600)).contains(&left), "{left:?}");
        assert_eq!(certificate::subject(&svid.chain()[0]).unwrap(), (svid.id().clone(), svid.not_after()));
    }

    #[test]
    fn paths_and_domains_that_no_spiffe_id_can_have_are_refused() {
        let authority = DevAuthority::new("example.org").unwrap();
        for path in ["no-slash", "/a//b", "/a b", "/.."] {
            assert!(matches!(authority.issue(path), Err(IdentityError::Signing { .. })), "{path}");
        }
        for domain in ["", "Example.org", "a/b", "a:1"] {
            assert!(matches!(DevAuthority::new(domain), Err(IdentityError::Signing { .. })), "{domain}");
        }
    }

    #[test]
    fn rotation_gives_every_identity_a_new_key_and_tells() {
        let authority = DevAuthority::new("example.org").unwrap();
        let source = authority.issue("/a").unwrap();
        let (before, mut changed) = (source.svid().unwrap(), source.changed());
        assert!(Arc::ptr_eq(&before, &source.svid().unwrap()), "nothing was rotated yet");
        authority.rotate().unwrap();
        let after = source.svid().unwrap();
        assert!(changed.has_changed().unwrap());
        assert_eq!(*changed.borrow_and_update(), 1);
        assert_eq!(after.id(), before.id());
        assert_ne!(after.key().secret_pkcs8_der(), before.key().secret_pkcs8_der());
    }

    #[tokio::test(start_paused = true)]
    async fn an_identity_is_renewed_when_half_of_its_lifetime_is_over() {
        let authority = DevAuthority::with_lifetime("example.org", Duration::from_secs(100)).unwrap();
        let source = authority.issue("/a").unwrap();
        let first = source.svid().unwrap();
        tokio::time::advance(Duration::from_secs(49)).await;
        assert!(Arc::ptr_eq(&first, &source.svid().unwrap()));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(source.svid().unwrap().not_after() > first.not_after());
        assert_eq!(*source.changed().borrow(), 1);
    }

    #[test]
    fn trust_in_another_authority_reaches_identities_issued_before() {
        let ours = DevAuthority::new("ours.org").unwrap();
        let theirs = DevAuthority::new("theirs.org").unwrap();
        let source = ours.issue("/a").unwrap();
        ours.trust(&theirs).unwrap();
        assert_eq!(source.bundle().trust_domains().collect::<Vec<_>>(), ["ours.org", "theirs.org"]);
        assert_eq!(*source.changed().borrow(), 1);
        assert_eq!(theirs.bundles().roots("ours.org"), []);
    }

    #[test]
    fn keys_never_show_in_debug() {
        let authority = DevAuthority::new("example.org").unwrap();
        let svid = authority.issue("/a").unwrap().svid().unwrap();
        let shown = format!("{svid:?} {authority:?} {:?}", authority.bundles());
        assert!(shown.len() < 300 && !shown.contains("key"), "{shown}");
    }
}
