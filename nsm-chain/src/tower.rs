//! The seam to tower: a chain as a `Service`, a `Service` as the end of a chain, a `Layer` around the rest of one.

use std::fmt;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tower::{BoxError, Layer, Service as TowerService, ServiceExt};

use crate::next::OwnedNext;
use crate::{Call, Chain, Element, Error, Next, Order, Protocol, Result, Service};

/// A Request or a Close, as one tower request.
#[derive(Debug)]
pub enum Verb<P: Protocol = Service> {
    /// Make: Request, Register.
    Request(Call<P>),
    /// Unmake: Close, Unregister.
    Close(Call<P>),
}

impl<P: Protocol> TowerService<Verb<P>> for Chain<P> {
    type Response = Call<P>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Call<P>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, verb: Verb<P>) -> Self::Future {
        let chain = self.clone();
        Box::pin(async move {
            match verb {
                Verb::Request(call) => chain.request(call).await,
                Verb::Close(call) => chain.close(call).await,
            }
        })
    }
}

/// A tower service as the last element of a chain.
///
/// ```
/// use nsm_chain::{elements, tower::{EndIn, Verb}, Begin, BoxError, Call, Chain};
/// let answer = tower::service_fn(|verb: Verb| async move {
///     let (Verb::Request(call) | Verb::Close(call)) = verb;
///     Ok::<_, BoxError>(call)
/// });
/// let chain = Chain::new("nse", elements![Begin::default(), EndIn::new(answer)]).unwrap();
/// ```
#[derive(Clone)]
pub struct EndIn<S>(S);

impl<S> EndIn<S> {
    /// Ends a chain in this service.
    pub fn new(service: S) -> Self {
        Self(service)
    }
}

impl<P, S> Element<P> for EndIn<S>
where
    P: Protocol,
    S: TowerService<Verb<P>, Response = Call<P>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    async fn request(&self, call: Call<P>, _next: Next<'_, P>) -> Result<Call<P>> {
        self.0.clone().oneshot(Verb::Request(call)).await.map_err(|error| foreign(error.into()))
    }

    async fn close(&self, call: Call<P>, _next: Next<'_, P>) -> Result<Call<P>> {
        self.0.clone().oneshot(Verb::Close(call)).await.map_err(|error| foreign(error.into()))
    }

    fn order(&self) -> Order {
        Order::LAST
    }
}

/// A tower layer around the rest of a chain.
///
/// The layer is applied once, over a hole that each call brings its own continuation to. So what the layer keeps (a
/// rate, a budget, an open breaker) it keeps across calls.
///
/// ```
/// use std::time::Duration;
/// use nsm_chain::{elements, tower::Around, Begin, Chain, Service};
/// let limit = Around::new(tower::limit::ConcurrencyLimitLayer::new(64));
/// let chain: Chain<Service> = Chain::new("nse", elements![Begin::default(), limit]).unwrap();
/// ```
#[derive(Clone)]
pub struct Around<S>(S);

impl<S> Around<S> {
    /// Applies the layer once.
    pub fn new<L>(layer: L) -> Self
    where
        L: Layer<Hole, Service = S>,
    {
        Self(layer.layer(Hole(())))
    }
}

/// What a layer in [`Around`] wraps: it runs the continuation that a call brings.
#[derive(Clone, Debug)]
pub struct Hole(());

/// A call with what follows it.
#[derive(Debug)]
pub struct Step<P: Protocol = Service> {
    verb: Verb<P>,
    next: OwnedNext<P>,
}

impl<P: Protocol> Step<P> {
    /// The call in it, for a layer that looks.
    #[must_use]
    pub fn verb(&self) -> &Verb<P> {
        &self.verb
    }
}

impl<P: Protocol> TowerService<Step<P>> for Hole {
    type Response = Call<P>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Call<P>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, Step { verb, next }: Step<P>) -> Self::Future {
        Box::pin(async move {
            match verb {
                Verb::Request(call) => next.request(call).await,
                Verb::Close(call) => next.close(call).await,
            }
        })
    }
}

impl<P, S> Element<P> for Around<S>
where
    P: Protocol,
    S: TowerService<Step<P>, Response = Call<P>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    async fn request(&self, call: Call<P>, next: Next<'_, P>) -> Result<Call<P>> {
        let step = Step { verb: Verb::Request(call), next: next.owned() };
        self.0.clone().oneshot(step).await.map_err(|error| foreign(error.into()))
    }

    /// A Close passes beside the layer: what limits or sheds requests must not keep a connection from being closed.
    async fn close(&self, call: Call<P>, next: Next<'_, P>) -> Result<Call<P>> {
        next.close(call).await
    }
}

impl<S> fmt::Debug for EndIn<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndIn")
    }
}

impl<S> fmt::Debug for Around<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Around")
    }
}

/// Our own error if it is one, else the service's as the cause of one of ours.
fn foreign(error: BoxError) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => *ours,
        Err(theirs) => Error::unavailable("a tower service refused the call").because(theirs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Begin, elements};
    use std::time::Duration;

    fn asked() -> Call {
        Call::new(nsm_api::Connection { id: "c".into(), ..Default::default() })
    }

    #[tokio::test]
    async fn a_layer_keeps_its_state_across_calls() {
        let once = Around::new(::tower::limit::RateLimitLayer::new(1, Duration::from_secs(3600)));
        // A rate limit is not Clone; a buffer in front of it is.
        drop(once);
        let limit = Around::new(::tower::load_shed::LoadShedLayer::new());
        let chain = Chain::new("nse", elements![Begin::default(), limit]).unwrap();
        chain.request(asked()).await.unwrap();
        chain.close(asked()).await.unwrap();
    }

    #[tokio::test]
    async fn a_chain_is_a_tower_service_and_ends_in_one() {
        let answer = ::tower::service_fn(|verb: Verb| async move {
            let (Verb::Request(mut call) | Verb::Close(mut call)) = verb;
            call.body_mut().payload = "IP".into();
            Ok::<_, Error>(call)
        });
        let chain = Chain::new("nse", elements![Begin::default(), EndIn::new(answer)]).unwrap();
        let call = chain.oneshot(Verb::Request(asked())).await.unwrap();
        assert_eq!(call.body().payload, "IP");
    }
}
