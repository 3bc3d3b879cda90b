//! What can go wrong, in words that say what to do about it.

use std::{io, path::PathBuf};

use crate::NetnsId;

/// Short for a result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a step of kernel networking failed.
///
/// Variants are those a caller may act on; everything else the kernel refuses is [`Error::Kernel`], with the
/// kernel's own explanation (extended acknowledgement) where it gave one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An interface name the kernel would refuse.
    #[error("interface name {name:?} is not valid: {reason}; choose 1 to 15 bytes without '/', ':' or white space")]
    InvalidName {
        /// The name as it was given.
        name: String,
        /// Which rule it breaks.
        reason: &'static str,
    },

    /// A name that a network namespace cannot be given under `/run/netns`.
    #[error("network namespace name {name:?} is not valid: {reason}; choose letters, digits and dashes")]
    InvalidNetnsName {
        /// The name as it was given.
        name: String,
        /// Which rule it breaks.
        reason: &'static str,
    },

    /// A value in an interface description that cannot be programmed.
    #[error("interface {interface}: {reason}")]
    InvalidSpec {
        /// Name of the interface.
        interface: String,
        /// What is wrong, and with which value.
        reason: String,
    },

    /// Another interface, not ours to touch, has the name already.
    #[error(
        "interface name {name} is taken in network namespace {netns}{}; remove that interface or ask for another name",
        alias.as_deref().map(|a| format!(" (by one marked {a:?})")).unwrap_or_default()
    )]
    NameTaken {
        /// The name asked for.
        name: String,
        /// The namespace in which it is taken.
        netns: NetnsId,
        /// Mark (link alias) of the interface that has it, if it carries one.
        alias: Option<String>,
    },

    /// No interface of that name (and mark) is there.
    #[error(
        "no interface {name} in network namespace {netns}: it was removed from outside, or its namespace was emptied"
    )]
    LinkNotFound {
        /// The interface looked for.
        name: String,
        /// Where.
        netns: NetnsId,
    },

    /// The VXLAN network identifier is in use in the node's namespace: the kernel wants it unique for each
    /// UDP port in the namespace in which devices are created, wherever they are moved later.
    #[error("VXLAN VNI {vni} on UDP port {port} is in use in network namespace {netns}; choose another VNI")]
    VniInUse {
        /// The identifier.
        vni: u32,
        /// UDP port of the tunnel.
        port: u16,
        /// The namespace that holds the tunnel's socket.
        netns: NetnsId,
    },

    /// The node has no way to the other end of a tunnel.
    #[error(
        "no tunnel leads from {local} to {remote} in network namespace {netns}: {source}; see that the interface with \
         that address is up and has it, and a route"
    )]
    NoUnderlay {
        /// Our address.
        local: std::net::IpAddr,
        /// The other node's.
        remote: std::net::IpAddr,
        /// The namespace in which the tunnel would run.
        netns: NetnsId,
        /// The system's answer.
        source: io::Error,
    },

    /// What carries the tunnel is too narrow for the packets that it shall carry.
    #[error(
        "a tunnel to {remote} for packets of {inner} octets sends some of {outer}, and the interface that leads there \
         takes {underlay} at most; raise its MTU, or start this forwarder again so that it sees it"
    )]
    UnderlayTooNarrow {
        /// The other node.
        remote: std::net::IpAddr,
        /// The MTU that the tunnel's interface is to have.
        inner: u32,
        /// That and the headers around it.
        outer: u32,
        /// The MTU of the interface that leads there.
        underlay: u32,
    },

    /// The interface by which VLANs are reached cannot be used.
    #[error("VLANs cannot be reached by interface {name} in network namespace {netns}: {reason}")]
    Uplink {
        /// Its name.
        name: String,
        /// Where it should be.
        netns: NetnsId,
        /// What is wrong, and what to do.
        reason: String,
    },

    /// All policy routing tables set aside for this namespace are in use.
    #[error(
        "no policy routing table is left in network namespace {netns} ({in_use} in use); close connections with policy routes"
    )]
    TablesExhausted {
        /// The namespace.
        netns: NetnsId,
        /// How many tables are in use.
        in_use: usize,
    },

    /// A path or descriptor that is not a network namespace.
    #[error("{path:?} is not a network namespace; give a path such as /proc/<pid>/ns/net or /run/netns/<name>")]
    NotANetns {
        /// What was given.
        path: PathBuf,
    },

    /// The namespace cannot be opened or entered (any more).
    #[error("network namespace {path:?} cannot be opened: {source}; the workload it belonged to has probably ended")]
    NamespaceGone {
        /// What was to be opened.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },

    /// The process lacks the capability for the step.
    #[error(
        "{operation}: not permitted ({source}); it needs CAP_NET_ADMIN and CAP_SYS_ADMIN over the namespace{}: \
         run as root, or in a user namespace of your own (unshare -Urn)",
        lacking()
    )]
    NoPrivileges {
        /// The step.
        operation: String,
        /// The system's answer.
        source: io::Error,
    },

    /// This system does not let us make a user namespace.
    #[error("cannot enter a user namespace: {source}; {hint}")]
    UserNamespaceBlocked {
        /// The system's answer.
        source: io::Error,
        /// Which setting blocks it, as far as can be seen from here.
        hint: String,
    },

    /// The kernel refused a step.
    #[error("{operation}: {source}{}", detail.as_deref().map(|d| format!(" ({d})")).unwrap_or_default())]
    Kernel {
        /// The step, in words.
        operation: String,
        /// The error number.
        source: io::Error,
        /// The kernel's explanation, if it gave one.
        detail: Option<String>,
    },

    /// Work for the kernel was abandoned because the thread doing it failed.
    #[error("kernel work was abandoned: {reason}")]
    Abandoned {
        /// Why.
        reason: String,
    },

    /// A probe was not answered in time.
    #[error("{target} did not answer within {millis} ms")]
    NoAnswer {
        /// Whom we asked.
        target: std::net::IpAddr,
        /// How long we waited.
        millis: u128,
    },
}

/// Which of these capabilities the calling thread does not have at all (capabilities(7)).
fn lacking() -> String {
    const NAMES: [(&str, u64); 2] = [("CAP_NET_ADMIN", 1 << 12), ("CAP_SYS_ADMIN", 1 << 21)];
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()) else {
        return String::new();
    };
    let lacks: Vec<_> = NAMES.iter().filter(|(_, bit)| effective & bit == 0).map(|(name, _)| *name).collect();
    if lacks.is_empty() { String::new() } else { format!(", and this process lacks {}", lacks.join(" and ")) }
}

impl Error {
    /// Names the step in which a system call failed; missing privileges become their own variant.
    pub(crate) fn os(operation: impl Into<String>, source: io::Error) -> Self {
        Self::kernel(operation.into(), source, None)
    }

    pub(crate) fn kernel(operation: String, source: io::Error, detail: Option<String>) -> Self {
        match source.raw_os_error() {
            Some(nix::libc::EPERM | nix::libc::EACCES) => Self::NoPrivileges { operation, source },
            _ => Self::Kernel { operation, source, detail },
        }
    }

    /// The error number the kernel gave, where there was one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { source, .. }
            | Self::NoPrivileges { source, .. }
            | Self::NamespaceGone { source, .. }
            | Self::NoUnderlay { source, .. }
            | Self::UserNamespaceBlocked { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
