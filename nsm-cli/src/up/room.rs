//! Where labs keep what other processes need to know: a directory for each, while it is up.

use std::fs::{File, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::control::{self, Ask, Reply};
use super::view::View;
use crate::failure::Failure;
use crate::lab::Sockets;

/// Says where, in place of the usual place.
const VARIABLE: &str = "NSM_RUN_DIR";
/// In the directory of a lab: it is locked while the lab is up.
const LOCK: &str = "lock";
const LOG: &str = "log";
/// So that the paths of sockets in it are short enough.
const LONGEST_NAME: usize = 32;

/// The directory of one lab. The process that holds its lock is the lab.
#[derive(Debug, Clone)]
pub(super) struct Room {
    /// The name of the lab.
    pub(super) name: String,
    path: PathBuf,
}

/// A lab that is ours, as long as this lives.
#[derive(Debug)]
pub(super) struct Held {
    room: Room,
    _lock: File,
}

impl Room {
    /// That of the lab of this name.
    pub(super) fn of(name: &str) -> Result<Self, Failure> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > LONGEST_NAME || name.starts_with('-') || !name.chars().all(plain) {
            let cause = format!("{name:?} cannot be the name of a lab");
            return Err(Failure::at("lab", cause, "give --name of up to 32 letters, digits, dashes and underscores"));
        }
        Ok(Self { name: name.to_owned(), path: directory()?.join(name) })
    }

    /// That of the lab of a file: its name without what stands behind the dot.
    pub(super) fn for_file(file: &Path, name: Option<&str>) -> Result<Self, Failure> {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let stem: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
        Self::of(name.unwrap_or(&stem))
    }

    /// Those of all labs that are up, or that were killed.
    pub(super) fn all() -> Result<Vec<Self>, Failure> {
        let directory = directory()?;
        let entries = std::fs::read_dir(&directory).map_err(|error| unusable(&directory, &error))?;
        let labs = entries.flatten().filter(|entry| entry.path().is_dir());
        let names = labs.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut rooms: Vec<Self> = names.map(|name| Self { path: directory.join(&name), name }).collect();
        rooms.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(rooms)
    }

    /// What the namespaces of the lab carry.
    pub(super) fn mark(&self) -> String {
        format!("nsm lab {} of {}", self.name, self.path.display())
    }

    /// What the names of its namespaces begin with.
    pub(super) fn prefix(&self) -> String {
        format!("nsm-{}.", self.name)
    }

    pub(super) fn control(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// What the lab in the background logs.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// Begins that log.
    pub(super) fn begin_log(&self) -> Result<File, Failure> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path);
        made.and_then(|()| File::create(self.log())).map_err(|error| unusable(&self.path, &error))
    }

    /// Where its roles listen.
    pub(super) fn sockets(&self) -> Result<Sockets, Failure> {
        Sockets::at(self.path.join("roles"))
    }

    /// Takes it, unless a lab of this name is up.
    pub(super) fn take(&self) -> Result<Option<Held>, Failure> {
        let failed = |error: std::io::Error| unusable(&self.path, &error);
        loop {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path).map_err(failed)?;
            let path = self.path.join(LOCK);
            let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            // Another one may have ended, and removed it, between our opening and our locking it.
            let inode = |facts: std::io::Result<std::fs::Metadata>| facts.map(|facts| facts.ino()).ok();
            if inode(lock.metadata()) == inode(std::fs::metadata(&path)) {
                return Ok(Some(Held { room: self.clone(), _lock: lock }));
            }
        }
    }

    /// Whether a lab has it.
    pub(super) fn is_up(&self) -> bool {
        let lock = File::options().write(true).open(self.path.join(LOCK));
        lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
    }

    pub(super) fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Asks the lab.
    pub(super) fn ask(&self, ask: &Ask) -> Result<Reply, Failure> {
        control::ask(&self.control(), ask).map_err(|error| {
            let cause = format!("lab {} does not answer: {error}", self.name);
            Failure::at("lab", cause, format!("see what it logs: {}", self.log().display()))
        })
    }

    /// What the lab looks like now.
    pub(super) fn view(&self) -> Result<View, Failure> {
        match self.ask(&Ask::View)? {
            Reply::View(view) => Ok(*view),
            other => {
                Err(Failure::at("lab", format!("it answered {other:?}"), "it is of another version: take it down"))
            }
        }
    }
}

impl Held {
    /// Removes what a lab that was killed has left, and nothing that does not carry its mark. Says what.
    pub(super) async fn clear(&self) -> Result<Vec<String>, Failure> {
        let failed = |error: std::io::Error| unusable(&self.room.path, &error);
        let mut removed = Vec::new();
        let found = nsm_kernel::Netns::named_with_mark(&self.room.mark()).await;
        for namespace in found.map_err(|error| Failure::of("leftovers", &error))? {
            removed.push(format!("network namespace {}", namespace.path().display()));
            if let Some(name) = namespace.path().file_name().and_then(|name| name.to_str()) {
                let file = nsm_dns::ResolvConf::of_named(name);
                let left = file.recover().map_err(|error| Failure::of("leftovers", &error))?;
                removed.extend(left.then(|| file.path().display().to_string()));
            }
            drop(namespace);
        }
        for entry in std::fs::read_dir(&self.room.path).map_err(failed)?.flatten() {
            let path = entry.path();
            if [LOCK, LOG].map(|name| self.room.path.join(name)).contains(&path) {
                continue;
            }
            let gone = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            gone.map_err(failed)?;
            removed.push(path.display().to_string());
        }
        Ok(removed)
    }

    /// Removes the directory; says what is left.
    pub(super) fn remove(self) -> Option<String> {
        let path = self.room.path.clone();
        drop(self);
        path.exists().then(|| format!("directory {}", path.display()))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // While the lock is held: who waits for it looks whether it is still there.
        if let Err(error) = std::fs::remove_dir_all(&self.room.path) {
            tracing::warn!(path = %self.room.path.display(), %error, "the directory of the lab is left");
        }
    }
}

/// The directory of all labs of this user.
fn directory() -> Result<PathBuf, Failure> {
    let chosen = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let own =
        std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty()).map(|path| PathBuf::from(path).join("nsm"));
    // Only root may write to /run; an ordinary user goes on as root of a user namespace, and still may not.
    let candidates = match chosen {
        Some(chosen) => vec![chosen],
        None => [Some("/run/nsm".into()), own, Some(format!("/tmp/nsm-labs-{}", user()).into())]
            .into_iter()
            .flatten()
            .collect(),
    };
    let mut failed = None;
    for path in candidates {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        match made.and_then(|()| nix::unistd::access(&path, nix::unistd::AccessFlags::W_OK).map_err(Into::into)) {
            Ok(()) => return Ok(path),
            Err(error) => failed = Some(unusable(&path, &error)),
        }
    }
    Err(failed.unwrap_or_else(|| Failure::at("lab", "there is no directory for it", format!("set {VARIABLE}"))))
}

/// The user, as the first user namespace knows them: in ours we are root.
fn user() -> u32 {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let row: Vec<u32> = map.split_whitespace().take(3).filter_map(|number| number.parse().ok()).collect();
    let own = nix::unistd::geteuid().as_raw();
    match row.as_slice() {
        [inside, outside, 1] if *inside == own => *outside,
        _ => own,
    }
}

fn unusable(path: &Path, error: &std::io::Error) -> Failure {
    let cause = format!("{} cannot be used: {error}", path.display());
    Failure::at("lab", cause, format!("set {VARIABLE} to a directory that can be written to"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_is_named_after_its_file() {
        let named = |file: &str| Room::for_file(Path::new(file), None).map(|room| room.name);
        assert_eq!(named("examples/labs/two-nodes.yaml").unwrap(), "two-nodes");
        assert_eq!(named("a b.c.yml").unwrap(), "a_b_c");
        assert!(named("").is_err());
        assert_eq!(Room::for_file(Path::new("x.yaml"), Some("mine")).unwrap().prefix(), "nsm-mine.");
        assert!(Room::of("../x").is_err());
    }
}
