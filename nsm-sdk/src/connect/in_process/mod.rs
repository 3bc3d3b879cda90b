use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use nsm_chain::{Chain, Node, Peer, Protocol, Result, Tokens};
use tokio_util::sync::CancellationToken;

pub use self::life::Life;
use self::link::Link;
pub use self::network::Network;
use super::Links;

mod life;
mod link;
mod network;

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
    hops: Arc<Mutex<HashMap<String, Place<P>>>>,
    network: Network,
    life: Life,
    who: Option<Caller>,
}

/// Who calls, and by which tokens.
type Caller = (Option<Arc<Peer>>, Arc<dyn Tokens>);

/// What there is at a URL.
struct Place<P: Protocol> {
    /// Whose place it is, also while nothing is served there.
    life: Life,
    hop: Option<Hop<P>>,
}

struct Hop<P: Protocol> {
    chain: Chain<P>,
    life: Life,
    stopped: CancellationToken,
}

impl<P: Protocol> Clone for Hop<P> {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), life: self.life.clone(), stopped: self.stopped.clone() }
    }
}

impl<P: Protocol> Default for InProcess<P> {
    fn default() -> Self {
        Self::over(&Network::default())
    }
}

impl<P: Protocol> Clone for InProcess<P> {
    fn clone(&self) -> Self {
        Self {
            hops: Arc::clone(&self.hops),
            network: self.network.clone(),
            life: self.life.clone(),
            who: self.who.clone(),
        }
    }
}

impl<P: Protocol> InProcess<P> {
    /// No hops yet; between those to come lies this network.
    #[must_use]
    pub fn over(network: &Network) -> Self {
        Self { hops: Arc::default(), network: network.clone(), life: Life::default(), who: None }
    }

    /// What lies between the hops.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The same hops, as this life of a program sees them: it calls from where it runs, what it serves is served there,
    /// and with its end both end.
    #[must_use]
    pub fn used_by(&self, life: &Life) -> Self {
        Self { life: life.clone(), ..self.clone() }
    }

    /// Puts a hop at a URL, in place of the one that was there.
    pub fn serve(&self, url: impl Into<String>, chain: Chain<P>) {
        let (url, life) = (url.into(), self.life.clone());
        let hop = Hop { chain, life: life.clone(), stopped: life.over().child_token() };
        let former = self.lock().insert(url, Place { life, hop: Some(hop) });
        if let Some(former) = former.and_then(|place| place.hop) {
            former.stopped.cancel();
        }
    }

    /// Takes a hop away at once, with everything that is under way there.
    pub fn stop(&self, url: &str) {
        let hop = self.lock().get_mut(url).and_then(|place| place.hop.take());
        if let Some(hop) = hop {
            hop.stopped.cancel();
        }
    }

    /// Takes all hops away.
    pub(crate) fn stop_all(&self) {
        let places: Vec<_> = self.lock().drain().collect();
        for hop in places.into_iter().filter_map(|(_, place)| place.hop) {
            hop.stopped.cancel();
        }
    }

    /// The same hops, as one caller sees them: it is `peer` to them (none: a link without identity), and sends these
    /// tokens.
    #[must_use]
    pub fn seen_by(&self, peer: Option<Arc<Peer>>, tokens: Arc<dyn Tokens>) -> Self {
        Self { who: Some((peer, tokens)), ..self.clone() }
    }

    /// As the way to the next hop.
    #[must_use]
    pub fn links(&self) -> Arc<dyn Links<P>> {
        Arc::new(self.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Place<P>>> {
        self.hops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Protocol> Links<P> for InProcess<P> {
    fn link<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Node<P>>> {
        std::future::ready(Ok(Node::new(Link { url: url.into(), to: self.clone() }))).boxed()
    }
}

impl<P: Protocol> fmt::Debug for InProcess<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().keys()).finish()
    }
}
