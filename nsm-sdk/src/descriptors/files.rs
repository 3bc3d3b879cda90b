use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nsm_api::Mechanism;
use nsm_api::mechanism::{FileUrl, keys};
use nsm_chain::{Error, FileId, Result};

/// Files that are open for one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Files(Vec<(FileId, Arc<OwnedFd>)>);

/// More files than this are in no honest call: the reference sends so many with one write.
const MOST: usize = 64;

impl Files {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, id: FileId) -> Option<&Arc<OwnedFd>> {
        self.0.iter().find(|(known, _)| *known == id).map(|(_, file)| file)
    }

    /// The file that a path of ours names.
    pub(super) fn at(&self, path: &Path) -> Option<FileId> {
        self.0.iter().find(|(_, file)| path_of(file) == path).map(|(id, _)| *id)
    }

    pub(super) fn add(&mut self, id: FileId, file: Arc<OwnedFd>) -> Result<()> {
        if self.get(id).is_none() {
            if self.0.len() == MOST {
                return Err(Error::invalid(format!("the mechanisms name more than {MOST} files")));
            }
            self.0.push((id, file));
        }
        Ok(())
    }

    /// Closes all but this one.
    pub(super) fn only(&mut self, id: Option<FileId>) {
        self.0.retain(|(known, _)| Some(*known) == id);
    }
}

/// The file that a mechanism names.
///
/// # Errors
/// When the parameter is there and is no URL of a file.
pub(super) fn named(mechanism: &Mechanism) -> Result<Option<FileUrl>> {
    let Some(text) = mechanism.parameter(keys::INODE_URL) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|error| Error::invalid("a mechanism names no file").because(error))
}

pub(super) fn rename(mechanism: &mut Mechanism, url: &FileUrl) {
    mechanism.set_parameter(keys::INODE_URL, url.to_string());
}

/// As a message names it.
pub(super) fn inode_url(id: FileId) -> FileUrl {
    FileUrl::Inode { device: id.device, inode: id.inode }
}

/// As elements of this process open it, and others of its machine too as long as we have it.
pub(super) fn path_of(file: &OwnedFd) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}
