//! What must hold of a mesh whenever it is quiet, whatever happened before.
//!
//! Each rule is a function that returns every [`Violation`] it finds. They look at a [`Census`]: take one when nothing has
//! been disturbed for a while.
//!
//! ```
//! use nsm_chain::{Timers, elements};
//! use nsm_sdk::testing::{Mesh, invariants};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mesh = Mesh::new()?;
//! mesh.network_service("vpn").await?;
//! let node = mesh.node("node-1").await?;
//! node.endpoint("nse-1", "vpn", elements![]).await?;
//! let timers = Timers::default();
//! let client = node.client("nsc-1").timers(timers.clone()).build()?;
//! client.request_url(&"kernel://vpn/nsm-1".parse()?, "c-1", Duration::from_secs(5)).await?;
//!
//! let census = mesh.census([("nsc-1", &**client.connections(), &timers)]);
//! assert_eq!(invariants::while_quiet(&census, &[("nsc-1".into(), "c-1".into())].into()), []);
//! # Ok(()) }
//! ```

mod closing;
mod connected;
mod owned;
mod told;
mod undisturbed;

use std::collections::BTreeSet;
use std::fmt;

use super::Census;

pub use closing::closes_are_honest;
pub use connected::{connected, flowing};
pub use owned::{connections, faultless, shown, timers, unshared, vnis, wires};
pub use told::{Told, nothing_broke, told};
pub use undisturbed::{Since, as_before, flat, uncut, unhurried};

/// A connection that a client wants: the client's name and its id there.
pub type Wanted = BTreeSet<(String, String)>;

/// What does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// Where: a hop, a client, a connection.
    pub at: String,
    /// What should be there.
    pub expected: String,
    /// What is.
    pub seen: String,
}

/// The rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A client that wants a connection has it, and every hop along its path has it too.
    Connected,
    /// A client has no other connection.
    Unwanted,
    /// Packets flow from end to end, over the wires of the path, to where the endpoint believes they arrive.
    Flowing,
    /// A hop keeps what live connections own, and nothing else.
    Connections,
    /// A hop shows its watchers what it keeps.
    Shown,
    /// A hop has the timers of its connections.
    Timers,
    /// There are the wires of live connections, and no others.
    Wires,
    /// A forwarder holds the identifiers of its tunnels.
    Vnis,
    /// Nothing is owned twice.
    Unshared,
    /// No client asks again and again for what is well.
    Unhurried,
    /// What was healthy was not cut.
    Uncut,
    /// An application is told what becomes of its connections, in an order that makes sense.
    Told,
    /// A Close of what is unknown says so.
    Closing,
    /// With nothing connected everything is as before.
    AsBefore,
    /// Memory does not grow.
    Flat,
}

impl Violation {
    pub(crate) fn new(rule: Rule, at: impl Into<String>, expected: impl fmt::Display, seen: impl fmt::Display) -> Self {
        Self { rule, at: at.into(), expected: expected.to_string(), seen: seen.to_string() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}: expected {}, seen {}", self.rule, self.at, self.expected, self.seen)
    }
}

/// All rules that a single census can break, when the clients want these connections and no others.
#[must_use]
pub fn while_quiet(census: &Census, wanted: &Wanted) -> Vec<Violation> {
    let mut found = connected(census, wanted);
    found.extend(flowing(census, wanted));
    for rule in [connections, shown, timers, wires, vnis, unshared, faultless] {
        found.extend(rule(census));
    }
    found
}

#[cfg(test)]
mod tests;
