//! Keeping what is in a data plane equal to what live connections own.

mod element;
mod round;

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use nsm_chain::Result;

use crate::Dataplane;

pub use element::{Pace, Reconcile};

/// A data plane that can be compared with what its connections own: what [`Reconcile`] works with.
///
/// Everything it makes carries a mark by which it is known as this forwarder's, also after a restart. Nothing here may
/// touch what does not carry it, nor what an event of a connection that is under way may be about to take up.
pub trait Reconciled: Dataplane {
    /// Something that carries the mark and belongs to no connection: what an earlier life left.
    ///
    /// It says where it is, so that it can be found again, but keeps nothing open.
    type Stray: Clone + Eq + Hash + fmt::Display + fmt::Debug + Send + Sync;

    /// Compares what is there with what connections own. Changes nothing.
    ///
    /// Identifiers that strays occupy (a tunnel's) are kept from new connections until the next look no longer finds
    /// them. What cannot be looked at is left out.
    fn census(&self, reach: Reach) -> impl Future<Output = Census<Self::Stray>> + Send;

    /// Removes a stray, unless a connection has taken it up meanwhile. Whether it was there.
    ///
    /// # Errors
    /// What is left, and why. It may be asked again.
    fn remove(&self, stray: &Self::Stray) -> impl Future<Output = Result<bool>> + Send;

    /// Makes the wire that a connection owns what it should be, if it is not.
    ///
    /// # Errors
    /// Why it cannot be. It may be asked again.
    fn mend(&self, id: &str) -> impl Future<Output = Result<Mended>> + Send;

    /// Waits until somebody else may have changed wires of connections, and says which. Nothing is lost when the future
    /// is dropped. A data plane that does not hear of such changes waits for ever; the census finds them.
    fn disturbed(&self) -> impl Future<Output = Vec<Arc<str>>> + Send;
}

/// How far a census looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Where connections have wires. Cheap.
    Wires,
    /// Wherever something of this forwarder may be.
    Everywhere,
}

/// What a look at the data plane found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census<S> {
    /// What carries the mark and belongs to no connection, nor to one that is being worked on.
    pub strays: Vec<S>,
    /// Ids of the connections whose wire is not as it should be, or is to go: its place has gone, or nobody wants it.
    pub drifted: Vec<Arc<str>>,
}

/// What became of a wire that was to be mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mended {
    /// It was as it should be; nothing was written.
    Whole,
    /// It was put right in place.
    Changed {
        /// Changes asked of the data plane.
        writes: usize,
    },
    /// It was gone, or part of it was, and is there again.
    Remade,
    /// It is gone for good: the workload at one of its ends has ended, or its client has started over and has another
    /// one in its place. The connection is to be closed, if it is not yet.
    Gone,
    /// No connection of that id has a wire.
    Unknown,
}

#[cfg(test)]
mod tests;
