//! The few kernel settings without a netlink message. All act on the namespace of the calling thread.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
};

use nix::libc;
use rustix::{
    fs::{Mode, OFlags, openat},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
};

use crate::{Error, Result};

/// Lets every group make ICMP datagram sockets (icmp(7), `ping_group_range`), so that liveness probes and the
/// workload's own `ping` need no privilege.
pub(crate) fn allow_ping() -> Result<()> {
    const PATH: &str = "/proc/sys/net/ipv4/ping_group_range";
    match write(PATH, "0 2147483647") {
        // In a user namespace both ends must be mapped groups; often only group 0 is.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => write(PATH, "0 0"),
        other => other,
    }
    .map_err(|e| failed(PATH, e))
}

/// Container runtimes often start namespaces with IPv6 disabled on new interfaces.
pub(crate) fn enable_ipv6(interface: &str) -> Result<()> {
    set_disable_ipv6(interface, "0")
}

/// An interface that only passes packets on must send none of its own.
pub(crate) fn disable_ipv6(interface: &str) -> Result<()> {
    match set_disable_ipv6(interface, "1") {
        // No IPv6 in this kernel at all.
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// Makes a router of the namespace, one that may have the addresses of those whose packets it forwards.
pub(crate) fn be_router() -> Result<()> {
    let put = |path: &str, needed: bool| match read(path) {
        Ok(value) if value.trim_end() == "1" => Ok(()),
        Ok(_) => write(path, "1").map_err(|e| failed(path, e)),
        // No IPv6 in this kernel at all.
        Err(e) if !needed && e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(e) => Err(failed(path, e)),
    };
    put("/proc/sys/net/ipv4/ip_forward", true)?;
    put("/proc/sys/net/ipv4/conf/all/accept_local", true)?;
    put("/proc/sys/net/ipv4/conf/default/proxy_arp", true)?;
    put("/proc/sys/net/ipv6/conf/all/forwarding", false)
}

fn set_disable_ipv6(interface: &str, wanted: &str) -> Result<()> {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    // Reading is cheaper than writing: a write takes RTNL and notifies everybody.
    match read(&path) {
        Ok(value) if value.trim_end() == wanted => Ok(()),
        Ok(_) => write(&path, wanted).map_err(|e| failed(&path, e)),
        Err(e) => Err(failed(&path, e)),
    }
}

fn read(path: &str) -> io::Result<String> {
    let mut value = String::new();
    open(path, OFlags::RDONLY)?.read_to_string(&mut value)?;
    Ok(value)
}

fn write(path: &str, value: &str) -> io::Result<()> {
    open(path, OFlags::WRONLY)?.write_all(value.as_bytes())
}

fn failed(path: &str, error: io::Error) -> Error {
    let hint = match error.raw_os_error() {
        Some(libc::EROFS) => ": /proc/sys is mounted read-only, run the container privileged",
        Some(libc::ENOENT) => ": the interface is gone or the kernel lacks the protocol",
        _ => "",
    };
    Error::os(format!("write {path}{hint}"), error)
}

/// A procfs of this process's own. The kernel keeps an entry of each namespace for one path and looks through all of them
/// at each look-up, so that with a thousand namespaces an open takes a millisecond. A new procfs has none yet.
struct Procfs {
    /// None where one may not be mounted, as in a container without CAP_SYS_ADMIN: then it is the common one.
    root: Option<Arc<OwnedFd>>,
    opened: u32,
}

static PROCFS: Mutex<Procfs> = Mutex::new(Procfs { root: None, opened: Procfs::OPENS });

impl Procfs {
    /// Then it is time for a new one, which costs as much as looking through some fifty entries.
    const OPENS: u32 = 64;

    /// The one to be used for one look-up.
    fn root(&mut self) -> Option<Arc<OwnedFd>> {
        if self.opened >= Self::OPENS {
            // The former one first: so there is never one more descriptor than before.
            self.root = None;
            *self = Self { root: mount().ok().map(Arc::new), opened: 0 };
        }
        self.opened += 1;
        self.root.clone()
    }
}

/// The root of a new procfs, which nobody else sees and which goes with its descriptor.
fn mount() -> io::Result<OwnedFd> {
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Opens a file below `/proc`.
fn open(path: &str, how: OFlags) -> io::Result<File> {
    let root = PROCFS.lock().unwrap_or_else(PoisonError::into_inner).root();
    let how = how | OFlags::CLOEXEC;
    let opened = match root {
        Some(root) => openat(&*root, path.trim_start_matches("/proc/"), how, Mode::empty()),
        None => rustix::fs::open(path, how, Mode::empty()),
    };
    Ok(opened?.into())
}
