//! What follows an element.

use std::fmt;
use std::sync::{Arc, Weak};

use crate::chain::Node;
use crate::element::{Boxed, EventStream};
use crate::{Call, Error, Protocol, Result, Service, Watch};

/// What follows an element in its chain. It is `Copy`: calling it twice, to retry or to fall back, is fine.
pub struct Next<'a, P: Protocol = Service> {
    list: &'a Arc<[Node<P>]>,
    at: usize,
    outer: Option<&'a Self>,
}

impl<P: Protocol> Clone for Next<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Protocol> Copy for Next<'_, P> {}

impl<'a, P: Protocol> Next<'a, P> {
    pub(crate) fn start(list: &'a Arc<[Node<P>]>, outer: Option<&'a Self>) -> Self {
        Self { list, at: 0, outer }
    }

    pub(crate) fn skip(self, count: usize) -> Self {
        Self { at: self.at + count, ..self }
    }

    fn step(self) -> Result<(&'a Node<P>, Self), Option<Self>> {
        match self.list.get(self.at) {
            Some(node) => Ok((node, Self { at: self.at + 1, ..self })),
            None => Err(self.outer.copied()),
        }
    }

    /// Goes on with a Request. Past the end of the chain the call comes back as it is.
    pub fn request(self, call: Call<P>) -> Boxed<'a, Call<P>> {
        match self.step() {
            Ok((node, rest)) => node.0.request(call, rest),
            Err(Some(outer)) => outer.request(call),
            Err(None) => Box::pin(std::future::ready(Ok(call))),
        }
    }

    /// Goes on with a Close.
    pub fn close(self, call: Call<P>) -> Boxed<'a, Call<P>> {
        match self.step() {
            Ok((node, rest)) => node.0.close(call, rest),
            Err(Some(outer)) => outer.close(call),
            Err(None) => Box::pin(std::future::ready(Ok(call))),
        }
    }

    /// Goes on with a Monitor. Past the end of the chain nobody has anything to tell: the stream is empty.
    pub fn monitor(self, watch: Watch<P>) -> Boxed<'a, EventStream<P>> {
        match self.step() {
            Ok((node, rest)) => node.0.monitor(watch, rest),
            Err(Some(outer)) => outer.monitor(watch),
            Err(None) => Box::pin(std::future::ready(Ok::<EventStream<P>, Error>(Box::pin(futures::stream::empty())))),
        }
    }

    /// Undoes a Request that went well further on, because something failed here. The caller's patience does not
    /// count: the Close gets as long as a Request would. Hands back the error that was the reason; what the Close
    /// itself could not undo is logged.
    pub async fn undo(self, mut call: Call<P>, reason: Error) -> Error {
        call = call.cancelled_by(tokio_util::sync::CancellationToken::new()).within(crate::begin::DEFAULT_TIMEOUT);
        let key = P::key(call.body()).to_owned();
        if let Err(error) = self.close(call).await {
            tracing::warn!(what = P::WHAT, key, %error, "left something behind while undoing a failed request");
        }
        reason
    }

    /// The form to keep for as long as the chain lives, by what lives inside the chain: a connection's state, a task
    /// that serves all connections. An owned form there would keep the chain, and with it itself, for ever.
    #[must_use]
    pub fn weak(self) -> WeakNext<P> {
        WeakNext(match self.outer {
            None => Rest::Of(Arc::downgrade(self.list), self.at),
            Some(_) => Rest::Nested(self.owned()),
        })
    }

    /// The form to keep, to spawn, or to give to a closure.
    #[must_use]
    pub fn owned(self) -> OwnedNext<P> {
        let Some(mut outer) = self.outer else {
            return OwnedNext { list: Arc::clone(self.list), at: self.at };
        };
        let mut rest: Vec<Node<P>> = self.list[self.at.min(self.list.len())..].to_vec();
        loop {
            rest.extend_from_slice(&outer.list[outer.at.min(outer.list.len())..]);
            match outer.outer {
                Some(further) => outer = further,
                None => {
                    return OwnedNext { list: rest.into(), at: 0 };
                }
            }
        }
    }
}

impl<P: Protocol> fmt::Debug for Next<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list.iter().skip(self.at)).finish()
    }
}

/// [`Next`], owned.
pub struct OwnedNext<P: Protocol = Service> {
    list: Arc<[Node<P>]>,
    at: usize,
}

impl<P: Protocol> OwnedNext<P> {
    /// The borrowed form.
    #[must_use]
    pub fn next(&self) -> Next<'_, P> {
        Next { list: &self.list, at: self.at, outer: None }
    }

    /// Goes on with a Request.
    ///
    /// # Errors
    /// Whatever fails further on.
    pub async fn request(&self, call: Call<P>) -> Result<Call<P>> {
        self.next().request(call).await
    }

    /// Goes on with a Close.
    ///
    /// # Errors
    /// Whatever fails further on.
    pub async fn close(&self, call: Call<P>) -> Result<Call<P>> {
        self.next().close(call).await
    }

    /// Goes on with a Monitor.
    ///
    /// # Errors
    /// Whatever fails further on.
    pub async fn monitor(&self, watch: Watch<P>) -> Result<EventStream<P>> {
        self.next().monitor(watch).await
    }
}

impl<P: Protocol> Clone for OwnedNext<P> {
    fn clone(&self) -> Self {
        Self { list: Arc::clone(&self.list), at: self.at }
    }
}

impl<P: Protocol> fmt::Debug for OwnedNext<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.next().fmt(f)
    }
}

/// [`Next`], without keeping the chain.
pub struct WeakNext<P: Protocol = Service>(Rest<P>);

enum Rest<P: Protocol> {
    Of(Weak<[Node<P>]>, usize),
    /// What follows in several chains at once is in no list that could be referred to.
    Nested(OwnedNext<P>),
}

impl<P: Protocol> WeakNext<P> {
    /// The owned form; none, if the chain is gone.
    #[must_use]
    pub fn upgrade(&self) -> Option<OwnedNext<P>> {
        match &self.0 {
            Rest::Of(list, at) => Some(OwnedNext { list: list.upgrade()?, at: *at }),
            Rest::Nested(next) => Some(next.clone()),
        }
    }
}

impl<P: Protocol> fmt::Debug for WeakNext<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.upgrade() {
            Some(next) => next.fmt(f),
            None => f.write_str("(gone)"),
        }
    }
}
