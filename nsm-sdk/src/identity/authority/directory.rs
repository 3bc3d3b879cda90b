//! A development authority on disk: one file, which only its owner can read.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fmt, fs, process};

use pem::Pem;
use rustix::fs::OFlags;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::root::Root;
use crate::identity::{IdentityError, certificate};

/// Where an authority is kept.
#[derive(Debug)]
pub(super) struct Directory(PathBuf);

/// What is kept of an authority.
pub(super) struct Kept {
    pub(super) trust_domain: String,
    pub(super) root: Root,
    /// Other roots that are still, or already, trusted.
    pub(super) others: Vec<CertificateDer<'static>>,
}

impl Directory {
    /// Makes the directory if it is not there; refuses one that others can enter.
    pub(super) fn open(path: &Path) -> Result<Self, IdentityError> {
        let directory = Self(path.to_owned());
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| directory.unusable(error))?;
        let found = fs::symlink_metadata(path).map_err(|error| directory.unusable(error))?;
        if !found.is_dir() {
            return Err(directory.unusable("it is no directory"));
        }
        directory.private(&found)?;
        Ok(directory)
    }

    /// What is kept here; none: nothing yet.
    pub(super) fn load(&self) -> Result<Option<Kept>, IdentityError> {
        let opened =
            OpenOptions::new().read(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(self.file());
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unusable(error)),
        };
        self.private(&file.metadata().map_err(|error| self.unusable(error))?)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(|error| self.unusable(error))?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|error| self.unusable(error))?;
        let mut roots = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| self.unusable(error))?
            .into_iter();
        let first = roots.next().ok_or_else(|| self.unusable("it holds no certificate"))?;
        let (id, _) = certificate::subject(&first)?;
        let root = Root::load(first, &key)?;
        Ok(Some(Kept { trust_domain: id.trust_domain().to_owned(), root, others: roots.collect() }))
    }

    /// Keeps an authority if none is kept here yet. Tells whether it was the first.
    pub(super) fn create(&self, root: &Root) -> Result<bool, IdentityError> {
        let fresh = self.write(root, &[])?;
        // A link fails where a rename would replace what another process has just made.
        match fs::hard_link(&fresh.0, self.file()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(self.unusable(error)),
        }
    }

    /// Keeps this in place of what is kept.
    pub(super) fn replace(&self, root: &Root, others: &[CertificateDer<'_>]) -> Result<(), IdentityError> {
        let fresh = self.write(root, others)?;
        fs::rename(&fresh.0, self.file()).map_err(|error| self.unusable(error))
    }

    fn write(&self, root: &Root, others: &[CertificateDer<'_>]) -> Result<Temporary, IdentityError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{NAME}.{}.{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = self.0.join(name);
        let written = || -> io::Result<Temporary> {
            let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            let temporary = Temporary(path.clone());
            let mut parts = vec![Pem::new("PRIVATE KEY", root.key().serialize_der())];
            let roots = std::iter::once(&root.certificate).chain(others);
            parts.extend(roots.map(|certificate| Pem::new("CERTIFICATE", certificate.as_ref())));
            file.write_all(pem::encode_many(&parts).as_bytes())?;
            file.sync_all()?;
            Ok(temporary)
        };
        written().map_err(|error| self.unusable(error))
    }

    /// Whoever can read the key can be anyone in the mesh.
    fn private(&self, found: &fs::Metadata) -> Result<(), IdentityError> {
        if found.uid() != rustix::process::geteuid().as_raw() {
            return Err(self.unusable("it belongs to another user"));
        }
        match found.mode() & 0o077 {
            0 => Ok(()),
            _ => Err(self.unusable(format!(
                "others may use it (mode {:o}); make it chmod {}",
                found.mode() & 0o777,
                if found.is_dir() { "700" } else { "600" }
            ))),
        }
    }

    fn file(&self) -> PathBuf {
        self.0.join(NAME)
    }

    pub(super) fn unusable(&self, reason: impl fmt::Display) -> IdentityError {
        IdentityError::Authority { directory: self.0.clone(), reason: reason.to_string() }
    }
}

/// A file that is gone when this is, unless it was moved away.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already after a rename.
        let _ = fs::remove_file(&self.0);
    }
}

const NAME: &str = "authority.pem";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::Barrier;
    use std::thread;

    use super::*;
    use crate::identity::DevAuthority;

    /// A directory that is removed on drop; the authority's one is inside.
    struct Place(PathBuf);

    impl Place {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!("nsm-authority-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn directory(&self) -> PathBuf {
            self.0.join("deep/authority")
        }

        fn file(&self) -> PathBuf {
            self.directory().join(NAME)
        }

        fn open(&self) -> Result<DevAuthority, IdentityError> {
            DevAuthority::open_or_create(&self.directory(), "example.org")
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_one_process_issues_another_one_trusts() {
        let place = Place::new();
        let (one, other) = (place.open().unwrap(), place.open().unwrap());
        assert_eq!(one.bundles().roots("example.org"), other.bundles().roots("example.org"));
        assert_eq!(one.root(), other.root());
        assert_eq!((mode(&place.directory()), mode(&place.file())), (0o700, 0o600));
        assert_eq!(fs::read_dir(place.directory()).unwrap().count(), 1, "no temporary file stays");
        other.issue("/a").unwrap();
    }

    #[test]
    fn many_who_begin_at_once_agree() {
        let place = Place::new();
        let barrier = Barrier::new(8);
        let roots: Vec<_> = thread::scope(|scope| {
            let all: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        place.open().unwrap().root()
                    })
                })
                .collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(roots.iter().all(|root| *root == roots[0]));
    }

    #[test]
    fn a_replaced_root_stays_replaced() {
        let place = Place::new();
        let authority = place.open().unwrap();
        authority.prepare().unwrap();
        authority.activate().unwrap();
        let again = place.open().unwrap();
        assert_eq!(again.root(), authority.root());
        assert_eq!(again.bundles().roots("example.org").len(), 2);
        authority.retire().unwrap();
        assert_eq!(place.open().unwrap().bundles().roots("example.org"), [authority.root()]);
    }

    #[test]
    fn what_others_can_use_is_refused_with_the_way_out() {
        let place = Place::new();
        place.open().unwrap();
        chmod(&place.file(), 0o640);
        let error = place.open().unwrap_err().to_string();
        assert!(error.contains("mode 640") && error.contains("chmod 600"), "{error}");
        chmod(&place.file(), 0o600);
        chmod(&place.directory(), 0o755);
        let error = place.open().unwrap_err().to_string();
        assert!(error.contains("mode 755") && error.contains("chmod 700"), "{error}");
    }

    #[test]
    fn links_other_domains_and_damage_are_refused() {
        let place = Place::new();
        place.open().unwrap();
        let other = DevAuthority::open_or_create(&place.directory(), "other.org");
        assert!(
            matches!(&other, Err(IdentityError::Authority { reason, .. }) if reason.contains("example.org")),
            "{other:?}"
        );

        let moved = place.directory().join("moved.pem");
        fs::rename(place.file(), &moved).unwrap();
        symlink(&moved, place.file()).unwrap();
        assert!(matches!(place.open(), Err(IdentityError::Authority { .. })));
        fs::remove_file(place.file()).unwrap();

        let stranger = Place::new();
        stranger.open().unwrap();
        let (ours, theirs) = (fs::read_to_string(&moved).unwrap(), fs::read_to_string(stranger.file()).unwrap());
        let certificate = |text: &str| text[text.find("-----BEGIN CERTIFICATE").unwrap()..].to_owned();
        let key = ours.replace(&certificate(&ours), "");
        let mixed = key.clone() + &certificate(&theirs);
        for text in ["", &key, &certificate(&ours), &mixed, &ours[..80]] {
            fs::write(place.file(), text).unwrap();
            chmod(&place.file(), 0o600);
            assert!(place.open().is_err());
        }
        fs::write(place.file(), ours).unwrap();
        place.open().unwrap();
    }
}
