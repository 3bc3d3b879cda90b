use std::sync::Arc;

use nsm_api::{ConnectionContext, Mechanism};
use nsm_chain::Result;

use crate::Class;

/// What a forwarder programs: the seam between the mesh and a data plane (the Linux kernel, VPP, Open vSwitch, SR-IOV,
/// or memory in tests).
///
/// It keeps desired state. [`connect`](Self::connect) may be asked at any time for a wire that exists already, and does
/// no more than what changed. Events of one connection come one at a time; those of different ones at once.
pub trait Dataplane: Send + Sync + 'static {
    /// What the caller's side of a wire holds as long as it lives, such as a tunnel identifier; dropping the last copy
    /// gives it back.
    type Lease: Clone + Send + 'static;

    /// Types of the mechanisms a caller may bring, for connections that carry `payload`.
    fn accepts(&self, payload: &str) -> Vec<&'static str>;

    /// What is offered to a next hop of this class, best first; empty where it cannot be reached.
    fn offers(&self, class: Class, payload: &str) -> Vec<Mechanism>;

    /// Checks the mechanism that the caller brings and completes it with this side's parameters. `held` is what an
    /// earlier Request for the same connection leased.
    ///
    /// # Errors
    /// What is wrong with it, in words for its sender.
    fn accept(&self, mechanism: &mut Mechanism, held: Option<&Self::Lease>) -> Result<Self::Lease>;

    /// Makes this wire, or changes the one that this connection has into it.
    ///
    /// # Errors
    /// Why it cannot be. A wire that was there before is left as it was as far as possible; of a new one nothing is
    /// left.
    fn connect(&self, wire: &Wire) -> impl Future<Output = Result<Programmed>> + Send;

    /// Removes the connection's wire; done, if there is none.
    ///
    /// # Errors
    /// What is left, and why. It may be asked again.
    fn disconnect(&self, id: &str) -> impl Future<Output = Result<()>> + Send;
}

/// One wire as it should be: what joins the caller to the next hop.
#[derive(Debug, Clone, PartialEq)]
pub struct Wire {
    /// The connection's id at this hop.
    pub id: Arc<str>,
    /// Towards the caller, complete.
    pub caller: Mechanism,
    /// Towards the next hop, complete.
    pub next: Mechanism,
    /// Addresses, routes, policies, neighbours, MTU.
    pub context: ConnectionContext,
    /// What the connection carries (`nsm_api::payload`).
    pub payload: String,
}

/// What making or changing a wire took. Left as a fact in the call by [`CrossConnect`](crate::CrossConnect).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Programmed {
    /// Changes asked of the data plane; 0: everything was as it should be.
    pub writes: usize,
}
