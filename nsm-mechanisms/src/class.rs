use std::fmt;

use nsm_api::mechanism::{LOCAL, REMOTE};
use nsm_chain::NextHop;

/// Where a mechanism leads: to a neighbour on this node, or over the network to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Both ends are on this node.
    Local,
    /// The other end is on another node.
    Remote,
}

impl Class {
    /// The class of mechanisms that reach this hop: local ones where its URL names a socket file of this node.
    #[must_use]
    pub fn of(hop: &NextHop) -> Self {
        if hop.is_local() { Self::Local } else { Self::Remote }
    }

    /// As the wire spells it in a mechanism's `cls`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => LOCAL,
            Self::Remote => REMOTE,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_file_is_local_and_an_address_is_remote() {
        let of = |url: &str| Class::of(&NextHop(url.into()));
        for url in ["unix:///run/nse.sock", "inode://4/7", "mem://nse-1"] {
            assert_eq!(of(url), Class::Local, "{url}");
        }
        assert_eq!(of("tcp://10.0.0.1:5001"), Class::Remote);
        assert_eq!((Class::Local.as_str(), Class::Remote.as_str()), ("LOCAL", "REMOTE"));
    }
}
