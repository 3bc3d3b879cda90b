//! May this process program the network, and how could it?

use std::{
    convert::Infallible,
    ffi::{OsStr, OsString},
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
};

use nix::sched::{CloneFlags, unshare};

use crate::{Error, Result};

/// Whether and how kernel networking can be done here.
#[derive(Debug)]
pub struct Privileges {
    /// Namespaces can be made and programmed right away.
    pub net_admin: bool,
    /// This process was started by [`reexec_in_user_namespace`].
    pub in_user_namespace: bool,
    /// Why not, if not: [`Error::NoPrivileges`].
    pub obstacle: Option<Error>,
}

const MARKER: &str = "NSM_IN_USER_NAMESPACE";

/// Tries it: makes a namespace on a thread that ends with it.
pub fn privileges() -> Privileges {
    let attempt = std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join();
    let obstacle = match attempt {
        Ok(Ok(())) => None,
        Ok(Err(errno)) => Some(Error::os("create a network namespace", errno.into())),
        Err(_) => Some(Error::Abandoned { reason: "the thread that tried it failed".to_owned() }),
    };
    Privileges { net_admin: obstacle.is_none(), in_user_namespace: std::env::var_os(MARKER).is_some(), obstacle }
}

/// Starts this program again, with the same arguments, in a user namespace in which it is root, with network
/// and mount namespaces of its own. Does not return on success.
///
/// Call it first in `main`, before a runtime or thread is started. A program that was started this way must
/// not call it again: look at [`Privileges::in_user_namespace`].
///
/// # Errors
/// [`Error::UserNamespaceBlocked`] naming the setting that forbids it, as far as it can be seen.
pub fn reexec_in_user_namespace() -> Result<Infallible> {
    // The image that runs, even if the file was replaced meanwhile; argv[0] as the user typed it.
    let mut arguments = std::env::args_os();
    let mut command = Command::new("/proc/self/exe");
    command.arg0(arguments.next().unwrap_or_else(|| OsString::from("nsm")));
    command.args(arguments);
    in_user_namespace(&mut command);
    Err(blocked(command.exec()))
}

/// Makes `command` start as root of a new user namespace with network and mount namespaces of its own, mapped
/// to the user it runs as (also one set by [`CommandExt::uid`]). Starting it fails with the error of
/// unshare(2) where that is not allowed; [`blocked`] explains it.
#[allow(unsafe_code, reason = "code between fork and exec cannot be had otherwise")]
pub fn in_user_namespace(command: &mut Command) {
    command.env(MARKER, "1");
    let enter = || {
        // After a change of user /proc/self belongs to root until the process may be looked at again.
        nix::sys::prctl::set_dumpable(true)?;
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
        // A process may map its own user and group by itself once it gave up setgroups (user_namespaces(7)).
        write("/proc/self/setgroups", "deny", None)?;
        write("/proc/self/uid_map", "0 ", Some(uid.as_raw()))?;
        write("/proc/self/gid_map", "0 ", Some(gid.as_raw()))
    };
    // SAFETY: `enter` may run in the child of a threaded process, so it must be async-signal-safe: it makes
    // system calls only and neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(enter);
    }
}

/// Explains why a user namespace could not be entered.
pub fn blocked(source: io::Error) -> Error {
    Error::UserNamespaceBlocked { source, hint: hint() }
}

/// Writes `text`, and `0 <id> 1` for a map, in one write(2) without allocating.
fn write(path: &str, text: &str, id: Option<u32>) -> io::Result<()> {
    use io::Write;
    let mut buffer = [0; 32];
    let mut rest = &mut buffer[..];
    match id {
        Some(id) => write!(rest, "{text}{id} 1")?,
        None => write!(rest, "{text}")?,
    }
    let unused = rest.len();
    let length = buffer.len() - unused;
    let file = nix::fcntl::open(path, nix::fcntl::OFlag::O_WRONLY, nix::sys::stat::Mode::empty())?;
    nix::unistd::write(&file, &buffer[..length])?;
    Ok(())
}

fn hint() -> String {
    let settings = [
        ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces is 0: set it to 10000 or so"),
        (
            "/proc/sys/kernel/unprivileged_userns_clone",
            "0",
            "sysctl kernel.unprivileged_userns_clone is 0: set it to 1",
        ),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "AppArmor restricts user namespaces: set sysctl kernel.apparmor_restrict_unprivileged_userns to 0 \
             or give this program a profile that allows userns",
        ),
    ];
    let blocking = settings.iter().find(|(path, value, _)| reads(Path::new(path), value.as_ref()));
    match blocking {
        Some((_, _, hint)) => format!("{hint}; or run as root"),
        None if !Path::new("/proc/self/ns/user").exists() => {
            "this kernel has no user namespaces, or /proc is not mounted: run as root".to_owned()
        }
        None => "a container runtime's seccomp profile or a chroot may forbid it, or threads were running already: \
                 run as root, or in a privileged container"
            .to_owned(),
    }
}

fn reads(path: &Path, value: &OsStr) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| OsStr::new(text.trim()) == value)
}
