//! One address out of a pool.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::pool::Shared;

/// One address out of a [`Pool`](super::Pool), for as long as this lives: dropping it gives the address back.
#[must_use = "dropping a lease gives its address back at once"]
pub struct Lease {
    pool: Arc<Shared>,
    address: IpAddr,
}

/// Why an address was not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Every address is leased or excluded.
    #[error(
        "no free address left in {prefixes} that is not excluded: add a prefix to the pool, close connections, or exclude less"
    )]
    Exhausted {
        /// The pool's prefixes.
        prefixes: String,
    },
    /// Somebody else has it.
    #[error("{address} is taken: ask for another, or close the connection that has it")]
    Taken {
        /// The address asked for.
        address: IpAddr,
    },
    /// It is not the pool's to give.
    #[error("{address} is in none of {prefixes}: ask for one that is, or add its prefix to the pool")]
    Foreign {
        /// The address asked for.
        address: IpAddr,
        /// The pool's prefixes.
        prefixes: String,
    },
}

impl Lease {
    pub(super) fn new(pool: Arc<Shared>, address: IpAddr) -> Self {
        Self { pool, address }
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The address as a host's prefix: `/32` or `/128`.
    #[must_use]
    pub fn host(&self) -> IpNet {
        self.address.into()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.give_back(self.address);
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({})", self.address)
    }
}

impl From<LeaseError> for nsm_chain::Error {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::Exhausted { .. } => Self::exhausted("no address for the connection"),
            LeaseError::Taken { .. } => Self::taken("no address for the connection"),
            LeaseError::Foreign { .. } => Self::invalid("no address for the connection"),
        }
        .because(error)
    }
}
