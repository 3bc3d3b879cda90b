use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use nsm_chain::tower::Verb;
use nsm_chain::{
    Call, Chain, Element, Error, EventStream, Next, Node, Order, Peer, Protocol, Result, Token, Tokens, Watch,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::Links;

/// Hops of one process that call each other without sockets: the kit for tests and simulations.
///
/// A call that crosses is a copy, in a task of its own, under the caller's deadline and patience, as over gRPC. A hop
/// that is [taken away](InProcess::stop) refuses calls and ends its streams, as a killed process would.
///
/// ```
/// use nsm_chain::{elements, Begin, Chain, Service};
/// use nsm_sdk::connect::{Connect, InProcess};
///
/// let hops = InProcess::<Service>::default();
/// hops.serve("mem://nse", Chain::new("nse", elements![Begin::default()]).unwrap());
/// let client = Chain::new("nsc", elements![Begin::default(), Connect::new(hops.links()).to("mem://nse")]).unwrap();
/// ```
pub struct InProcess<P: Protocol> {
    hops: Arc<Mutex<HashMap<String, Hop<P>>>>,
    who: Option<Caller>,
}

/// Who calls, and by which tokens.
type Caller = (Option<Arc<Peer>>, Arc<dyn Tokens>);

struct Hop<P: Protocol> {
    chain: Chain<P>,
    stopped: CancellationToken,
}

impl<P: Protocol> Clone for Hop<P> {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), stopped: self.stopped.clone() }
    }
}

impl<P: Protocol> Default for InProcess<P> {
    fn default() -> Self {
        Self { hops: Arc::default(), who: None }
    }
}

impl<P: Protocol> Clone for InProcess<P> {
    fn clone(&self) -> Self {
        Self { hops: Arc::clone(&self.hops), who: self.who.clone() }
    }
}

impl<P: Protocol> InProcess<P> {
    /// Puts a hop at a URL, in place of the one that was there.
    pub fn serve(&self, url: impl Into<String>, chain: Chain<P>) {
        let hop = Hop { chain, stopped: CancellationToken::new() };
        let former = self.lock().insert(url.into(), hop);
        if let Some(former) = former {
            former.stopped.cancel();
        }
    }

    /// Takes a hop away at once, with everything that is under way there.
    pub fn stop(&self, url: &str) {
        let hop = self.lock().remove(url);
        if let Some(hop) = hop {
            hop.stopped.cancel();
        }
    }

    /// The same hops, as one caller sees them: it is `peer` to them (none: a link without identity), and sends these
    /// tokens.
    #[must_use]
    pub fn seen_by(&self, peer: Option<Arc<Peer>>, tokens: Arc<dyn Tokens>) -> Self {
        Self { hops: Arc::clone(&self.hops), who: Some((peer, tokens)) }
    }

    /// As the way to the next hop.
    #[must_use]
    pub fn links(&self) -> Arc<dyn Links<P>> {
        Arc::new(self.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Hop<P>>> {
        self.hops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Protocol> Links<P> for InProcess<P> {
    fn link<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Node<P>>> {
        std::future::ready(Ok(Node::new(Link { url: url.into(), to: self.clone() }))).boxed()
    }
}

struct Link<P: Protocol> {
    url: Arc<str>,
    to: InProcess<P>,
}

impl<P: Protocol> Link<P> {
    fn hop(&self) -> Result<Hop<P>> {
        self.to
            .lock()
            .get(&*self.url)
            .cloned()
            .ok_or_else(|| Error::unavailable(format!("nobody serves {}", self.url)).hint("serve a chain there first"))
    }

    fn who(&self) -> Result<(Option<Arc<Peer>>, Option<Token>)> {
        match &self.to.who {
            Some((peer, tokens)) => Ok((peer.clone(), Some(tokens.token(None)?))),
            None => Ok((None, None)),
        }
    }

    /// Runs one call over there: a copy, in a task of its own that outlives a caller who gives up.
    async fn cross(&self, call: &Call<P>, verb: fn(Call<P>) -> Verb<P>) -> Result<Call<P>> {
        let hop = self.hop()?;
        let (peer, token) = self.who()?;
        let mut there = Call::new(call.share()).from_peer(peer, token);
        there.set_deadline(call.deadline());
        *there.extra_mut() = call.extra().clone();
        // A task a hop: forty hops in one would need forty times the stack. Aborted, it runs to its end all the same.
        let task = AbortOnDropHandle::new(tokio::spawn(hop.chain.detached(verb(there), &TaskTracker::new())));
        let answer = async {
            tokio::select! {
                done = task => done.unwrap_or_else(|error| Err(Error::internal("the next hop broke down").because(error))),
                () = hop.stopped.cancelled() => Err(Error::unavailable(format!("{} stopped answering", self.url))),
            }
        };
        call.patiently(answer).await?
    }
}

impl<P: Protocol> Element<P> for Link<P> {
    async fn request(&self, mut call: Call<P>, _next: Next<'_, P>) -> Result<Call<P>> {
        let there = self.cross(&call, Verb::Request).await?;
        *call.extra_mut() = there.extra().clone();
        call.set_body(there.share());
        Ok(call)
    }

    async fn close(&self, mut call: Call<P>, _next: Next<'_, P>) -> Result<Call<P>> {
        let there = self.cross(&call, Verb::Close).await?;
        call.set_closed(there.closed());
        Ok(call)
    }

    async fn monitor(&self, watch: Watch<P>, _next: Next<'_, P>) -> Result<EventStream<P>> {
        let hop = self.hop()?;
        let (peer, token) = self.who()?;
        let events = hop.chain.monitor(Watch { peer, token, ..Watch::new(watch.query) }).await?;
        Ok(events.take_until(hop.stopped.cancelled_owned()).boxed())
    }

    fn order(&self) -> Order {
        Order::LAST
    }
}

impl<P: Protocol> fmt::Debug for InProcess<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().keys()).finish()
    }
}
