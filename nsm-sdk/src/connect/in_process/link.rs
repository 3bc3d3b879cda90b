use std::sync::Arc;

use futures::{StreamExt, stream};
use nsm_chain::tower::Verb;
use nsm_chain::{Call, Element, Error, EventStream, Next, Order, Peer, Protocol, Result, Token, Watch};
use tokio_util::sync::CancellationToken;

use super::{Hop, InProcess, Life, Network};

/// How many events of one stream are on their way at the same time.
const UNDER_WAY: usize = 64;

/// The way from one program to whoever serves a URL.
pub(super) struct Link<P: Protocol> {
    pub(super) url: Arc<str>,
    pub(super) to: InProcess<P>,
}

impl<P: Protocol> Link<P> {
    fn hop(&self) -> Result<Hop<P>> {
        self.to
            .lock()
            .get(&*self.url)
            .and_then(|place| place.hop.clone())
            .ok_or_else(|| Error::unavailable(format!("nobody serves {}", self.url)).hint("serve a chain there first"))
    }

    /// Who serves it, or did last.
    fn there(&self) -> Life {
        self.to.lock().get(&*self.url).map(|place| place.life.clone()).unwrap_or_default()
    }

    fn who(&self) -> Result<(Option<Arc<Peer>>, Option<Token>)> {
        match &self.to.who {
            Some((peer, tokens)) => Ok((peer.clone(), Some(tokens.token(None)?))),
            None => Ok((None, None)),
        }
    }

    /// What fails once the life that uses this link is over; the rest of its work is dropped there and then.
    async fn alive<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let over = || Error::unavailable(format!("{} was killed", self.to.life.name()));
        if self.to.life.is_over() {
            return Err(over());
        }
        tokio::select! {
            biased;
            () = self.to.life.over().cancelled() => Err(over()),
            done = work => done,
        }
    }

    /// Runs one call over there: a copy, in a task of its own that outlives a caller who gives up.
    async fn cross(&self, call: &Call<P>, name: &str, verb: fn(Call<P>) -> Verb<P>) -> Result<Call<P>> {
        let (network, here) = (&self.to.network, &self.to.life);
        let note = |what: std::fmt::Arguments<'_>| {
            let key = P::key(call.body());
            network.note(format_args!("{} {name} {key} at {}: {what}", here.name(), self.url));
        };
        note(format_args!("asks"));
        let answer = self.alive(async { call.patiently(self.ask(call, verb)).await? }).await;
        match &answer {
            Ok(_) => note(format_args!("done")),
            Err(error) => note(format_args!("{:?} {}", error.code(), error.what())),
        }
        answer
    }

    async fn ask(&self, call: &Call<P>, verb: fn(Call<P>) -> Verb<P>) -> Result<Call<P>> {
        let (network, here) = (&self.to.network, &self.to.life);
        let (peer, token) = self.who()?;
        network.carry(here, &self.there()).await?;
        let hop = match self.hop() {
            Ok(hop) => hop,
            Err(refused) => {
                network.carry(&self.there(), here).await?;
                return Err(refused);
            }
        };
        let mut there = Call::new(call.share()).from_peer(peer, token);
        there.set_deadline(call.deadline());
        *there.extra_mut() = call.extra().clone();
        let given_up = CancellationToken::new();
        let waiting = Waiting { given_up: Some(given_up.clone()), network, here, there: &hop.life };
        let answer = self.serve(&hop, verb(there), given_up).await;
        network.carry(&hop.life, here).await?;
        waiting.answered();
        answer
    }

    /// Serves a call at a hop, as long as that lives.
    async fn serve(&self, hop: &Hop<P>, verb: Verb<P>, given_up: CancellationToken) -> Result<Call<P>> {
        let (chain, life) = (hop.chain.clone(), hop.life.clone());
        // A task a hop: forty hops in one would need forty times the stack. It goes on if this call is dropped.
        let task = tokio::spawn(async move {
            tokio::select! {
                biased;
                () = life.over().cancelled() => Err(Error::unavailable(format!("{} was killed", life.name()))),
                done = chain.run(verb, given_up) => done,
            }
        });
        tokio::select! {
            biased;
            done = task => done.unwrap_or_else(|error| Err(Error::internal("the next hop broke down").because(error))),
            () = hop.stopped.cancelled() => Err(Error::unavailable(format!("{} stopped answering", self.url))),
        }
    }
}

impl<P: Protocol> Element<P> for Link<P> {
    async fn request(&self, mut call: Call<P>, _next: Next<'_, P>) -> Result<Call<P>> {
        let there = self.cross(&call, "Request", Verb::Request).await?;
        *call.extra_mut() = there.extra().clone();
        call.set_body(there.share());
        Ok(call)
    }

    async fn close(&self, mut call: Call<P>, _next: Next<'_, P>) -> Result<Call<P>> {
        let there = self.cross(&call, "Close", Verb::Close).await?;
        call.set_closed(there.closed());
        Ok(call)
    }

    async fn monitor(&self, watch: Watch<P>, _next: Next<'_, P>) -> Result<EventStream<P>> {
        let (network, here) = (&self.to.network, &self.to.life);
        let opening = async {
            let (peer, token) = self.who()?;
            network.carry(here, &self.there()).await?;
            let opened = match self.hop() {
                Ok(hop) => {
                    let events = hop.chain.monitor(Watch { peer, token, ..Watch::new(watch.query) }).await;
                    events.map(|events| (events, hop))
                }
                Err(refused) => Err(refused),
            };
            network.carry(&self.there(), here).await?;
            opened
        };
        let (events, hop) = self.alive(opening).await?;
        Ok(across(network.clone(), here.clone(), hop, events))
    }

    fn order(&self) -> Order {
        Order::LAST
    }
}

/// What the events of a stream are on the other end, and its end.
fn across<P: Protocol>(network: Network, here: Life, hop: Hop<P>, events: EventStream<P>) -> EventStream<P> {
    let there = hop.life.clone();
    let link = network.open();
    let ended = events.take_until(hop.stopped.cancelled_owned()).map(Some).chain(stream::iter([None]));
    let arrived = {
        let (network, here, there) = (network.clone(), here.clone(), there.clone());
        ended.map(move |event| {
            let (network, here, there) = (network.clone(), here.clone(), there.clone());
            async move {
                if network.is_silenced(&there, &here, link) {
                    return std::future::pending().await;
                }
                match network.carry(&there, &here).await {
                    Ok(()) => event,
                    Err(broken) => Some(Err(broken)),
                }
            }
        })
    };
    let over = here.over().clone();
    // A break is heard once, and then nothing more.
    let broken = {
        let (here, there) = (here, there);
        stream::once(async move { Some(Err(network.broken(&there, &here, link).await)) }).chain(stream::iter([None]))
    };
    let heard = stream::select(arrived.buffered(UNDER_WAY), broken);
    let heard = heard.take_while(|event| std::future::ready(event.is_some())).filter_map(std::future::ready);
    heard.take_until(over.cancelled_owned()).boxed()
}

/// A call that somebody waits for. Dropped before it is over, the other end is told, as far as the network lets it.
struct Waiting<'a> {
    given_up: Option<CancellationToken>,
    network: &'a Network,
    here: &'a Life,
    there: &'a Life,
}

impl Waiting<'_> {
    fn answered(mut self) {
        self.given_up = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(given_up) = self.given_up.take() else {
            return;
        };
        if self.network.is_calm() {
            given_up.cancel();
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (network, here, there) = (self.network.clone(), self.here.clone(), self.there.clone());
            runtime.spawn(async move {
                let told = network.carry(&here, &there).await;
                // Or else its own keep-alive tells it.
                drop(told);
                given_up.cancel();
            });
        }
    }
}
