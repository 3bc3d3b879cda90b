use std::collections::BTreeSet;
use std::fmt;

use super::{Interface, Part};
use crate::lifetime::Reason;

/// One thing that became of a connection.
#[derive(Debug, Clone)]
pub enum Change {
    /// It is there: for the first time, or again after it was down.
    Up(Interface),
    /// It stayed up, and is not what it was.
    Changed {
        /// In what.
        what: BTreeSet<Part>,
        /// What broke, or had broken: why it is being mended, has been mended, or has moved. None: a refresh, or the
        /// application, changed it.
        why: Option<Reason>,
        /// As it is now.
        now: Interface,
    },
    /// It is down: what there was is taken away, or carries no packets. It is being made again.
    Down {
        /// What happened.
        why: Reason,
        /// As it was.
        was: Interface,
    },
    /// It has ended. Nothing follows.
    Gone {
        /// How.
        how: Ending,
        /// As it was.
        was: Interface,
    },
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ending {
    /// Whoever asked for it closed it.
    Closed,
    /// This hop closed it by itself: a client that shuts down; an endpoint whose caller has stopped refreshing.
    Ended,
    /// It was closed, but further on not all of it could be undone. What is left there goes when the tokens expire.
    Partly,
    /// The process's client, or its chain, is gone without having closed it. Other hops keep it until the tokens expire;
    /// another life of this one may go on with it.
    Abandoned,
}

impl Change {
    /// The interface as it is now, or was last.
    #[must_use]
    pub fn interface(&self) -> &Interface {
        match self {
            Self::Up(interface)
            | Self::Changed { now: interface, .. }
            | Self::Down { was: interface, .. }
            | Self::Gone { was: interface, .. } => interface,
        }
    }

    /// Its name where programs read it: `up`, `changed`, `down`, `gone`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Up(_) => "up",
            Self::Changed { .. } => "changed",
            Self::Down { .. } => "down",
            Self::Gone { .. } => "gone",
        }
    }
}

impl Ending {
    /// Its name where programs read it, such as `closed`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Ended => "ended",
            Self::Partly => "partly",
            Self::Abandoned => "abandoned",
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Ended => "closed from here",
            Self::Partly => "closed, but not everything further on could be undone",
            Self::Abandoned => "left to itself",
        })
    }
}

impl fmt::Display for Change {
    /// Such as `changed (endpoint): interface nsm-1, 10.1.0.1/32 to 10.1.0.0/32, vpn of nse-2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up(now) => write!(f, "up: {now}"),
            Self::Changed { what, why, now } => {
                let parts: Vec<_> = what.iter().map(|part| part.as_str()).collect();
                write!(f, "changed ({}): {now}", parts.join(", "))?;
                // What is still broken, the interface itself says.
                match why.filter(|_| now.broken().is_none()) {
                    Some(why) => write!(f, "; mended: {why}"),
                    None => Ok(()),
                }
            }
            Self::Down { why, .. } => write!(f, "down: {why}"),
            Self::Gone { how, .. } => write!(f, "gone: {how}"),
        }
    }
}
