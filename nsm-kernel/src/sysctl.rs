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

fn set_disable_ipv6(interface: &str, wanted: &str) -> Result<()> {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    // Reading is cheaper than writing: a write takes RTNL and notifies everybody.
    match fs::read_to_string(&path) {
        Ok(value) if value.trim_end() == wanted => Ok(()),
        Ok(_) => write(&path, wanted).map_err(|e| failed(&path, e)),
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
