//! Where the sockets of memif's servers are.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nsm_chain::Result;
use nsm_memif::Config;

use super::socket::Socket;

/// What the names of such directories begin with.
const PREFIX: &str = "nsm-memif-at-";

/// A directory that only this user can enter, gone with this value.
///
/// Whoever is sent the descriptor of a socket in it needs no way through it, so that the descriptor is the only way to the
/// socket, also for other users.
///
/// It is locked as long as its process lives, whatever ends that. By this the next one that is made beside it tells those whose
/// process was killed, and removes them.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    next: AtomicU64,
    _lock: File,
}

impl Directory {
    pub(super) fn within(base: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = base.join(format!("{PREFIX}{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                // Of a process of that number: an earlier one, or one that has other numbers for processes.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made?,
            }
            // None if it was taken for one that nobody has, between our making and our locking it.
            if let Some(lock) = locked(&path)? {
                clear(base, lock.metadata()?.uid());
                return Ok(Self { path, next: AtomicU64::new(0), _lock: lock });
            }
        }
    }

    /// A socket for one connection.
    pub(super) fn socket(&self, config: Config) -> Result<Socket> {
        self.socket_named(&format!("{}.sock", self.next.fetch_add(1, Ordering::Relaxed)), config)
    }

    /// Where a socket of this name is.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A socket of this name, which no other one has.
    pub(super) fn socket_named(&self, name: &str, config: Config) -> Result<Socket> {
        Socket::at(self.path(name), config)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Its sockets are gone, or go with their own tasks a moment later.
        let _best_effort = fs::remove_dir_all(&self.path);
    }
}

/// Removes the directories of this user whose process has ended. What cannot be looked at or removed stays.
fn clear(base: &Path, user: u32) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_one = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        let is_ours = || fs::symlink_metadata(&path).is_ok_and(|facts| facts.is_dir() && facts.uid() == user);
        if !is_one || !is_ours() {
            continue;
        }
        if let Ok(Some(_lock)) = locked(&path) {
            match fs::remove_dir_all(&path) {
                Ok(()) => tracing::info!(path = %path.display(), "sockets of a process that was killed are removed"),
                Err(error) => tracing::debug!(path = %path.display(), %error, "it stays"),
            }
        }
    }
}

/// The lock of a directory; none if somebody has it, or if another directory, or none, is there by now.
fn locked(path: &Path) -> io::Result<Option<File>> {
    let directory = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match directory.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        Err(fs::TryLockError::Error(error)) => return Err(error),
    }
    let id = |facts: fs::Metadata| (facts.dev(), facts.ino());
    // Of the path itself: a link to a directory is none.
    let is_it = fs::symlink_metadata(path).map(id).ok() == Some(id(directory.metadata()?));
    Ok(is_it.then_some(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_the_dead_are_removed_and_no_others() {
        let base = std::env::temp_dir().join(format!("nsm-memif-directories-{}", std::process::id()));
        fs::create_dir_all(base.join("elsewhere")).unwrap();
        let path = |name: &str| base.join(name);
        let living = Directory::within(&base).unwrap();
        // As a process that is killed leaves it: with a socket, and without a lock.
        fs::create_dir(path("nsm-memif-at-1-0")).unwrap();
        fs::write(path("nsm-memif-at-1-0/0.sock"), "").unwrap();
        fs::create_dir(path("nsm-memif-else")).unwrap();
        std::os::unix::fs::symlink(path("elsewhere"), path("nsm-memif-at-1-1")).unwrap();
        fs::write(path("nsm-memif-at-1-2"), "").unwrap();

        let next = Directory::within(&base).unwrap();
        assert!(!path("nsm-memif-at-1-0").exists());
        for stays in ["nsm-memif-else", "nsm-memif-at-1-1", "nsm-memif-at-1-2", "elsewhere"] {
            assert!(fs::symlink_metadata(path(stays)).is_ok(), "{stays}");
        }
        assert!(living.path.is_dir() && next.path.is_dir());
        drop((living, next));
        assert_eq!(fs::read_dir(&base).unwrap().count(), 4);
        fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn one_that_somebody_else_has_locked_is_not_taken_away() {
        let base = std::env::temp_dir().join(format!("nsm-memif-locked-{}", std::process::id()));
        fs::create_dir_all(base.join("nsm-memif-at-1-0")).unwrap();
        let lock = locked(&base.join("nsm-memif-at-1-0")).unwrap().unwrap();
        clear(&base, lock.metadata().unwrap().uid());
        assert!(base.join("nsm-memif-at-1-0").exists());
        let user = lock.metadata().unwrap().uid();
        drop(lock);
        clear(&base, user + 1);
        assert!(base.join("nsm-memif-at-1-0").exists(), "it is another user's");
        clear(&base, user);
        assert!(!base.join("nsm-memif-at-1-0").exists());
        fs::remove_dir_all(&base).unwrap();
    }
}
