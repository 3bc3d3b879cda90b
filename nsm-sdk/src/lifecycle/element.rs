use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nsm_chain::{Call, Element, Next, Order, Result, Why};
use tokio::sync::watch;

use super::life::{Life, Listener};
use super::{Change, Changes, Ending, Interface, Reader, Status};
use crate::lifetime::Reason;

/// Tells what becomes of connections.
///
/// *Request*: what came back is up, or has changed. One that heals says before what broke. *Close*: the connection is gone
/// afterwards; one that is closed to be chosen afresh is down.
///
/// In a client it is there already ([`Session::changes`](crate::stacks::Session::changes)). In an endpoint it stands
/// first, before what edits the answer, and says who comes and goes:
///
/// ```
/// use nsm_chain::elements;
/// use nsm_sdk::lifecycle::Lifecycle;
/// use nsm_sdk::testing::Mesh;
/// # use std::sync::{Arc, Mutex};
/// # use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # const SOON: Duration = Duration::from_secs(5);
/// # let mesh = Mesh::new()?;
/// # mesh.network_service("vpn").await?;
/// # let node = mesh.node("node-1").await?;
/// # let log: Arc<Mutex<Vec<String>>> = Arc::default();
/// # let said = Arc::clone(&log);
/// let clients = Lifecycle::telling(move |id, change| {
///     println!("{id} {change}");
/// #   said.lock().unwrap().push(change.as_str().to_owned());
/// });
/// node.endpoint("nse-1", "vpn", elements![clients]).await?;
/// # let client = node.client("nsc-1").build()?;
/// # client.connect(&"kernel://vpn/nsm-1".parse()?, "c-1", SOON).await?;
/// # client.shutdown(SOON).await?;
/// # assert_eq!(*log.lock().unwrap(), ["up", "gone"]);
/// # Ok(()) }
/// ```
///
/// It stands behind `Begin`.
#[derive(Clone)]
pub struct Lifecycle {
    lives: Arc<Mutex<Lives>>,
    listener: Option<Arc<Listener>>,
}

type Lives = HashMap<Arc<str>, Arc<Life>>;

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    /// Tells whoever asks for [`Lifecycle::changes`].
    #[must_use]
    pub fn new() -> Self {
        Self { lives: Arc::default(), listener: None }
    }

    /// Tells `listener` each change of every connection at once, with this hop's id for it. Changes of one connection come
    /// one after the other, in the middle of its Request or Close: be short, spawn what takes time.
    #[must_use]
    pub fn telling(listener: impl Fn(&str, &Change) + Send + Sync + 'static) -> Self {
        Self { lives: Arc::default(), listener: Some(Arc::new(listener)) }
    }

    /// What becomes of the connection with this id at this hop, from now on; none if it is not there.
    #[must_use]
    pub fn changes(&self, id: &str) -> Option<Changes> {
        self.status(id).map(|status| Changes::of(Reader::new(status)))
    }

    pub(crate) fn status(&self, id: &str) -> Option<watch::Receiver<Status>> {
        self.lives().get(id).map(|life| life.status())
    }

    /// The ids of the connections that are there, up or down.
    #[must_use]
    pub fn ids(&self) -> Vec<Arc<str>> {
        self.lives().keys().cloned().collect()
    }

    fn lives(&self) -> MutexGuard<'_, Lives> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn life(&self, id: &str) -> Option<Arc<Life>> {
        self.lives().get(id).cloned()
    }
}

/// Why it is made again, as whoever makes it says.
fn reason(call: &Call) -> Option<Reason> {
    call.fact::<Reason>().copied()
}

impl Element for Lifecycle {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let known = self.life(&call.body().id);
        match (&known, call.why(), reason(&call)) {
            // Nothing gets through: it is down, whatever else stands.
            (Some(life), Why::Heal, Some(why @ (Reason::PacketsStopped | Reason::EndpointGone))) => life.down(why),
            (Some(life), Why::Heal, why) if call.is_own() => life.breaks(why.unwrap_or(Reason::HopLost)),
            (Some(life), Why::Reselect, why) => life.down(why.unwrap_or(Reason::Asked)),
            _ => {}
        }
        let call = next.request(call).await?;
        let now = Interface::of(call.share());
        match known {
            Some(life) => life.up(now),
            None => {
                let id: Arc<str> = call.body().id.as_str().into();
                let life = Life::begin(Arc::clone(&id), now, self.listener.clone());
                drop(self.lives().insert(id, Arc::new(life)));
            }
        }
        Ok(call)
    }

    async fn close(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let id: Arc<str> = call.body().id.as_str().into();
        if call.why() == Why::Reselect {
            if let Some(life) = self.life(&id) {
                life.down(reason(&call).unwrap_or(Reason::Asked));
            }
            return next.close(call).await;
        }
        let how = if call.is_own() { Ending::Ended } else { Ending::Closed };
        let result = next.close(call).await;
        let life = self.lives().remove(&id);
        if let Some(life) = life {
            life.gone(if result.is_ok() { how } else { Ending::Partly });
        }
        result
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}

impl fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lifecycle({} connections)", self.lives().len())
    }
}
