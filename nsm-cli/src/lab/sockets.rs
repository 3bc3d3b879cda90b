//! The directory of a lab's unix sockets.

use std::ffi::OsString;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// A directory of our own (mode 0700), removed with everything in it when dropped.
#[derive(Debug)]
pub(crate) struct Sockets(PathBuf);

impl Sockets {
    /// Under `$XDG_RUNTIME_DIR`, or `/tmp` where that is not there or not ours.
    pub(crate) fn create() -> Result<Self, Failure> {
        let preferred = std::env::var_os("XDG_RUNTIME_DIR").filter(short_enough).map(PathBuf::from);
        let mut failed = None;
        for parent in preferred.iter().map(PathBuf::as_path).chain([Path::new("/tmp")]) {
            match nix::unistd::mkdtemp(&parent.join("nsm-XXXXXX")) {
                Ok(path) => return Ok(Self(path)),
                Err(error) => {
                    let parent = parent.display();
                    failed = Some(format!("cannot make a directory in {parent}: {error}"));
                }
            }
        }
        let remedy = "set XDG_RUNTIME_DIR to a directory that can be written to";
        Err(Failure::at("sockets", failed.unwrap_or_default(), remedy))
    }

    /// In this directory, which is made, for nobody but us.
    pub(crate) fn at(path: PathBuf) -> Result<Self, Failure> {
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        let remedy = "another lab may be using it: see who, or remove it";
        made.map_err(|error| Failure::at("sockets", format!("cannot make {}: {error}", path.display()), remedy))?;
        Ok(Self(path))
    }

    /// Where they are.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The URL of a role's socket.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("unix://{}/{name}.sock", self.0.display())
    }

    /// What is in it.
    pub(super) fn left(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.0) else {
            return Vec::new();
        };
        entries.flatten().map(|entry| format!("socket {}", entry.path().display())).collect()
    }

    /// Removes it; says what is left.
    pub(super) fn remove(self) -> Option<String> {
        let path = self.0.clone();
        drop(self);
        path.exists().then(|| format!("directory {}", path.display()))
    }
}

/// A unix socket's path has at most 107 bytes (unix(7)); ours add some 40.
fn short_enough(dir: &OsString) -> bool {
    !dir.is_empty() && dir.len() <= 60
}

impl Drop for Sockets {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "the directory of the sockets is left");
        }
    }
}
