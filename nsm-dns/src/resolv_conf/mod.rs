//! The file that tells programs whom to ask.

mod taken;
mod text;
mod whose;

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

pub(crate) use taken::TakenOver;
pub(crate) use text::Settings;

/// Such a file is larger by mistake, in octets.
const LARGEST: u64 = 64 << 10;

/// A file such as `/etc/resolv.conf`, which tells programs what DNS servers to ask.
///
/// While it is taken over it names a proxy in place of the servers, and has what it was as comments. All else in it holds on.
/// It is written in place, in one piece: in a container it is a mounted file, which cannot be replaced. A lock on it, which ends
/// with its process, tells whether who took it over still lives.
#[derive(Debug, Clone)]
pub struct ResolvConf {
    path: PathBuf,
    /// What programs read while it is not there.
    inherits: Option<PathBuf>,
    /// Whether it is ours to write.
    writable: bool,
}

/// A file that cannot be read or written as it must be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The system does not let it be read or written.
    #[error("{} cannot be {what}: {error}", .path.display())]
    System {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// It is larger than 64 KiB.
    #[error("{} is larger than 64 KiB: it is none that tells of DNS servers", .path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// Another process has taken it over, and lives.
    #[error("{} is in use by another DNS proxy of Network Service Mesh", .path.display())]
    InUse {
        /// Which file.
        path: PathBuf,
    },
}

impl ResolvConf {
    /// This file.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), inherits: None, writable: true }
    }

    /// While it is not there programs read this one, as those that `ip netns exec` starts: it is made, and removed again.
    #[must_use]
    pub fn inheriting(mut self, path: impl Into<PathBuf>) -> Self {
        self.inherits = Some(path.into());
        self
    }

    /// It is read, and never written: it belongs to others too.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.writable = false;
        self
    }

    /// Which file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Puts back what a process that was killed has left. Gives whether there was something.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn recover(&self) -> Result<bool, FileError> {
        if !self.writable {
            return Ok(false);
        }
        let Some(text) = self.read_if_there(&self.path)? else { return Ok(false) };
        if text::read(&text).is_none() {
            return Ok(false);
        }
        match TakenOver::of_the_dead(&self.path)? {
            Some(left) => left.restore().map(|_| true),
            // Its process lives.
            None => Ok(false),
        }
    }

    /// What programs were told before we were there.
    pub(crate) fn settings(&self) -> Result<Settings, FileError> {
        let own = self.read_if_there(&self.path)?.map(former);
        let text = own.map_or_else(|| self.inherited(), Ok)?;
        Ok(Settings::of(&text))
    }

    /// Names this server in place of all others, until the result is dropped.
    pub(crate) fn take_over(&self, nameserver: IpAddr) -> Result<TakenOver, FileError> {
        TakenOver::begin(&self.path, &self.inherited()?, nameserver)
    }

    /// What holds while it is not there.
    fn inherited(&self) -> Result<Vec<u8>, FileError> {
        let text = self.inherits.as_deref().map(|other| self.read_if_there(other)).transpose()?;
        Ok(text.flatten().map(former).unwrap_or_default())
    }

    fn read_if_there(&self, path: &Path) -> Result<Option<Vec<u8>>, FileError> {
        match File::open(path) {
            Ok(file) => read(path, &file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(path, "read", error)),
        }
    }
}

/// What it said before it was ours, if it is.
fn former(text: Vec<u8>) -> Vec<u8> {
    text::read(&text).map_or(text, |ours| ours.former)
}

fn read(path: &Path, file: &File) -> Result<Vec<u8>, FileError> {
    let mut text = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut text).map_err(|error| failed(path, "read", error))?;
    if text.len() as u64 > LARGEST {
        return Err(FileError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

fn failed(path: &Path, what: &'static str, error: io::Error) -> FileError {
    FileError::System { path: path.to_owned(), what, error }
}
