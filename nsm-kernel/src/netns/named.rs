//! Names for namespaces, as `ip netns` knows them.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::Netns;
use crate::{Error, InterfaceName, Result};

const DIRECTORY: &str = "/run/netns";

/// A namespace that also has a name under `/run/netns`, for `ip netns exec <name>`; dropping it takes the
/// name away.
#[derive(Debug)]
pub struct NamedNetns {
    netns: Netns,
    path: PathBuf,
}

impl NamedNetns {
    /// The namespace itself.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Where the name is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Netns {
    /// Makes a namespace named `name` under `/run/netns` (a bind mount, as iproute2 does it): root only, not
    /// in a user namespace.
    ///
    /// # Errors
    /// [`Error::InvalidName`], [`Error::Kernel`] with `EEXIST` if the name is taken, [`Error::NoPrivileges`].
    pub async fn create_named(name: &str) -> Result<NamedNetns> {
        // The rules for interface names are stricter than those for files, and keep the name inside /run/netns.
        let path = Path::new(DIRECTORY).join(name.parse::<InterfaceName>()?.as_str());
        let netns = Self::create().await?;
        fs::create_dir_all(DIRECTORY).map_err(|e| Error::os(format!("create {DIRECTORY}"), e))?;
        File::create_new(&path).map_err(|e| Error::os(format!("create {}", path.display()), e))?;
        // From here on dropping removes what there is of the name.
        let named = NamedNetns { netns, path };
        mount(Some(&named.netns.path()), &named.path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(|e| Error::os(format!("bind {}", named.path.display()), e.into()))?;
        Ok(named)
    }
}

impl Drop for NamedNetns {
    fn drop(&mut self) {
        // EINVAL: nothing was mounted, creation failed half way.
        let unmounted = umount2(&self.path, MntFlags::MNT_DETACH);
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, ?unmounted, "cannot remove the name of a network namespace");
        }
    }
}
