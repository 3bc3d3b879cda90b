use std::fmt;
use std::sync::{Arc, Weak};

use nsm_api::connection::{Connection, MonitorScopeSelector, Path, PathSegment, State};
use nsm_chain::{Call, Element, EventStream, Next, Order, Peer, Result, Service, Slot, Watch, time};

use super::board::Board;
use super::watcher::stream;
use crate::connect::{News, NextHopWatch, Sink, Subscription};
use crate::identity::{About, PolicyInput, PolicySet};
use crate::lifetime::is_refusal;

/// Tells watchers of every connection at this hop, and passes on what the next hop reports of it.
///
/// *Request*: what came back is published as UPDATE; a refresh that failed as UPDATE in state DOWN. From then on news
/// of the next hop arrive as UPDATE of our own connection: what it closed, or a next hop that is lost, as state DOWN.
/// *Close*: DELETE, also where something further on failed. *Monitor*: one INITIAL_STATE_TRANSFER, possibly empty, then
/// changes, filtered by the selector, and only of connections that the watcher's own identity asked for. Whoever asks
/// for others is told of none, rather than refused: to a client a refusal is a broken path, and it would heal without end.
/// Policies, if there are any, judge the watcher first, and refuse.
///
/// It stands behind whatever settles the connection's id and identity, and before anything that edits the answer.
pub struct Monitor {
    board: Arc<Board>,
    to_all: bool,
    policies: PolicySet,
    listening: Slot<Subscription>,
}

impl Default for Monitor {
    fn default() -> Self {
        Self { board: Arc::default(), to_all: false, policies: PolicySet::allow_all(), listening: Slot::new() }
    }
}

impl Monitor {
    /// Shows every connection to every watcher, whoever asked for it.
    #[must_use]
    pub fn open_to_all(mut self) -> Self {
        self.to_all = true;
        self
    }

    /// Refuses watchers with an identity whom these policies refuse, such as the stock policy `service_connection`
    /// (default: none; every watcher is told of its own).
    #[must_use]
    pub fn judged_by(mut self, policies: PolicySet) -> Self {
        self.policies = policies;
        self
    }

    fn judge(&self, selector: &MonitorScopeSelector, peer: &Peer) -> Result<()> {
        if self.policies.is_open() {
            return Ok(());
        }
        let selected: Vec<&str> = selector.path_segments.iter().map(|segment| segment.id.as_str()).collect();
        let about = About::Watch {
            selected: &selected,
            recorded: &|id| self.board.is_asked_for_by(&peer.id, id),
            all: &|| self.board.asked_for(),
        };
        let input = PolicyInput { tokens: &[], index: 0, peer: Some(peer), owner: None, about, now: time::now() };
        self.policies.admit(&input, &"a look at connections")
    }

    /// How many connections are known, and how many watch them.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        self.board.counts()
    }

    /// Listens to the next hop; to the same one at the same life only once.
    fn listen(&self, call: &Call) -> Result<()> {
        let state = call.state()?;
        let Some(watch) = call.fact::<NextHopWatch>() else {
            self.listening.take(state);
            return Ok(());
        };
        let relay = || -> Arc<dyn Sink> {
            Arc::new(Relay { board: Arc::clone(&self.board), id: call.body().id.as_str().into() })
        };
        let former = self.listening.take(state);
        self.listening.set(state, watch.listen(former, relay));
        Ok(())
    }
}

impl Element for Monitor {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let first = call.is_first();
        let before = call.share();
        call.set_fact(Herald { board: Arc::downgrade(&self.board), id: call.body().id.as_str().into() });
        let call = match next.request(call).await {
            Ok(call) => call,
            Err(error) => {
                if !first {
                    self.board.change(&before.id, |_| Some(down(&before)));
                }
                return Err(error);
            }
        };
        self.board.update(call.share(), call.peer().map(|peer| &peer.id));
        self.listen(&call)?;
        Ok(call)
    }

    async fn close(&self, call: Call, next: Next<'_>) -> Result<Call> {
        if let Ok(state) = call.state() {
            self.listening.take(state);
        }
        let closed = call.share();
        let result = next.close(call).await;
        self.board.delete(closed);
        result
    }

    async fn monitor(&self, watch: Watch, _next: Next<'_>) -> Result<EventStream<Service>> {
        if let Some(peer) = &watch.peer {
            self.judge(&watch.query, peer)?;
        }
        let owner = watch.peer.as_ref().filter(|_| !self.to_all).map(|peer| peer.id.clone());
        Ok(stream(self.board.watch(watch.query, owner)))
    }

    fn order(&self) -> Order {
        Order::after(&["UpdatePath", "Begin"])
    }
}

fn down(connection: &Connection) -> Arc<Connection> {
    let mut connection = connection.clone();
    connection.set_state(State::Down);
    Arc::new(connection)
}

/// Left in a call by [`Monitor`]: by it an element further in tells watchers something of its own.
#[derive(Clone)]
pub struct Herald {
    board: Weak<Board>,
    id: Arc<str>,
}

impl Herald {
    /// Says that the connection is down: its initiator is to heal it.
    pub fn down(&self) {
        if let Some(board) = self.board.upgrade() {
            board.change(&self.id, |own| Some(down(own)));
        }
    }
}

impl fmt::Debug for Herald {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Herald({})", self.id)
    }
}

/// Turns news of the next hop into news of ours.
struct Relay {
    board: Arc<Board>,
    id: Arc<str>,
}

impl Sink for Relay {
    fn told(&self, news: News<'_>) {
        self.board.change(&self.id, |own| match news {
            News::Changed(theirs) if !agrees(own, theirs) => Some(translate(own, theirs)),
            // It is there, and lets nobody listen.
            News::Lost(error) if is_refusal(error) => None,
            News::Gone | News::Lost(_) if own.state() != State::Down => Some(down(own)),
            _ => None,
        });
    }
}

/// What stands right of our segment, in a path that passes it.
fn right<'a>(own: &Connection, path: &'a Path) -> &'a [PathSegment] {
    let from = own.path.as_ref().map_or(0, |path| path.index as usize + 1);
    path.path_segments.get(from..).unwrap_or_default()
}

/// Whether the next hop has nothing to tell that we do not have.
fn agrees(own: &Connection, theirs: &Connection) -> bool {
    let (Some(path), Some(their_path)) = (&own.path, &theirs.path) else {
        return false;
    };
    own.state() == theirs.state() && own.context == theirs.context && right(own, path) == right(own, their_path)
}

/// Our connection with the next hop's state and context, and its part of the path. What stands left of it is ours to
/// say: the next hop knows it as it was when we last asked.
fn translate(own: &Connection, theirs: &Connection) -> Arc<Connection> {
    let mut changed = own.clone();
    changed.set_state(theirs.state());
    changed.context.clone_from(&theirs.context);
    if let (Some(path), Some(new)) = (&mut changed.path, &theirs.path) {
        path.path_segments.truncate(path.index as usize + 1);
        path.path_segments.extend_from_slice(right(own, new));
    }
    Arc::new(changed)
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (connections, watchers) = self.counts();
        write!(f, "Monitor({connections} connections, {watchers} watchers)")
    }
}

#[cfg(test)]
#[cfg(feature = "shuttle")]
mod models;
