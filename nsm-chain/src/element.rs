//! The element: one step of a chain.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use futures::stream::BoxStream;

use crate::next::OwnedNext;
use crate::{Call, LinkInfo, Next, NextHop, Peer, Protocol, Result, Service, Token};

/// What a watcher is told, as it happens.
pub type EventStream<P> = BoxStream<'static, Result<<P as Protocol>::Event>>;

/// One watcher's question on its way through a chain: Monitor for connections, Find for records.
#[derive(Debug, Clone)]
pub struct Watch<P: Protocol = Service> {
    /// What is asked.
    pub query: P::Query,
    /// Who asks; none in process and on links without identity.
    pub peer: Option<Arc<Peer>>,
    /// The token the watcher sent.
    pub token: Option<Token>,
    /// The link the question came in on; none in process.
    pub link: Option<LinkInfo>,
    /// Where whoever asks on leaves the link over which the answers come, for an element that put this here to know.
    pub server: Option<Arc<OnceLock<LinkInfo>>>,
    /// Where it is asked, left by whoever chose that; none: wherever the chain leads.
    pub hop: Option<NextHop>,
}

impl<P: Protocol> Watch<P> {
    /// A watch in process.
    #[must_use]
    pub fn new(query: P::Query) -> Self {
        Self { query, peer: None, token: None, link: None, server: None, hop: None }
    }
}

/// One step of a chain.
///
/// It works before `next`, after it, around it (retry, fall back), or instead of it. What it does not implement
/// passes through. The registry's words for the three verbs are Register, Unregister and Find; an element that
/// implements `Element<P>` for every [`Protocol`] serves connections and records alike.
///
/// ```
/// use nsm_chain::{Call, Element, Next, Result};
///
/// /// Stamps every connection that passes.
/// struct Colour(&'static str);
///
/// impl Element for Colour {
///     async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
///         call.body_mut().labels.insert("colour".into(), self.0.into());
///         next.request(call).await
///     }
/// }
/// ```
///
/// # What an element must keep
/// - What it acquires it gives back when what follows fails, and on Close. A guard in a [`Slot`](crate::Slot) does
///   that by itself.
/// - A Close is passed on whatever happens here: errors are reported after `next.close`.
/// - It may be asked again at any time for a connection that is already established (refresh, heal).
pub trait Element<P: Protocol = Service>: Send + Sync + 'static {
    /// Makes, or makes again: Request, Register.
    ///
    /// # Errors
    /// Whatever failed here or further on; nothing new is left behind then.
    fn request(&self, call: Call<P>, next: Next<'_, P>) -> impl Future<Output = Result<Call<P>>> + Send {
        next.request(call)
    }

    /// Unmakes: Close, Unregister.
    ///
    /// # Errors
    /// Whatever could not be undone.
    fn close(&self, call: Call<P>, next: Next<'_, P>) -> impl Future<Output = Result<Call<P>>> + Send {
        next.close(call)
    }

    /// Watches: Monitor, Find.
    ///
    /// # Errors
    /// When there can be no answer; what goes wrong later comes through the stream.
    fn monitor(&self, watch: Watch<P>, next: Next<'_, P>) -> impl Future<Output = Result<EventStream<P>>> + Send {
        next.monitor(watch)
    }

    /// What it is called in errors, pictures and order rules; by default its type's name.
    fn name(&self) -> &'static str {
        short_name::<Self>()
    }

    /// Where in a chain it may stand; checked when the chain is built.
    fn order(&self) -> Order {
        Order::ANYWHERE
    }
}

/// Where in a chain an element may stand, by the names of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Order {
    /// Each of these must stand somewhere before it.
    pub after: &'static [&'static str],
    /// None of these may stand before it.
    pub before: &'static [&'static str],
    /// Nothing may follow it: it answers, or asks the next hop.
    pub last: bool,
}

impl Order {
    /// No rule.
    pub const ANYWHERE: Self = Self { after: &[], before: &[], last: false };
    /// Nothing may follow.
    pub const LAST: Self = Self { after: &[], before: &[], last: true };

    /// Must stand after each of these.
    #[must_use]
    pub const fn after(names: &'static [&'static str]) -> Self {
        Self { after: names, ..Self::ANYWHERE }
    }
}

/// The last part of a type's path, without what it is generic over.
pub(crate) fn short_name<T: ?Sized>() -> &'static str {
    let full = std::any::type_name::<T>();
    let plain = full.split('<').next().unwrap_or(full);
    plain.rsplit("::").next().unwrap_or(plain)
}

pub(crate) type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// The object-safe twin that makes a list of elements possible.
pub(crate) trait DynElement<P: Protocol>: Send + Sync {
    fn request<'a>(&'a self, call: Call<P>, next: Next<'a, P>) -> Boxed<'a, Call<P>>;
    fn close<'a>(&'a self, call: Call<P>, next: Next<'a, P>) -> Boxed<'a, Call<P>>;
    fn monitor<'a>(&'a self, watch: Watch<P>, next: Next<'a, P>) -> Boxed<'a, EventStream<P>>;
    fn name(&self) -> &'static str;
    fn order(&self) -> Order;
}

impl<P: Protocol, E: Element<P>> DynElement<P> for E {
    fn request<'a>(&'a self, call: Call<P>, next: Next<'a, P>) -> Boxed<'a, Call<P>> {
        Box::pin(async move {
            tracing::trace!(target: "nsm::chain", element = Element::<P>::name(self), key = P::key(call.body()), "request");
            Element::request(self, call, next).await.map_err(|error| error.at_element(Element::<P>::name(self)))
        })
    }

    fn close<'a>(&'a self, call: Call<P>, next: Next<'a, P>) -> Boxed<'a, Call<P>> {
        Box::pin(async move {
            tracing::trace!(target: "nsm::chain", element = Element::<P>::name(self), key = P::key(call.body()), "close");
            Element::close(self, call, next).await.map_err(|error| error.at_element(Element::<P>::name(self)))
        })
    }

    fn monitor<'a>(&'a self, watch: Watch<P>, next: Next<'a, P>) -> Boxed<'a, EventStream<P>> {
        Box::pin(async move {
            Element::monitor(self, watch, next).await.map_err(|error| error.at_element(Element::<P>::name(self)))
        })
    }

    fn name(&self) -> &'static str {
        Element::<P>::name(self)
    }

    fn order(&self) -> Order {
        Element::<P>::order(self)
    }
}

impl<P: Protocol, E: Element<P>> Element<P> for Arc<E> {
    fn request(&self, call: Call<P>, next: Next<'_, P>) -> impl Future<Output = Result<Call<P>>> + Send {
        (**self).request(call, next)
    }

    fn close(&self, call: Call<P>, next: Next<'_, P>) -> impl Future<Output = Result<Call<P>>> + Send {
        (**self).close(call, next)
    }

    fn monitor(&self, watch: Watch<P>, next: Next<'_, P>) -> impl Future<Output = Result<EventStream<P>>> + Send {
        (**self).monitor(watch, next)
    }

    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn order(&self) -> Order {
        (**self).order()
    }
}

/// An element made of a closure that works around Request; Close and Monitor pass.
///
/// ```
/// use nsm_chain::{from_fn, Call, OwnedNext};
/// let stamp = from_fn(|mut call: Call, next: OwnedNext| async move {
///     call.body_mut().labels.insert("stamped".into(), "yes".into());
///     next.request(call).await
/// });
/// ```
pub fn from_fn<P, F, Fut>(work: F) -> FromFn<F>
where
    P: Protocol,
    F: Fn(Call<P>, OwnedNext<P>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Call<P>>> + Send,
{
    FromFn(work)
}

/// See [`from_fn`].
#[derive(Clone)]
pub struct FromFn<F>(F);

impl<F> fmt::Debug for FromFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FromFn")
    }
}

impl<P, F, Fut> Element<P> for FromFn<F>
where
    P: Protocol,
    F: Fn(Call<P>, OwnedNext<P>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Call<P>>> + Send,
{
    fn request(&self, call: Call<P>, next: Next<'_, P>) -> impl Future<Output = Result<Call<P>>> + Send {
        (self.0)(call, next.owned())
    }
}
