//! The few kernel settings without a netlink message. All act on the namespace of the calling thread.

use std::{fs, io};

use nix::libc;

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
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    // Reading is cheaper than writing: a write takes RTNL and notifies everybody.
    match fs::read(&path) {
        Ok(value) if value.first() == Some(&b'0') => Ok(()),
        Ok(_) => write(&path, "0").map_err(|e| failed(&path, e)),
        Err(e) => Err(failed(&path, e)),
    }
}

fn write(path: &str, value: &str) -> io::Result<()> {
    fs::write(path, value)
}

fn failed(path: &str, error: io::Error) -> Error {
    let hint = match error.raw_os_error() {
        Some(libc::EROFS) => ": /proc/sys is mounted read-only, run the container privileged",
        Some(libc::ENOENT) => ": the interface is gone or the kernel lacks the protocol",
        _ => "",
    };
    Error::os(format!("write {path}{hint}"), error)
}
