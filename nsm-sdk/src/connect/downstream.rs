//! What a next hop reports of connections that go through it: one stream a hop, however many connections.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use nsm_api::connection::{Connection, ConnectionEvent, ConnectionEventType, MonitorScopeSelector, PathSegment, State};
use nsm_chain::sync::tokio::sync::Notify;
use nsm_chain::sync::{Mutex, MutexGuard, tokio};
use nsm_chain::{Code, Error, Node, Service, Watch};

/// Which connection is meant.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Subject {
    /// The id of our segment of its path.
    pub(super) id: Arc<str>,
    pub(super) epoch: Epoch,
    /// The id of the next hop's segment. That hop may know our id under others too: a Request whose answer was lost left
    /// something there, which ends by itself, and that is no news of what stands.
    pub(super) there: Option<Arc<str>>,
}

/// Which life of a connection is meant. An id that was closed a moment ago and is asked for again has news of its former
/// life under way: the new life is marked. The first has no mark.
pub(super) type Epoch = Option<Arc<str>>;

/// The metric of our path segment that holds the mark. Not a number: the reference counts numeric metrics.
const EPOCH: &str = "epoch";

/// How long a stream stays open with nobody listening, so that a client that closes one connection and asks for
/// another does not open one each time.
const LINGER: Duration = Duration::from_secs(5);

/// How long a connection that was answered while its stream was being opened may be without news on it.
const UNHEARD: Duration = Duration::from_millis(200);

/// A listener, by the id of its connection and its key.
type Heard = (Arc<str>, u64);

/// What the next hop says of a connection.
#[derive(Debug)]
pub enum News<'a> {
    /// It changed; here it is as the next hop has it.
    Changed(&'a Connection),
    /// The next hop closed it, or does not know it.
    Gone,
    /// The next hop cannot be heard any more. That ends the subscription: when the next hop has answered a Request
    /// again, subscribe again.
    Lost(&'a Error),
}

/// Somebody who wants to know. Told on the stream's task: be short, spawn what takes time.
pub trait Sink: Send + Sync + 'static {
    /// There is news.
    fn told(&self, news: News<'_>);
}

/// The monitor stream of one next hop, shared by all connections that go through it.
///
/// The stream selects by this hop's segment name, so one covers every connection of ours. A peer whose policy refuses
/// that is asked once for each connection. The stream is open while somebody listens.
pub struct Downstream {
    name: Arc<str>,
    link: Node<Service>,
    board: Mutex<Board>,
    changed: Notify,
}

#[derive(Default)]
struct Board {
    next: u64,
    open: bool,
    /// How often a stream has said what there is.
    told_all: u64,
    /// Of whom that stream has said nothing, though it may have been opened after they were answered.
    unheard: HashSet<Heard>,
    listeners: HashMap<Arc<str>, Vec<Listener>>,
    /// What was told of connections that are being asked for, by the id of our segment.
    asking: HashMap<Arc<str>, Asked>,
}

/// How often a connection is being asked for, and what broke of it meanwhile: the answer may be older.
#[derive(Default)]
struct Asked {
    times: usize,
    /// What [`Board::told_all`] was when it was first asked for.
    told_all: u64,
    /// Whether the stream has said something of it since it said what there is.
    heard: bool,
    broke: Vec<Broke>,
    /// Why the stream ended meanwhile: what answered may be no more, and the next stream says nothing of it.
    lost: Option<Code>,
}

/// That the next hop closed a connection, or that it is down there.
#[derive(Clone)]
struct Broke {
    epoch: Option<String>,
    there: Option<String>,
    down: Option<Arc<Connection>>,
}

#[derive(Clone)]
struct Listener {
    key: u64,
    subject: Subject,
    sink: Arc<dyn Sink>,
    over: Arc<AtomicBool>,
}

impl Subject {
    /// Whether the next hop may mean this one when it names these two segments.
    fn is(&self, caller: Caller<'_>) -> bool {
        *self.id == caller.segment.id
            && self.there.as_deref().zip(caller.there).is_none_or(|(known, told)| known == told)
    }

    fn is_of_life(&self, caller: Caller<'_>) -> bool {
        caller.segment.metrics.get(EPOCH).map(String::as_str) == self.epoch.as_deref()
    }
}

impl Listener {
    /// Tells it, unless its subscription is over: one who was told a moment ago may have dropped that.
    fn tell(&self, news: News<'_>) {
        if !self.over.load(Ordering::SeqCst) {
            self.sink.told(news);
        }
    }
}

impl Downstream {
    pub(super) fn new(name: Arc<str>, link: Node<Service>) -> Arc<Self> {
        Arc::new(Self { name, link, board: Mutex::default(), changed: Notify::new() })
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells `sink` of this connection, until the subscription is dropped.
    pub(super) fn listen(self: &Arc<Self>, subject: Subject, sink: Arc<dyn Sink>) -> Subscription {
        let over = Arc::new(AtomicBool::new(false));
        let (key, open) = {
            let mut board = self.board();
            let key = board.next;
            board.next += 1;
            let listener = Listener { key, subject: subject.clone(), sink, over: Arc::clone(&over) };
            board.listeners.entry(Arc::clone(&subject.id)).or_default().push(listener);
            (key, std::mem::replace(&mut board.open, true))
        };
        if open {
            self.changed.notify_waiters();
        } else {
            tokio::spawn(run(Arc::downgrade(self)));
        }
        Subscription { downstream: Arc::downgrade(self), subject, key, over }
    }

    /// Keeps in mind what breaks of the connection of this id as long as the returned lives. To be called before it is
    /// asked for: until its answer is here, nobody listens, and nobody knows under which id.
    pub(super) fn asks(self: &Arc<Self>, id: Arc<str>) -> Asking {
        let mut board = self.board();
        let told_all = board.told_all;
        let new = || Asked { told_all, ..Asked::default() };
        board.asking.entry(Arc::clone(&id)).or_insert_with(new).times += 1;
        drop(board);
        Asking { downstream: Arc::clone(self), id }
    }

    /// Keeps in mind what a caller is told that may not have its answer yet.
    fn keep(&self, caller: Caller<'_>, kind: ConnectionEventType, connection: &Connection) {
        let mut board = self.board();
        board.unheard.retain(|(id, _)| **id != *caller.segment.id);
        let Some(asked) = board.asking.get_mut(&*caller.segment.id) else {
            return;
        };
        asked.heard = true;
        let (epoch, there) = (caller.segment.metrics.get(EPOCH).cloned(), caller.there.map(ToOwned::to_owned));
        asked.broke.retain(|broke| (&broke.epoch, &broke.there) != (&epoch, &there));
        let gone = kind == ConnectionEventType::Delete;
        if gone || connection.state() == State::Down {
            let down = (!gone).then(|| Arc::new(connection.clone()));
            asked.broke.push(Broke { epoch, there, down });
        }
    }

    /// Whoever listens to this id; by value, so that a sink may subscribe and unsubscribe while it is told.
    fn listeners(&self, id: &str) -> Vec<Listener> {
        self.board().listeners.get(id).cloned().unwrap_or_default()
    }

    fn told(&self, event: &ConnectionEvent) {
        for connection in event.connections.values() {
            for caller in callers(connection).filter(|caller| caller.segment.name == *self.name) {
                self.keep(caller, event.r#type(), connection);
                for listener in self.listeners(&caller.segment.id) {
                    if listener.subject.is(caller) && listener.subject.is_of_life(caller) {
                        listener.tell(match event.r#type() {
                            ConnectionEventType::Delete => News::Gone,
                            _ => News::Changed(connection),
                        });
                    }
                }
            }
        }
    }

    /// After the first message of a stream: what we believe to be there and the next hop does not know is gone. Of what was
    /// answered while the stream was being opened nobody can say so yet: it may have been made after that message. Then
    /// there is news of it to come.
    fn missing(&self, id: Option<&str>, before: &HashSet<Heard>, initial: &ConnectionEvent) {
        let mut known: HashMap<&str, Vec<Caller<'_>>> = HashMap::new();
        for caller in initial.connections.values().flat_map(callers) {
            known.entry(&caller.segment.id).or_default().push(caller);
        }
        let is_known = |id: &str, listener: &Listener| {
            known.get(id).is_some_and(|callers| callers.iter().any(|caller| listener.subject.is(*caller)))
        };
        for (id, listener) in self.everybody(id).into_iter().filter(|(id, listener)| !is_known(id, listener)) {
            let heard = (id, listener.key);
            if before.contains(&heard) {
                listener.tell(News::Gone);
            } else {
                self.board().unheard.insert(heard);
            }
        }
    }

    /// A stream (of this id) says what there is: whatever was said before of what is being asked for, an earlier one said.
    fn tells_all(&self, id: Option<&str>) {
        let mut board = self.board();
        board.unheard.retain(|(own, _)| id.is_some_and(|id| **own != *id));
        // A stream of one id is opened for one who has its answer.
        if id.is_none() {
            board.told_all += 1;
            board.asking.values_mut().for_each(|asked| asked.heard = false);
        }
    }

    /// Returns when nothing has been said for a while of somebody of whom it should have been.
    async fn says_nothing(&self, id: Option<&str>) {
        loop {
            let changed = self.changed.notified();
            let unheard = || self.board().unheard.iter().any(|(own, _)| id.is_none_or(|id| **own == *id));
            if unheard() {
                tokio::time::sleep(UNHEARD).await;
                if unheard() {
                    return;
                }
            }
            changed.await;
        }
    }

    /// Whoever listens (to this id).
    fn everybody(&self, id: Option<&str>) -> Vec<(Arc<str>, Listener)> {
        let board = self.board();
        let wanted = board.listeners.iter().filter(|(own, _)| id.is_none_or(|id| ***own == *id));
        wanted.flat_map(|(id, all)| all.iter().map(|one| (Arc::clone(id), one.clone()))).collect()
    }

    /// Ends every subscription (to this id): nobody tells them anything any more, unless they come again.
    fn lost(&self, id: Option<&str>, error: &Error) {
        let lost: Vec<Listener> = {
            let mut board = self.board();
            let asking = board.asking.iter_mut().filter(|(asked, _)| id.is_none_or(|id| ***asked == *id));
            asking.for_each(|(_, asked)| asked.lost = Some(error.code()));
            match id {
                Some(id) => board.listeners.remove(id).unwrap_or_default(),
                None => {
                    board.open = false;
                    std::mem::take(&mut board.listeners).into_values().flatten().collect()
                }
            }
        };
        // All are over before the first is told: it may ask which of them still tell.
        let told: Vec<_> = lost.iter().filter(|listener| !listener.over.swap(true, Ordering::SeqCst)).collect();
        for listener in told {
            listener.sink.told(News::Lost(error));
        }
    }

    fn selector(&self, id: Option<&str>) -> MonitorScopeSelector {
        let segment =
            PathSegment { name: (*self.name).to_owned(), id: id.unwrap_or_default().to_owned(), ..Default::default() };
        MonitorScopeSelector { path_segments: vec![segment], network_services: Vec::new() }
    }

    /// Follows one stream to its end. `None`: nobody listened any more, or there was no news of somebody who came while it
    /// was being opened: another one will tell.
    async fn follow(self: &Arc<Self>, id: Option<&str>) -> Option<Error> {
        let before: HashSet<Heard> = self.everybody(id).into_iter().map(|(id, listener)| (id, listener.key)).collect();
        let mut nobody = pin!(self.nobody(id));
        let mut events = match self.link.monitor(Watch::new(self.selector(id))).await {
            Ok(events) => events,
            Err(error) => return Some(error),
        };
        let mut says_nothing = pin!(self.says_nothing(id));
        loop {
            let event = tokio::select! {
                biased;
                event = events.next() => event,
                () = &mut nobody => return None,
                () = &mut says_nothing => return None,
            };
            match event {
                Some(Ok(event)) => {
                    let tells_all = event.r#type() == ConnectionEventType::InitialStateTransfer;
                    if tells_all {
                        self.tells_all(id);
                    }
                    self.told(&event);
                    if tells_all {
                        self.missing(id, &before, &event);
                        self.changed.notify_waiters();
                    }
                }
                Some(Err(error)) => return Some(error),
                None => return Some(Error::unavailable("the next hop ended its monitor stream")),
            }
        }
    }

    /// Returns when nobody has listened (to this id) for a while.
    async fn nobody(&self, id: Option<&str>) {
        loop {
            let changed = self.changed.notified();
            let empty = || {
                let board = self.board();
                id.map_or_else(|| board.listeners.is_empty(), |id| !board.listeners.contains_key(id))
            };
            if empty() {
                tokio::time::sleep(LINGER).await;
                if empty() {
                    return;
                }
            }
            changed.await;
        }
    }
}

/// A segment whose own next hop's connection this may be, and the id that it would have there.
#[derive(Clone, Copy)]
struct Caller<'a> {
    segment: &'a PathSegment,
    there: Option<&'a str>,
}

/// The one before it, or itself where a hop of one name calls itself. A path that comes through a hop twice names it
/// further left too; what happens here is not news of that one.
fn callers(connection: &Connection) -> impl Iterator<Item = Caller<'_>> {
    connection.path.iter().flat_map(|path| {
        let index = path.index as usize;
        let there = path.path_segments.get(index).map(|segment| segment.id.as_str());
        let segments = path.path_segments.iter().enumerate().skip(index.saturating_sub(1)).take(index.min(1) + 1);
        segments.map(move |(at, segment)| Caller { segment, there: there.filter(|_| at < index) })
    })
}

async fn run(downstream: Weak<Downstream>) {
    let Some(downstream) = downstream.upgrade() else {
        return;
    };
    loop {
        match downstream.follow(None).await {
            None => {
                let mut board = downstream.board();
                if board.listeners.is_empty() {
                    board.open = false;
                    return;
                }
            }
            Some(error) if error.code() == Code::PermissionDenied => {
                tracing::debug!(%error, "the next hop wants one monitor stream a connection");
                one_by_one(&downstream).await;
                return;
            }
            Some(error) => return downstream.lost(None, &error),
        }
    }
}

/// One stream a connection, for a peer whose policy wants an id in each selector. Ends with the last listener.
async fn one_by_one(downstream: &Arc<Downstream>) {
    let mut followed: HashSet<Arc<str>> = HashSet::new();
    let mut streams = FuturesUnordered::new();
    loop {
        let changed = downstream.changed.notified();
        for (id, _) in downstream.everybody(None) {
            if followed.insert(Arc::clone(&id)) {
                streams.push(async move {
                    let end = downstream.follow(Some(&id)).await;
                    (id, end)
                });
            }
        }
        {
            let mut board = downstream.board();
            if board.listeners.is_empty() {
                board.open = false;
                return;
            }
        }
        tokio::select! {
            biased;
            Some((id, end)) = streams.next() => {
                followed.remove(&id);
                if let Some(error) = end {
                    downstream.lost(Some(&id), &error);
                }
            }
            () = changed => {}
        }
    }
}

/// A connection that is being asked for.
pub(super) struct Asking {
    downstream: Arc<Downstream>,
    id: Arc<str>,
}

impl Asking {
    pub(super) fn downstream(&self) -> &Arc<Downstream> {
        &self.downstream
    }

    /// Tells `sink` of this connection from when it was asked for, until the subscription is dropped.
    pub(super) fn listen(&self, subject: &Subject, sink: Arc<dyn Sink>) -> Subscription {
        let subscription = self.downstream.listen(subject.clone(), sink);
        self.repeat(&subscription);
        subscription
    }

    /// Tells once more what broke since it was asked for: the answer, which is here now, may be older.
    pub(super) fn repeat(&self, subscription: &Subscription) {
        let subject = &subscription.subject;
        let (broke, lost, listener) = {
            let mut board = self.downstream.board();
            let told_all = board.told_all;
            let Some(asked) = board.asking.get(&self.id) else { return };
            let is_unheard = asked.told_all != told_all && !asked.heard;
            let of_it = |broke: &&Broke| {
                broke.epoch.as_deref() == subject.epoch.as_deref() && broke.there.as_deref() == subject.there.as_deref()
            };
            let listeners = board.listeners.get(&subject.id).map_or(&[][..], Vec::as_slice);
            let listener = listeners.iter().find(|listener| listener.key == subscription.key).cloned();
            let told = (asked.broke.iter().rfind(of_it).cloned(), asked.lost, listener);
            if is_unheard {
                // Its answer may be older than the stream, whose hop may have started anew in between.
                board.unheard.insert((Arc::clone(&subject.id), subscription.key));
                self.downstream.changed.notify_waiters();
            }
            told
        };
        let Some(listener) = listener else { return };
        if let Some(code) = lost {
            subscription.end();
            let error = Error::new(code, "the next hop's monitor stream ended before its answer was here");
            listener.sink.told(News::Lost(&error));
        } else if let Some(broke) = broke {
            listener.tell(broke.down.as_deref().map_or(News::Gone, News::Changed));
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut board = self.downstream.board();
        if let Some(asked) = board.asking.get_mut(&self.id) {
            asked.times -= 1;
            if asked.times == 0 {
                board.asking.remove(&self.id);
            }
        }
    }
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asking({} of {:?})", self.id, self.downstream)
    }
}

/// While it lives, its sink is told.
pub struct Subscription {
    downstream: Weak<Downstream>,
    subject: Subject,
    key: u64,
    over: Arc<AtomicBool>,
}

impl Subscription {
    /// Whether it still tells of this connection at this hop.
    pub(super) fn tells(&self, downstream: &Arc<Downstream>, subject: &Subject) -> bool {
        !self.over.load(Ordering::SeqCst)
            && std::ptr::eq(self.downstream.as_ptr(), Arc::as_ptr(downstream))
            && self.subject == *subject
    }

    /// Nobody is told anything any more.
    fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        let Some(downstream) = self.downstream.upgrade() else {
            return;
        };
        let mut board = downstream.board();
        board.unheard.remove(&(Arc::clone(&self.subject.id), self.key));
        let Some(listeners) = board.listeners.get_mut(&self.subject.id) else {
            return;
        };
        // Dropped after the lock is released: a sink may own what subscribes.
        let gone: Vec<_> = listeners.extract_if(.., |listener| listener.key == self.key).collect();
        if listeners.is_empty() {
            board.listeners.remove(&self.subject.id);
            downstream.changed.notify_waiters();
        }
        drop(board);
        drop(gone);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.end();
    }
}

/// Marks our segment with the life of the connection it belongs to.
pub(super) fn mark(connection: &mut Connection, epoch: &Epoch) {
    if let Some(path) = &mut connection.path
        && let Some(segment) = path.path_segments.get_mut(path.index as usize)
    {
        match epoch {
            Some(epoch) => segment.metrics.insert(EPOCH.to_owned(), (**epoch).to_owned()),
            None => segment.metrics.remove(EPOCH),
        };
    }
}

/// Whether our segment bears this mark.
pub(super) fn is_marked(connection: &Connection, epoch: &Epoch) -> bool {
    let mark = connection.current_segment().and_then(|segment| segment.metrics.get(EPOCH));
    mark.map(String::as_str) == epoch.as_deref()
}

impl fmt::Debug for Downstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Downstream({:?}, {} connections)", self.link, self.board().listeners.len())
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription({})", self.subject.id)
    }
}

#[cfg(test)]
#[cfg(feature = "shuttle")]
mod models;

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests {
    use super::*;
    use nsm_api::connection::Path;

    #[test]
    fn news_is_for_the_caller_of_that_connection_and_not_for_others_on_its_path() {
        let names = ["nsc", "nsmgr", "forwarder", "nse-1", "nsmgr", "forwarder", "nse-2"];
        let segment =
            |(at, name): (usize, &&str)| PathSegment { name: (*name).into(), id: at.to_string(), ..Default::default() };
        let path_segments: Vec<_> = names.iter().enumerate().map(segment).collect();
        let told = |index: u32| {
            let path = Path { index, path_segments: path_segments.clone() };
            let connection = Connection { path: Some(path), ..Default::default() };
            callers(&connection).map(|caller| caller.segment.id.clone()).collect::<Vec<_>>()
        };
        assert_eq!(told(2), ["1", "2"]);
        assert_eq!(told(5), ["4", "5"]);
        assert_eq!(told(0), ["0"]);
        assert!(told(8).is_empty() && told(u32::MAX).is_empty());
    }
}
