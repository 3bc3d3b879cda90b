//! Making and opening namespaces.

use std::{
    fs::File,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

use nix::{
    libc,
    sched::{CloneFlags, unshare},
};

use super::{Here, Netns, NetnsId};
use crate::{Error, Result, rtnl::Rtnl};

pub(super) fn create(here: &mut Here) -> Result<Netns> {
    let netns = here.detour(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| Error::os("create a network namespace", e.into()))?;
        Netns::current()
    })?;
    here.enter(&netns)?;
    Rtnl::open()?.loopback_up()?;
    Ok(netns)
}

pub(super) fn open(path: &Path) -> Result<Netns> {
    // O_PATH opens nothing behind the path: no device, no FIFO is woken by looking at it.
    let looked_at = File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)
        .map_err(|source| Error::NamespaceGone { path: path.into(), source })?;
    verified(&looked_at, path)
}

pub(super) fn from_fd(fd: OwnedFd) -> Result<Netns> {
    let file = File::from(fd);
    verified(&file, Path::new(&fd_path(&file)))
}

fn verified(looked_at: &File, path: &Path) -> Result<Netns> {
    let gone = |source| Error::NamespaceGone { path: path.into(), source };
    if !on_nsfs(looked_at) {
        return Err(Error::NotANetns { path: path.into() });
    }
    // Opened anew: setns(2) and ioctl(2) refuse descriptors opened with O_PATH.
    let file = File::open(fd_path(looked_at)).map_err(gone)?;
    if !is_network_kind(&file) {
        return Err(Error::NotANetns { path: path.into() });
    }
    let metadata = file.metadata().map_err(gone)?;
    Ok(Netns::interned(NetnsId { dev: metadata.dev(), ino: metadata.ino() }, file.into()))
}

fn on_nsfs(file: &File) -> bool {
    nix::sys::statfs::fstatfs(file).is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::NSFS_MAGIC)
}

/// Asks the kernel for the kind of a namespace (ioctl_ns(2), `NS_GET_NSTYPE`).
#[allow(unsafe_code, reason = "no safe wrapper of ioctl_ns(2) in nix or rustix")]
fn is_network_kind(file: &File) -> bool {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: this ioctl takes no argument and touches no memory of ours; the descriptor is open, on nsfs.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
    kind == libc::CLONE_NEWNET
}

fn fd_path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_network_namespace_is_refused_without_opening_it() {
        let fifo = std::env::temp_dir().join(format!("nsm-kernel-fifo-{}", std::process::id()));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Opening the FIFO for reading would block for ever.
        let answer = Netns::open(&fifo);
        std::fs::remove_file(&fifo).unwrap();
        assert!(matches!(answer, Err(Error::NotANetns { .. })), "{answer:?}");
        assert!(matches!(Netns::open("/proc/self/ns/mnt"), Err(Error::NotANetns { .. })));
        assert!(matches!(Netns::open("/proc/self/exe"), Err(Error::NotANetns { .. })));
        assert!(matches!(Netns::open("/proc/0/ns/net"), Err(Error::NamespaceGone { .. })));
        assert!(matches!(Netns::open("nul\0byte"), Err(Error::NamespaceGone { .. })));
    }

    #[test]
    fn handles_of_one_namespace_share_one_descriptor() {
        let first = Netns::current().unwrap();
        let second = Netns::open(first.path()).unwrap();
        assert_eq!(first, second);
        assert_eq!(first.path(), second.path());
        let copy = File::open(first.path()).unwrap();
        assert_eq!(Netns::from_fd(copy.into()).unwrap().id(), first.id());
    }
}
