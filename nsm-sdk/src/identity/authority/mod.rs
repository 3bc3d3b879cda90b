mod directory;
mod root;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use nsm_api::SpiffeId;
use nsm_chain::time;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use self::directory::Directory;
use self::root::{Root, signing};
use super::{Bundles, IdentityError, Svid, SvidSource};

/// A certificate authority inside the process, for quick starts, tests and benchmarks: no agent.
///
/// It issues P-256 SVIDs with one URI name, for use as client and as server. What [`DevAuthority::issue`] hands out is
/// renewed when half of its lifetime is over (at its next use: no task runs for it) and at [`DevAuthority::rotate`].
/// [`DevAuthority::open_or_create`] keeps one in a directory, so that several processes are of one trust domain.
///
/// ```
/// use nsm_sdk::identity::{DevAuthority, SvidSource};
///
/// let authority = DevAuthority::new("example.org")?;
/// let client = authority.issue("/client-1")?;
/// assert_eq!(client.svid()?.id().to_string(), "spiffe://example.org/client-1");
/// # Ok::<(), nsm_sdk::identity::IdentityError>(())
/// ```
///
/// Its root is replaced in three steps, with time between them for everyone to hear: [`DevAuthority::prepare`] makes a
/// new one that is trusted beside the old, [`DevAuthority::activate`] signs with it, [`DevAuthority::retire`] ends the
/// trust in the old one.
#[derive(Clone)]
pub struct DevAuthority {
    inner: Arc<Authority>,
}

struct Authority {
    trust_domain: String,
    lifetime: Duration,
    state: Mutex<State>,
    version: watch::Sender<u64>,
    directory: Option<Directory>,
}

struct State {
    /// Signs.
    root: Arc<Root>,
    /// Will sign next.
    prepared: Option<Arc<Root>>,
    bundles: Arc<Bundles>,
    issued: Vec<Weak<Issued>>,
}

impl DevAuthority {
    /// A new authority for `trust_domain` with a key of its own. What it issues lives a day.
    ///
    /// # Errors
    /// [`IdentityError::Signing`] if the name is no trust domain or a key cannot be made.
    pub fn new(trust_domain: &str) -> Result<Self, IdentityError> {
        Self::with_lifetime(trust_domain, DAY)
    }

    /// The same, with certificates that live as long as said.
    ///
    /// # Errors
    /// As [`DevAuthority::new`].
    pub fn with_lifetime(trust_domain: &str, lifetime: Duration) -> Result<Self, IdentityError> {
        Self::of(trust_domain, Root::new(trust_domain)?, Vec::new(), lifetime, None)
    }

    /// The authority that is kept in `directory`, made at its first use: processes that share the directory trust each
    /// other. What it issues lives a day.
    ///
    /// The directory is made with mode 0700 and holds one file, `authority.pem` (0600): the key, then the roots. Whoever
    /// can read it can be anyone in the mesh. Another process sees a root that is replaced here when it opens the directory
    /// anew.
    ///
    /// # Errors
    /// [`IdentityError::Authority`] if the directory or the file can be used by others, belongs to another user, cannot be
    /// read or written, or is of another trust domain; [`IdentityError::Key`] and [`IdentityError::Malformed`] for its
    /// contents; as [`DevAuthority::new`].
    ///
    /// ```
    /// use nsm_sdk::identity::DevAuthority;
    ///
    /// let directory = std::env::temp_dir().join(format!("nsm-authority-{}", std::process::id()));
    /// let manager = DevAuthority::open_or_create(&directory, "example.org")?;
    /// let client = DevAuthority::open_or_create(&directory, "example.org")?;
    /// assert_eq!(manager.bundles().roots("example.org"), client.bundles().roots("example.org"));
    /// # std::fs::remove_dir_all(directory).unwrap();
    /// # Ok::<(), nsm_sdk::identity::IdentityError>(())
    /// ```
    pub fn open_or_create(directory: &Path, trust_domain: &str) -> Result<Self, IdentityError> {
        let directory = Directory::open(directory)?;
        loop {
            if let Some(kept) = directory.load()? {
                if kept.trust_domain != trust_domain {
                    return Err(directory.unusable(format!("it is of trust domain {}", kept.trust_domain)));
                }
                return Self::of(trust_domain, kept.root, kept.others, DAY, Some(directory));
            }
            let root = Root::new(trust_domain)?;
            if directory.create(&root)? {
                return Self::of(trust_domain, root, Vec::new(), DAY, Some(directory));
            }
        }
    }

    fn of(
        trust_domain: &str,
        root: Root,
        others: Vec<CertificateDer<'static>>,
        lifetime: Duration,
        directory: Option<Directory>,
    ) -> Result<Self, IdentityError> {
        let roots = std::iter::once(root.certificate.clone()).chain(others).collect();
        let bundles = Arc::new(Bundles::default().with(trust_domain, roots)?);
        let state = Mutex::new(State { root: Arc::new(root), prepared: None, bundles, issued: Vec::new() });
        let (trust_domain, version) = (trust_domain.to_owned(), watch::Sender::new(0));
        Ok(Self { inner: Arc::new(Authority { trust_domain, lifetime, state, version, directory }) })
    }

    /// The trust domain it signs for.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.inner.trust_domain
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
        let live = self.inner.state().live();
        live.iter().try_for_each(|issued| issued.renew())?;
        self.inner.tell();
        Ok(())
    }

    /// Makes the next root: trusted from now on beside the one that signs. In place of one prepared before.
    ///
    /// # Errors
    /// [`IdentityError::Signing`] if a key cannot be made, [`IdentityError::Authority`] if it cannot be kept.
    pub fn prepare(&self) -> Result<(), IdentityError> {
        let next = Arc::new(Root::new(&self.inner.trust_domain)?);
        self.change(|state, domain| {
            let mut roots = state.bundles.roots(domain).to_vec();
            roots.retain(|root| state.prepared.as_ref().is_none_or(|former| former.certificate != *root));
            roots.push(next.certificate.clone());
            state.bundles = Arc::new(Bundles::clone(&state.bundles).with(domain, roots)?);
            state.prepared = Some(next);
            Ok(())
        })
    }

    /// Signs with the prepared root from now on, and [rotates](DevAuthority::rotate). The old one is still trusted.
    ///
    /// # Errors
    /// [`IdentityError::Signing`] if none was prepared, [`IdentityError::Authority`] if it cannot be kept.
    pub fn activate(&self) -> Result<(), IdentityError> {
        self.change(|state, _| {
            state.root = state.prepared.take().ok_or_else(|| signing("no new root was prepared"))?;
            Ok(())
        })?;
        self.rotate()
    }

    /// Trusts no root any more but the one that signs (and one that was prepared).
    ///
    /// # Errors
    /// [`IdentityError::Authority`] if that cannot be kept.
    pub fn retire(&self) -> Result<(), IdentityError> {
        self.change(|state, domain| {
            let kept = std::iter::once(&state.root).chain(&state.prepared);
            let roots = kept.map(|root| root.certificate.clone()).collect();
            state.bundles = Arc::new(Bundles::clone(&state.bundles).with(domain, roots)?);
            Ok(())
        })
    }

    /// Lets everyone with an identity of this authority trust the other one's domain as well (federation, one way), by the
    /// roots that it has now.
    ///
    /// # Errors
    /// [`IdentityError::Malformed`] never in practice: the other's roots are certificates.
    pub fn trust(&self, other: &Self) -> Result<(), IdentityError> {
        let domain = other.trust_domain();
        let roots = other.bundles().roots(domain).to_vec();
        self.change(|state, _| {
            state.bundles = Arc::new(Bundles::clone(&state.bundles).with(domain, roots)?);
            Ok(())
        })
    }

    /// Ends the trust in another domain.
    ///
    /// # Errors
    /// [`IdentityError::Signing`] if it is the authority's own one.
    pub fn distrust(&self, trust_domain: &str) -> Result<(), IdentityError> {
        self.change(|state, own| {
            if trust_domain == own {
                return Err(signing("an authority trusts itself"));
            }
            state.bundles = Arc::new(Bundles::clone(&state.bundles).without(trust_domain));
            Ok(())
        })
    }

    /// The root that signs now.
    #[must_use]
    pub fn root(&self) -> CertificateDer<'static> {
        self.inner.state().root.certificate.clone()
    }

    /// Whom the identities of this authority trust.
    #[must_use]
    pub fn bundles(&self) -> Arc<Bundles> {
        Arc::clone(&self.inner.state().bundles)
    }

    /// Counts up when identities are to be renewed or the bundles have changed.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.version.subscribe()
    }

    /// Changes what is trusted or what signs, keeps that, and tells everyone.
    fn change(&self, change: impl FnOnce(&mut State, &str) -> Result<(), IdentityError>) -> Result<(), IdentityError> {
        let live = {
            let mut state = self.inner.state();
            change(&mut state, &self.inner.trust_domain)?;
            if let Some(directory) = &self.inner.directory {
                let roots = state.bundles.roots(&self.inner.trust_domain);
                let others: Vec<_> = roots.iter().filter(|root| **root != state.root.certificate).cloned().collect();
                directory.replace(&state.root, &others)?;
            }
            state.live()
        };
        live.iter().for_each(|issued| issued.version.send_modify(|version| *version += 1));
        self.inner.tell();
        Ok(())
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

    fn tell(&self) {
        self.version.send_modify(|version| *version += 1);
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
        let root = Arc::clone(&self.state().root);
        root.sign(&id, lifetime)
    }
}

impl State {
    fn live(&self) -> Vec<Arc<Issued>> {
        self.issued.iter().filter_map(Weak::upgrade).collect()
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

const DAY: Duration = Duration::from_secs(24 * 3600);

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
    fn trust_ends_when_it_is_withdrawn_but_not_in_oneself() {
        let ours = DevAuthority::new("ours.org").unwrap();
        ours.trust(&DevAuthority::new("theirs.org").unwrap()).unwrap();
        ours.distrust("theirs.org").unwrap();
        assert_eq!(ours.bundles().trust_domains().collect::<Vec<_>>(), ["ours.org"]);
        assert!(matches!(ours.distrust("ours.org"), Err(IdentityError::Signing { .. })));
    }

    #[test]
    fn a_root_is_replaced_in_three_steps() {
        let authority = DevAuthority::new("example.org").unwrap();
        let roots = || authority.bundles().roots("example.org").to_vec();
        let (source, old) = (authority.issue("/a").unwrap(), authority.root());
        let first = source.svid().unwrap();
        assert!(matches!(authority.activate(), Err(IdentityError::Signing { .. })), "nothing is prepared");

        authority.prepare().unwrap();
        authority.prepare().unwrap();
        assert_eq!(roots().len(), 2, "the second is in place of the first");
        assert_eq!(authority.root(), old);
        assert!(Arc::ptr_eq(&source.svid().unwrap(), &first));

        authority.activate().unwrap();
        let new = authority.root();
        assert_eq!(roots(), [old, new.clone()]);
        assert!(!Arc::ptr_eq(&source.svid().unwrap(), &first));

        authority.retire().unwrap();
        assert_eq!(roots(), [new]);
    }

    #[test]
    fn keys_never_show_in_debug() {
        let authority = DevAuthority::new("example.org").unwrap();
        let svid = authority.issue("/a").unwrap().svid().unwrap();
        let shown = format!("{svid:?} {authority:?} {:?}", authority.bundles());
        assert!(shown.len() < 300 && !shown.contains("key"), "{shown}");
    }
}
