//! Names for namespaces, as `ip netns` knows them.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{Lane, Netns, work};
use crate::rtnl::{Rtnl, link};
use crate::{Error, Result, links_with_mark};

const DIRECTORY: &str = "/run/netns";
/// What every namespace is born with; it carries the mark of the whole namespace.
const LOOPBACK: &str = "lo";
/// Longer names are cut by no tool and read by nobody.
const LONGEST: usize = 100;

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
    /// [`Error::InvalidNetnsName`], [`Error::Kernel`] with `EEXIST` if the name is taken, [`Error::NoPrivileges`].
    pub async fn create_named(name: &str) -> Result<NamedNetns> {
        let path = path_of(name)?;
        give_name(Self::create().await?, path)
    }

    /// Puts a mark into the namespace, the alias of its loopback interface, and then gives it a name under `/run/netns`:
    /// whoever finds the name later knows whose it is ([`named_with_mark`](Self::named_with_mark)), even if its maker
    /// was killed.
    ///
    /// ```no_run
    /// # async fn example() -> nsm_kernel::Result<()> {
    /// use nsm_kernel::Netns;
    ///
    /// let named = Netns::create().await?.named("lab.web", "made by my lab").await?;
    /// assert_eq!(Netns::named_with_mark("made by my lab").await?[0].netns(), named.netns());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`create_named`](Self::create_named).
    pub async fn named(&self, name: &str, mark: &str) -> Result<NamedNetns> {
        let path = path_of(name)?;
        let (marked, mark) = (self.clone(), mark.to_owned());
        work(Lane::Quick, move |here| {
            here.enter(&marked)?;
            let mut rtnl = Rtnl::open()?;
            let missing = || Error::LinkNotFound { name: LOOPBACK.to_owned(), netns: marked.id() };
            let loopback = rtnl.link(&LOOPBACK.parse()?)?.ok_or_else(missing)?;
            rtnl.apply(vec![link::mark_and_up(loopback.index, &mark)])
        })
        .await?;
        give_name(self.clone(), path)
    }

    /// The namespaces under `/run/netns` that carry this mark. Dropping one takes its name away, and with the name the
    /// namespace, if nobody else holds it. What has gone or cannot be looked at is passed over.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the directory cannot be read.
    pub async fn named_with_mark(mark: &str) -> Result<Vec<NamedNetns>> {
        let entries = match fs::read_dir(DIRECTORY) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::os(format!("read {DIRECTORY}"), error)),
        };
        let mut found = Vec::new();
        for path in entries.flatten().map(|entry| entry.path()) {
            let Ok(netns) = Self::open(&path) else { continue };
            let marked = links_with_mark(&netns, mark).await.unwrap_or_default();
            if marked.iter().any(|link| link.name == LOOPBACK && link.alias == mark) {
                found.push(NamedNetns { netns, path });
            }
        }
        Ok(found)
    }
}

/// Where a name goes, if it is one that a shell, a file system and `ip netns` take as it is.
fn path_of(name: &str) -> Result<PathBuf> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@:".contains(c);
    let reason = if name.is_empty() || name.len() > LONGEST {
        "it must have from 1 to 100 letters"
    } else if name.starts_with(['.', '-']) {
        "it begins with a dot or a dash"
    } else if !name.chars().all(plain) {
        "it has characters other than letters, digits, dash, underscore, dot, colon, @"
    } else {
        return Ok(Path::new(DIRECTORY).join(name));
    };
    Err(Error::InvalidNetnsName { name: name.to_owned(), reason })
}

fn give_name(netns: Netns, path: PathBuf) -> Result<NamedNetns> {
    fs::create_dir_all(DIRECTORY).map_err(|e| Error::os(format!("create {DIRECTORY}"), e))?;
    File::create_new(&path).map_err(|e| Error::os(format!("create {}", path.display()), e))?;
    // From here on dropping removes what there is of the name.
    let named = NamedNetns { netns, path };
    mount(Some(&named.netns.path()), &named.path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|e| Error::os(format!("bind {}", named.path.display()), e.into()))?;
    Ok(named)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_plain_word() {
        for bad in ["", ".", "..", "a/b", "a b", "-n", "\u{e4}", &"x".repeat(101)] {
            assert!(matches!(path_of(bad), Err(Error::InvalidNetnsName { .. })), "{bad:?}");
        }
        assert_eq!(
            path_of("nsm-two-nodes.a-longer-name").unwrap(),
            Path::new("/run/netns/nsm-two-nodes.a-longer-name")
        );
    }
}
