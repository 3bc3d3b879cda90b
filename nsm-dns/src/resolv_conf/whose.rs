//! Which file belongs to a network namespace.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::ResolvConf;

/// What programs read, if nobody told them otherwise.
const FILE: &str = "/etc/resolv.conf";
/// Where namespaces have names.
const NAMES: &str = "/run/netns";

/// Device and inode of a file.
type Id = (u64, u64);

/// What there is to go by.
#[derive(Debug, Clone, Default)]
struct Facts {
    netns: Option<Id>,
    /// Of the first process, as far as it may be looked at: in a container, that of the container; else, that of the machine.
    first_netns: Option<Id>,
    file: Option<Id>,
    first_file: Option<Id>,
    /// The name of our network namespace.
    name: Option<String>,
}

impl ResolvConf {
    /// The file of this process's network namespace: `/etc/resolv.conf`, if programs of no other one read it, as in a container
    /// or on the machine itself. Else, if the namespace has a name, the one that `ip netns exec` gives programs in it,
    /// `/etc/netns/<name>/resolv.conf`. Else there is none, and `/etc/resolv.conf` is only read.
    #[must_use]
    pub fn here() -> Self {
        let netns = id("/proc/self/ns/net");
        let names = fs::read_dir(NAMES).into_iter().flatten().flatten();
        let mut names = names.filter(|entry| netns.is_some() && id(entry.path()) == netns);
        let facts = Facts {
            netns,
            first_netns: id("/proc/1/ns/net"),
            file: id(FILE),
            first_file: id(format!("/proc/1/root{FILE}")),
            name: names.find_map(|entry| entry.file_name().into_string().ok()),
        };
        Self::by(&facts)
    }

    /// That of a namespace with this name: what `ip netns exec` gives programs in it.
    #[must_use]
    pub fn of_named(name: &str) -> Self {
        Self::at(format!("/etc/netns/{name}/resolv.conf")).inheriting(FILE)
    }

    fn by(facts: &Facts) -> Self {
        let with_the_first = facts.netns.is_some() && facts.netns == facts.first_netns;
        // A mount of our own hides the machine's file from us, and ours from the machine.
        let own_file = facts.first_netns.is_some() && facts.file.is_some() && facts.file != facts.first_file;
        match &facts.name {
            _ if with_the_first || own_file => Self::at(FILE),
            Some(name) => Self::of_named(name),
            None => Self::at(FILE).read_only(),
        }
    }
}

fn id(path: impl AsRef<Path>) -> Option<Id> {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_other_namespaces_read_is_not_written() {
        let machine = Facts {
            netns: Some((4, 1)),
            first_netns: Some((4, 1)),
            file: Some((8, 7)),
            first_file: Some((8, 7)),
            name: None,
        };
        let path = |facts: &Facts| {
            let file = ResolvConf::by(facts);
            file.is_writable().then(|| file.path().display().to_string())
        };
        assert_eq!(path(&machine).as_deref(), Some(FILE));
        // nsenter --net, unshare --net.
        let entered = Facts { netns: Some((4, 2)), ..machine };
        assert_eq!(path(&entered), None);
        let named = Facts { name: Some("web".into()), ..entered };
        assert_eq!(path(&named).as_deref(), Some("/etc/netns/web/resolv.conf"));
        // A container that sees the processes of the machine; ip netns exec, with a file for the namespace.
        let mounted = Facts { file: Some((9, 7)), ..named };
        assert_eq!(path(&mounted).as_deref(), Some(FILE));
        // The first process may not be looked at.
        assert_eq!(path(&Facts { first_netns: None, first_file: None, ..entered }), None);
    }
}
