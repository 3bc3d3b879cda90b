//! One Request or Close on its way through a chain.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nsm_api::connection::{Connection, Mechanism};
use tokio_util::sync::CancellationToken;

use crate::begin::Handle;
use crate::sync::tokio;
use crate::sync::tokio::time::Instant;
use crate::{Error, LinkInfo, Peer, Protocol, Result, Service, Slot, State, Token, TokenError, Tokens};

/// One Request or Close on its way through a chain, and back.
///
/// It is one pointer. It owns the connection (or record), what the caller sent with it, who the caller is, until when
/// it waits, typed facts that elements found on the way, and this hop's state for the connection. Elements edit it in
/// place; the same call comes back from [`Next`](crate::Next). The body is shared until somebody edits it, so keeping
/// a copy costs a reference count.
pub struct Call<P: Protocol = Service>(Box<Inner<P>>);

struct Inner<P: Protocol> {
    body: Arc<P::Body>,
    extra: P::Extra,
    why: Why,
    peer: Option<Arc<Peer>>,
    token: Option<Token>,
    deadline: Option<Instant>,
    cancel: CancellationToken,
    facts: Facts,
    state: Option<Arc<State>>,
    handle: Option<Handle<P>>,
    closed: Closed,
    first: bool,
    own: bool,
}

pub(crate) type Facts = Vec<(TypeId, Arc<dyn Any + Send + Sync>)>;

/// Why a Request is made, as far as this hop can know.
///
/// The initiator knows, because it decides. On the wire there is no reason: every other hop concludes it from what it
/// knows of the connection and from what the Request says ([`Protocol::why`]). There a healing that changed nothing
/// before this hop looks like a refresh, which is all it is to this hop.
///
/// ```
/// use nsm_chain::{Begin, Call, Chain, Element, Next, Result, Why, elements};
///
/// /// Makes something of its own for each connection.
/// struct Tables;
/// impl Element for Tables {
///     async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
///         let what = match call.why() {
///             Why::First => "made",
///             Why::Refresh => "kept",
///             Why::Heal => "checked",
///             Why::Reselect => "made afresh",
///         };
///         call.connection_mut().labels.insert("table".into(), what.into());
///         next.request(call).await
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// let chain = Chain::new("nse-1", elements![Begin::default(), Tables]).unwrap();
/// let asked = nsm_api::Connection { id: "c-1".into(), ..Default::default() };
/// let made = chain.request(Call::new(asked)).await?;
/// assert_eq!(made.connection().labels["table"], "made");
/// let again = chain.request(Call::new(made.share())).await?;
/// assert_eq!(again.connection().labels["table"], "kept");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Why {
    /// It is new, here and to its caller.
    #[default]
    First,
    /// It stands, and is asked for again: tokens age, another hop wants to be asked, the application wants something
    /// else of it.
    Refresh,
    /// The path broke; what still stands is used again. Where [`Call::is_first`] holds too, this hop is what is new to
    /// the path, or has forgotten it: the caller had the connection before.
    Heal,
    /// The path broke or the service changed; every hop lets go and chooses afresh. Of a Close: the connection is closed
    /// to be chosen afresh, and is still wanted.
    Reselect,
}

/// What a Close found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Closed {
    /// The connection was here and has been closed.
    #[default]
    Done,
    /// Nothing was known of it here.
    Unknown,
}

impl<P: Protocol> Call<P> {
    /// A call for this body, without deadline and without a peer.
    #[must_use]
    pub fn new(body: impl Into<Arc<P::Body>>) -> Self {
        Self(Box::new(Inner {
            body: body.into(),
            extra: P::Extra::default(),
            why: Why::default(),
            peer: None,
            token: None,
            deadline: None,
            cancel: CancellationToken::new(),
            facts: Vec::new(),
            state: None,
            handle: None,
            closed: Closed::default(),
            first: true,
            own: false,
        }))
    }

    /// What is made or unmade.
    #[must_use]
    pub fn body(&self) -> &P::Body {
        &self.0.body
    }

    /// The body to edit. Copies it once if somebody keeps a share.
    pub fn body_mut(&mut self) -> &mut P::Body {
        Arc::make_mut(&mut self.0.body)
    }

    /// A share of the body as it is now.
    #[must_use]
    pub fn share(&self) -> Arc<P::Body> {
        Arc::clone(&self.0.body)
    }

    /// Replaces the body.
    pub fn set_body(&mut self, body: impl Into<Arc<P::Body>>) {
        self.0.body = body.into();
    }

    /// The body, for whoever ends the call.
    #[must_use]
    pub fn into_body(self) -> P::Body {
        Arc::unwrap_or_clone(self.0.body)
    }

    /// What travels with the body.
    #[must_use]
    pub fn extra(&self) -> &P::Extra {
        &self.0.extra
    }

    /// What travels with the body, to edit.
    pub fn extra_mut(&mut self) -> &mut P::Extra {
        &mut self.0.extra
    }

    /// Why this Request is made; from [`Begin`](crate::Begin) on, which finds it out.
    #[must_use]
    pub fn why(&self) -> Why {
        self.0.why
    }

    pub(crate) fn set_why(&mut self, why: Why) {
        self.0.why = why;
    }

    /// The caller's identity; none in process and on links without identity.
    #[must_use]
    pub fn peer(&self) -> Option<&Arc<Peer>> {
        self.0.peer.as_ref()
    }

    /// The token the caller sent with this call.
    #[must_use]
    pub fn token(&self) -> Option<&Token> {
        self.0.token.as_ref()
    }

    /// This hop's token for the caller: by the link that the call came in on, or else by `tokens`.
    ///
    /// # Errors
    /// When there is no valid certificate to sign with.
    pub fn own_token(&self, tokens: &dyn Tokens) -> Result<Token, TokenError> {
        let shown = self.fact::<LinkInfo>().and_then(|link| link.shown.clone());
        LinkInfo { peer: self.0.peer.clone(), shown, ..LinkInfo::default() }.token(tokens)
    }

    /// Says who calls, and with which token.
    #[must_use]
    pub fn from_peer(mut self, peer: Option<Arc<Peer>>, token: Option<Token>) -> Self {
        self.0.peer = peer;
        self.0.token = token;
        self
    }

    /// Until when the caller waits.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    /// Sets until when the caller waits.
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.0.deadline = deadline;
    }

    /// Limits the wait from now.
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.0.deadline = Some(Instant::now() + timeout);
        self
    }

    /// How long the caller still waits; none: for ever.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.0.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Tells whether and when the caller gave up.
    #[must_use]
    pub fn cancellation(&self) -> &CancellationToken {
        &self.0.cancel
    }

    /// Ties this call to somebody's patience.
    #[must_use]
    pub fn cancelled_by(mut self, cancel: CancellationToken) -> Self {
        self.0.cancel = cancel;
        self
    }

    /// Waits for `work` as long as the caller does.
    ///
    /// # Errors
    /// When the caller gave up, or its deadline passed. `work` is dropped then: use this around what may be dropped.
    pub async fn patiently<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        let expired = async {
            match self.0.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.0.cancel.cancelled() => Err(Error::cancelled("the caller gave up")),
            () = expired => Err(Error::deadline("the caller's time is over")),
        }
    }

    /// A typed fact that an element further out found.
    #[must_use]
    pub fn fact<T: Send + Sync + 'static>(&self) -> Option<&T> {
        let (_, fact) = self.0.facts.iter().find(|(id, _)| *id == TypeId::of::<T>())?;
        fact.downcast_ref()
    }

    /// Leaves a typed fact for elements further in, and on the way back for those further out.
    pub fn set_fact<T: Send + Sync + 'static>(&mut self, fact: T) {
        self.clear_fact::<T>();
        self.0.facts.push((TypeId::of::<T>(), Arc::new(fact)));
    }

    /// Forgets a typed fact.
    pub fn clear_fact<T: Send + Sync + 'static>(&mut self) {
        self.0.facts.retain(|(id, _)| *id != TypeId::of::<T>());
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.0.facts
    }

    pub(crate) fn set_facts(&mut self, facts: Facts) {
        self.0.facts = facts;
    }

    /// This hop's state for the connection; there from [`Begin`](crate::Begin) on.
    ///
    /// # Errors
    /// When the chain has no `Begin` before this element (an order that a stack refuses when it is built).
    pub fn state(&self) -> Result<&Arc<State>> {
        self.0.state.as_ref().ok_or_else(|| {
            Error::internal("no per-connection state").hint("put Begin before this element in the chain")
        })
    }

    /// The slot's value, if this call has state and the slot is filled.
    #[must_use]
    pub fn slot<T: Clone + Send + 'static>(&self, slot: &Slot<T>) -> Option<T> {
        self.0.state.as_ref().and_then(|state| slot.cloned(state))
    }

    /// The handle by which an element starts a Request or Close of its own later.
    #[must_use]
    pub fn handle(&self) -> Option<&Handle<P>> {
        self.0.handle.as_ref()
    }

    /// What a Close found.
    #[must_use]
    pub fn closed(&self) -> Closed {
        self.0.closed
    }

    /// Says that a Close found nothing.
    pub fn set_closed(&mut self, closed: Closed) {
        self.0.closed = closed;
    }

    /// Whether this hop has not established it yet: what fails now leaves nothing behind.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.0.first
    }

    /// Whether an element of this hop started it (refresh, heal, expiry), and not a caller.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.0.own
    }

    pub(crate) fn started_here(mut self) -> Self {
        self.0.own = true;
        self
    }

    pub(crate) fn attach(&mut self, state: Arc<State>, handle: Handle<P>, first: bool) {
        self.0.first = first;
        self.0.state = Some(state);
        self.0.handle = Some(handle);
    }
}

impl Call<Service> {
    /// A Request for this connection, with mechanism preferences.
    #[must_use]
    pub fn request(connection: impl Into<Arc<Connection>>, preferences: Vec<Mechanism>) -> Self {
        let mut call = Self::new(connection);
        *call.extra_mut() = preferences;
        call
    }

    /// The connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        self.body()
    }

    /// The connection, to edit.
    pub fn connection_mut(&mut self) -> &mut Connection {
        self.body_mut()
    }

    /// Mechanism preferences, best first.
    #[must_use]
    pub fn preferences(&self) -> &[Mechanism] {
        self.extra()
    }
}

impl<P: Protocol> Default for Call<P> {
    /// A call for an empty body.
    fn default() -> Self {
        Self::new(P::Body::default())
    }
}

impl<P: Protocol> Clone for Call<P> {
    /// A second call for the same body, under the same state and patience.
    fn clone(&self) -> Self {
        let inner = &*self.0;
        Self(Box::new(Inner {
            body: Arc::clone(&inner.body),
            extra: inner.extra.clone(),
            why: inner.why,
            peer: inner.peer.clone(),
            token: inner.token.clone(),
            deadline: inner.deadline,
            cancel: inner.cancel.clone(),
            facts: inner.facts.clone(),
            state: inner.state.clone(),
            handle: inner.handle.clone(),
            closed: inner.closed,
            first: inner.first,
            own: inner.own,
        }))
    }
}

impl<P: Protocol> fmt::Debug for Call<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("body", &self.0.body)
            .field("extra", &self.0.extra)
            .field("why", &self.0.why)
            .field("peer", &self.0.peer)
            .finish_non_exhaustive()
    }
}
