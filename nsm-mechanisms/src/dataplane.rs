use std::sync::Arc;
use std::time::Duration;

use nsm_api::{Connection, ConnectionContext, Mechanism};
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

    /// What is offered for the connection of this id to a next hop of this class, best first; empty where it cannot be
    /// reached. Asked again for the same connection it offers the same: keys of a tunnel, say, do not change.
    fn offers(&self, id: &str, class: Class, payload: &str) -> Vec<Mechanism>;

    /// Checks the mechanism that the caller brings for the connection of this id, and completes it with this side's
    /// parameters. `held` is what an earlier Request for the same connection leased; without it, what an earlier life of
    /// this forwarder gave the connection is given again, as far as the data plane still shows it.
    ///
    /// # Errors
    /// What is wrong with it, in words for its sender.
    fn accept(&self, id: &str, mechanism: &mut Mechanism, held: Option<&Self::Lease>) -> Result<Self::Lease>;

    /// Whether a wire can lead from a caller with this mechanism to a next hop with that one. Nothing else is offered to it.
    fn joins(&self, _caller: &Mechanism, _next: &Mechanism) -> bool {
        true
    }

    /// Completes the caller's mechanism with what its end must know of the wire, and the next hop's, which has answered
    /// `connection`, with what only this node knows.
    ///
    /// # Errors
    /// Why there can be no such wire.
    fn complete(&self, _connection: &Connection, _caller: &mut Mechanism, _next: &mut Mechanism) -> Result<()> {
        Ok(())
    }

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
    /// Whose it is, if that is known.
    pub origin: Option<Origin>,
}

/// Whose connection it is, whatever ids it has at the hops: a fact that `NoteOrigin` of the SDK leaves in a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The client's identity, its name, what it calls the connection, and how far it is from here.
    pub client: Arc<str>,
    /// It asks as if there were none yet. If there is one, then of a life of the client that is over: one that lives knows
    /// what it has.
    pub starts_over: bool,
}

impl Wire {
    /// Whether it takes the place of `former`: both are one connection to their client, which has forgotten that one.
    pub(crate) fn supersedes(&self, former: &Self) -> bool {
        let (Some(new), Some(old)) = (&self.origin, &former.origin) else { return false };
        new.starts_over && new.client == old.client && self.id != former.id
    }

    /// As it is remembered: whoever asks for it again does not start over.
    pub(crate) fn remembered(&self) -> Self {
        let origin = self.origin.clone().map(|origin| Origin { starts_over: false, ..origin });
        Self { origin, ..self.clone() }
    }
}

/// What was done to have a wire as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Programmed {
    /// It was so already; the data plane was not even asked.
    Unchanged,
    /// There was none.
    Made,
    /// One that an earlier life of this forwarder made was taken up, without cutting it.
    Adopted,
    /// It was changed in place.
    Changed {
        /// Changes asked of the data plane; 0: only what it does not show has changed.
        writes: usize,
    },
    /// It was removed and made elsewhere.
    Moved,
}

/// A fact that [`CrossConnect`](crate::CrossConnect) leaves in a call that went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wired {
    /// What was done.
    pub programmed: Programmed,
    /// How long it took.
    pub took: Duration,
}
