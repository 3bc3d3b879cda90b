use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use nsm_api::Connection;
use nsm_api::connection::PathSegment;
use nsm_api::registry::{NetworkService, NetworkServiceEndpoint};
use nsm_chain::{Call, Element, Error, Next, NextHop, Node, Order, Protocol, Registry, Result, Service, Slot, Watch};

use super::downstream::{Asking, Epoch, Subject, is_marked, mark};
use super::recent::Recent;
use super::{Downstream, Links, Sink, Subscription};
use crate::path::Continued;

/// How long a connection is given to be closed at a hop that is no longer its next one.
const FAREWELL: Duration = Duration::from_secs(15);

/// Asks the next hop.
///
/// *Request*: goes to the hop that was chosen for this call ([`NextHop`]), or to the fixed one. If that is another hop
/// than before and it accepts, the former one is sent a Close, without waiting for it: what stands, stands until there is
/// something else. On return the call carries [`NextHopWatch`], by which elements further out listen to what that hop
/// reports. *Close*: goes to the hop where the connection lives. Both name the segment under which that hop knows it,
/// whatever the caller's path says: the caller may never have heard of it.
///
/// It stands last: it is the answer.
pub struct Connect<P: Protocol = Service> {
    links: Arc<dyn Links<P>>,
    fixed: Option<Arc<str>>,
    epochs: AtomicU64,
    closed: Recent,
    there: Slot<There>,
    hops: Hops,
}

/// Where a connection lives.
#[derive(Clone)]
struct There {
    url: Arc<str>,
    epoch: Epoch,
    segment: Option<Segment>,
    /// Kept by those who listen, and while the connection lives: whoever asks again finds the stream open.
    _downstream: Option<Arc<Downstream>>,
}

/// The next hop's segment of a path.
#[derive(Debug, Clone)]
#[doc(hidden)]
pub struct Segment {
    name: Arc<str>,
    id: Arc<str>,
}

/// Left in a call that came back from the next hop: by it one listens to what that hop reports of this connection.
#[derive(Debug, Clone)]
pub struct NextHopWatch {
    asking: Arc<Asking>,
    subject: Subject,
}

impl NextHopWatch {
    /// Tells a sink what the next hop reports of this connection, from when it was asked for, until the subscription is
    /// dropped. That is the former one, with its sink, if it tells of the same life of the same connection at the same
    /// hop.
    #[must_use = "dropping the subscription ends it"]
    pub fn listen(&self, former: Option<Subscription>, sink: impl FnOnce() -> Arc<dyn Sink>) -> Subscription {
        match former.filter(|former| former.tells(self.asking.downstream(), &self.subject)) {
            Some(former) => {
                self.asking.repeat(&former);
                former
            }
            None => self.asking.listen(&self.subject, sink()),
        }
    }
}

impl<P: Protocol> Connect<P> {
    /// Goes wherever [`NextHop`] says.
    #[must_use]
    pub fn new(links: Arc<dyn Links<P>>) -> Self {
        Self {
            links,
            fixed: None,
            epochs: AtomicU64::new(0),
            closed: Recent::default(),
            there: Slot::new(),
            hops: Mutex::default(),
        }
    }

    /// Goes to this URL where no [`NextHop`] says otherwise.
    #[must_use]
    pub fn to(mut self, url: impl Into<Arc<str>>) -> Self {
        self.fixed = Some(url.into());
        self
    }

    fn chosen(&self, call: &Call<P>) -> Option<Arc<str>> {
        call.fact::<NextHop>().map(|hop| Arc::clone(&hop.0)).or_else(|| self.fixed.clone())
    }

    /// Closes a connection, as it was `before`, at a hop that is no longer its next one. Nobody waits: that hop may well
    /// be dead.
    fn farewell(&self, url: Arc<str>, before: Arc<P::Body>, call: &Call<P>) {
        let links = Arc::clone(&self.links);
        let call = Call::<P>::new(before).from_peer(call.peer().cloned(), call.token().cloned()).within(FAREWELL);
        tokio::spawn(async move {
            let closed = tokio::time::timeout(FAREWELL, async { links.link(&url).await?.close(call).await });
            if let Ok(Err(error)) = closed.await {
                tracing::debug!(url = &*url, %error, "the former next hop could not be told to close");
            }
        });
    }
}

impl<P: Protocol + Listens> Element<P> for Connect<P> {
    async fn request(&self, mut call: Call<P>, _next: Next<'_, P>) -> Result<Call<P>> {
        let url = self.chosen(&call).ok_or_else(|| {
            Error::internal("nobody chose a next hop")
                .hint("put a discovery element before Connect, or give it a fixed URL")
        })?;
        let state = call.state().ok().cloned();
        let there = state.as_ref().and_then(|state| self.there.cloned(state));
        let epoch = match &there {
            Some(there) => there.epoch.clone(),
            None if self.closed.has(P::key(call.body())) => {
                Some(format!("e{}", self.epochs.fetch_add(1, Ordering::Relaxed)).into())
            }
            None => None,
        };
        let own = P::prepare(&mut call, &epoch);
        P::put_right(&mut call, there.as_ref().and_then(|there| there.segment.as_ref()));
        // It still names, right of us, the segment under which the former hop knows it.
        let former = there.filter(|there| there.url != url).map(|there| (there.url, call.share()));
        let link = call.patiently(self.links.link(&url)).await??;
        let asking = own.and_then(|(name, id)| {
            let downstream = P::downstream(&self.hops, &url, name, &link)?;
            Some((downstream.asks(Arc::clone(&id)), id))
        });
        let mut call = link.request(call).await?;
        if let Some((url, before)) = former.filter(|(_, before)| !P::is_at_one_hop(before, call.body())) {
            self.farewell(url, before, &call);
        }
        let segment = P::right_segment(call.body());
        let downstream = asking.map(|(asking, id)| {
            let downstream = Arc::clone(asking.downstream());
            let there = segment.as_ref().map(|segment| Arc::clone(&segment.id));
            let subject = Subject { id, epoch: epoch.clone(), there };
            call.set_fact(NextHopWatch { asking: Arc::new(asking), subject });
            downstream
        });
        call.set_fact(Continued);
        if let Some(state) = &state {
            self.there.set(state, There { url, epoch, segment, _downstream: downstream });
        }
        Ok(call)
    }

    async fn close(&self, mut call: Call<P>, _next: Next<'_, P>) -> Result<Call<P>> {
        self.closed.add(P::key(call.body()));
        let there = call.state().ok().and_then(|state| self.there.cloned(state));
        P::put_right(&mut call, there.as_ref().and_then(|there| there.segment.as_ref()));
        let Some(url) = there.map(|there| there.url).or_else(|| self.chosen(&call)) else {
            // It was never anywhere else.
            return Ok(call);
        };
        let link = call.patiently(self.links.link(&url)).await??;
        link.close(call).await
    }

    /// A Monitor or Find goes where it says, or to the fixed next hop.
    async fn monitor(&self, watch: Watch<P>, next: Next<'_, P>) -> Result<nsm_chain::EventStream<P>> {
        match watch.hop.as_ref().map(|hop| &hop.0).or(self.fixed.as_ref()) {
            Some(url) => self.links.link(url).await?.monitor(watch).await,
            None => next.monitor(watch).await,
        }
    }

    fn order(&self) -> Order {
        Order::LAST
    }
}

type Hops = Mutex<HashMap<(Arc<str>, String), Weak<Downstream>>>;

/// What differs between connections, whose next hop reports on them, and records.
pub trait Listens: Protocol + Sized {
    /// Marks the body with this life of it, and says under which segment name and id the next hop will know it.
    #[doc(hidden)]
    fn prepare(_call: &mut Call<Self>, _epoch: &Epoch) -> Option<(String, Arc<str>)> {
        None
    }

    /// Whether both are at the same next hop, which may have moved to another URL.
    #[doc(hidden)]
    fn is_at_one_hop(_before: &Self::Body, _now: &Self::Body) -> bool {
        false
    }

    /// The segment under which the next hop has it.
    #[doc(hidden)]
    fn right_segment(_answer: &Self::Body) -> Option<Segment> {
        None
    }

    /// Names this segment as the next hop's, if it is known. What stood there, if it was another one, was another path.
    #[doc(hidden)]
    fn put_right(_call: &mut Call<Self>, _segment: Option<&Segment>) {}

    /// The shared stream of a next hop.
    #[doc(hidden)]
    fn downstream(_hops: &Hops, _url: &Arc<str>, _name: String, _link: &Node<Self>) -> Option<Arc<Downstream>> {
        None
    }
}

impl Listens for Registry<NetworkService> {}
impl Listens for Registry<NetworkServiceEndpoint> {}

impl Listens for Service {
    fn prepare(call: &mut Call, epoch: &Epoch) -> Option<(String, Arc<str>)> {
        if !is_marked(call.body(), epoch) {
            mark(call.body_mut(), epoch);
        }
        let path = call.body().path.as_ref()?;
        let segment = path.path_segments.get(path.index as usize)?;
        Some((segment.name.clone(), segment.id.as_str().into()))
    }

    fn is_at_one_hop(before: &Connection, now: &Connection) -> bool {
        before.next_segment().zip(now.next_segment()).is_some_and(|(before, now)| before.id == now.id)
    }

    fn right_segment(answer: &Connection) -> Option<Segment> {
        answer.next_segment().map(|right| Segment { name: right.name.as_str().into(), id: right.id.as_str().into() })
    }

    fn put_right(call: &mut Call, segment: Option<&Segment>) {
        let Some(segment) = segment else { return };
        let is_there = |right: &PathSegment| *right.id == *segment.id && *right.name == *segment.name;
        if call.body().next_segment().is_some_and(is_there) {
            return;
        }
        if let Some(path) = &mut call.body_mut().path {
            path.path_segments.truncate(path.index as usize + 1);
            let (name, id) = (segment.name.to_string(), segment.id.to_string());
            path.path_segments.push(PathSegment { name, id, ..Default::default() });
        }
    }

    fn downstream(hops: &Hops, url: &Arc<str>, name: String, link: &Node) -> Option<Arc<Downstream>> {
        let mut hops = hops.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::clone(url), name);
        if let Some(known) = hops.get(&key).and_then(Weak::upgrade) {
            return Some(known);
        }
        hops.retain(|_, hop| hop.strong_count() > 0);
        let downstream = Downstream::new(key.1.as_str().into(), link.clone());
        hops.insert(key, Arc::downgrade(&downstream));
        Some(downstream)
    }
}

impl<P: Protocol> fmt::Debug for Connect<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fixed {
            Some(url) => write!(f, "Connect({url})"),
            None => f.write_str("Connect"),
        }
    }
}
