//! URLs that name a file by path, or by inode while its descriptor is on the way.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;
use url::Url;

use crate::decimal::decimal;
use crate::excerpt::excerpt;

/// A file (a network namespace or a socket) as the parameter `inodeURL` names it.
///
/// At rest it is a path (`file:///proc/4711/ns/net`). Between processes, where a path means nothing,
/// it is the file's identity (`inode://<st_dev>/<st_ino>`, decimal) and its descriptor travels beside.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FileUrl {
    /// A file by absolute path.
    Path(PathBuf),
    /// A file by device and inode number, as `stat` reports them.
    Inode {
        /// Device of the file.
        device: u64,
        /// Inode number on that device.
        inode: u64,
    },
}

/// Why text is not the URL of a file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text} does not name a file: write file:///absolute/path or inode://device/inode with decimal numbers")]
pub struct FileUrlError {
    /// The text, quoted, cut when long.
    pub text: String,
}

impl FileUrl {
    /// Names a file by absolute path.
    ///
    /// # Errors
    /// [`FileUrlError`] when the path is relative, or leads back up by `..`, which no URL keeps.
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self, FileUrlError> {
        let path = path.as_ref();
        let named = is_direct(path) && Url::from_file_path(path).is_ok();
        let error = || FileUrlError { text: excerpt(&path.to_string_lossy()) };
        named.then(|| Self::Path(path.to_owned())).ok_or_else(error)
    }
}

impl FromStr for FileUrl {
    type Err = FileUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| FileUrlError { text: excerpt(text) })
    }
}

fn parse(text: &str) -> Option<FileUrl> {
    if let Some(identity) = text.strip_prefix("inode://") {
        let (device, inode) = identity.split_once('/')?;
        return Some(FileUrl::Inode { device: decimal(device)?, inode: decimal(inode)? });
    }
    if !text.starts_with("file:///") {
        return None;
    }
    let path = Url::parse(text).ok()?.to_file_path().ok()?;
    // A path with a zero octet cannot be opened; `..` behind an escaped slash would name another file when written again.
    let named = is_direct(&path) && !path.as_os_str().as_encoded_bytes().contains(&0);
    named.then_some(FileUrl::Path(path))
}

fn is_direct(path: &Path) -> bool {
    !path.components().any(|part| part == Component::ParentDir)
}

impl fmt::Display for FileUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inode { device, inode } => write!(f, "inode://{device}/{inode}"),
            Self::Path(path) => match Url::from_file_path(path) {
                Ok(url) => url.fmt(f),
                Err(()) => write!(f, "file://{}", path.display()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_are_read() {
        assert_eq!("file:///proc/1/ns/net".parse(), Ok(FileUrl::Path("/proc/1/ns/net".into())));
        assert_eq!("inode://4/4026531840".parse(), Ok(FileUrl::Inode { device: 4, inode: 4026531840 }));
        assert_eq!("file:///a%20b".parse(), Ok(FileUrl::Path("/a b".into())));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "/proc/1/ns/net",
            "file://host/a",
            "inode://4",
            "inode://x/1",
            "inode://4/+1",
            "file:///a%00",
            "file:///a%2f..%2fb",
            "file:////%2f..",
            "tcp://a",
        ] {
            assert!(text.parse::<FileUrl>().is_err(), "{text}");
        }
        assert!(FileUrl::from_path("relative").is_err() && FileUrl::from_path("/a/../b").is_err());
    }

    proptest! {
        #[test]
        fn inodes_round_trip(device in any::<u64>(), inode in any::<u64>()) {
            let url = FileUrl::Inode { device, inode };
            prop_assert_eq!(url.to_string().parse(), Ok(url));
        }

        #[test]
        fn paths_round_trip(path in "(/[^/\0]{1,8}){1,4}") {
            prop_assume!(!path.split('/').any(|part| part == "." || part == ".."));
            let url = FileUrl::from_path(&path).unwrap();
            prop_assert_eq!(url.to_string().parse(), Ok(url));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "(file://|inode://)?.{0,30}") {
            let _ = text.parse::<FileUrl>();
        }
    }
}
