use std::sync::atomic::AtomicUsize;

use futures::FutureExt;
use futures::future::BoxFuture;
use nsm_api::connection::Path;
use nsm_chain::sync::models::{beside, explore};
use nsm_chain::sync::tokio;
use nsm_chain::{Element, EventStream, Next};

use super::*;

/// A next hop that tells, ends its streams, and refuses when told so.
#[derive(Clone, Default)]
struct Hop {
    streams: Arc<Mutex<Vec<tokio::sync::mpsc::Sender<Arc<ConnectionEvent>>>>>,
    wants_ids: bool,
}

impl Element for Hop {
    async fn monitor(&self, watch: Watch, _next: Next<'_>) -> nsm_chain::Result<EventStream<Service>> {
        tokio::task::yield_now().await;
        if self.wants_ids && watch.query.path_segments.iter().all(|segment| segment.id.is_empty()) {
            return Err(Error::new(Code::PermissionDenied, "which one?"));
        }
        let (tx, rx) = tokio::sync::mpsc::channel(8);
        tx.try_send(event(ConnectionEventType::InitialStateTransfer, &["a", "b"])).unwrap();
        self.streams.lock().unwrap().push(tx);
        let next = |mut rx: tokio::sync::mpsc::Receiver<_>| async move { rx.recv().await.map(|event| (Ok(event), rx)) };
        Ok(futures::stream::unfold(rx, next).boxed())
    }
}

impl Hop {
    fn tells(&self, kind: ConnectionEventType, ids: &[&str]) {
        for stream in &*self.streams.lock().unwrap() {
            let _ = stream.try_send(event(kind, ids));
        }
    }

    /// Ends all streams there are.
    fn ends(&self) {
        let streams = std::mem::take(&mut *self.streams.lock().unwrap());
        drop(streams);
    }
}

fn event(kind: ConnectionEventType, ids: &[&str]) -> Arc<ConnectionEvent> {
    let segment = |name: &str, id: &str| PathSegment { name: name.into(), id: id.into(), ..Default::default() };
    let connections = ids.iter().map(|id| {
        let path_segments = vec![segment("us", id), segment("them", &format!("theirs of {id}"))];
        let theirs = Connection { path: Some(Path { index: 1, path_segments }), ..Default::default() };
        ((*id).to_owned(), theirs)
    });
    Arc::new(ConnectionEvent { r#type: kind.into(), connections: connections.collect() })
}

/// Waits for what it is told, and must not be told anything after that is over.
#[derive(Default)]
struct Ear {
    heard: Notify,
    lost: Notify,
    over: AtomicBool,
}

impl Sink for Ear {
    fn told(&self, news: News<'_>) {
        assert!(!self.over.load(Ordering::SeqCst), "told after it was lost");
        match news {
            News::Changed(_) | News::Gone => self.heard.notify_one(),
            News::Lost(_) => {
                self.over.store(true, Ordering::SeqCst);
                self.lost.notify_one();
            }
        }
    }
}

fn subject(id: &str) -> Subject {
    Subject { id: id.into(), epoch: None, there: Some(format!("theirs of {id}").into()) }
}

/// Listens until it is told of the connection, as often as the stream has to be opened for that.
fn listens(downstream: &Arc<Downstream>, id: &'static str) -> BoxFuture<'static, ()> {
    let downstream = Arc::clone(downstream);
    async move {
        loop {
            let ear = Arc::new(Ear::default());
            let subscription = downstream.listen(subject(id), Arc::clone(&ear) as _);
            tokio::select! {
                () = ear.heard.notified() => break drop(subscription),
                () = ear.lost.notified() => {
                    assert!(!subscription.tells(&downstream, &subject(id)), "lost, and thinks that it hears");
                }
            }
        }
    }
    .boxed()
}

async fn everybody_hears(hop: Hop) {
    let downstream = Downstream::new("us".into(), Node::new(hop.clone()));
    let ends = {
        let hop = hop.clone();
        async move {
            hop.ends();
            tokio::task::yield_now().await;
            hop.ends();
        }
    };
    // Whoever comes to a stream that is open already hears what is told next.
    let heard = Arc::new(AtomicUsize::new(0));
    let hears = |id| {
        let (heard, listens) = (Arc::clone(&heard), listens(&downstream, id));
        async move {
            listens.await;
            heard.fetch_add(1, Ordering::SeqCst);
        }
        .boxed()
    };
    let (a, b) = (hears("a"), hears("b"));
    let tells = async move {
        while heard.load(Ordering::SeqCst) < 2 {
            hop.tells(ConnectionEventType::Update, &["a", "b"]);
            tokio::task::yield_now().await;
        }
    };
    beside([a, ends.boxed(), b, tells.boxed()]).await;
    assert!(downstream.board().listeners.is_empty());
    // With nobody listening the stream ends by itself.
    while downstream.board().open {
        tokio::task::yield_now().await;
    }
    // And whoever comes then hears again.
    listens(&downstream, "a").await;
}

#[test]
fn whoever_listens_hears_or_is_told_that_it_cannot() {
    explore(|| everybody_hears(Hop::default()));
}

#[test]
fn so_it_is_with_a_stream_for_each_connection() {
    explore(|| everybody_hears(Hop { wants_ids: true, ..Hop::default() }));
}

/// Drops the subscription of another one when it is told.
struct Jealous {
    other: Mutex<Option<(Subscription, Arc<Ear>)>>,
    heard: Notify,
}

impl Sink for Jealous {
    fn told(&self, _news: News<'_>) {
        if let Some((subscription, ear)) = self.other.lock().unwrap().take() {
            drop(subscription);
            ear.over.store(true, Ordering::SeqCst);
        }
        self.heard.notify_one();
    }
}

#[test]
fn a_subscription_that_is_dropped_is_told_nothing_more() {
    explore(|| async {
        let hop = Hop::default();
        let downstream = Downstream::new("us".into(), Node::new(hop.clone()));
        let jealous = Arc::new(Jealous { other: Mutex::default(), heard: Notify::new() });
        let _first = downstream.listen(subject("a"), Arc::clone(&jealous) as _);
        let ear = Arc::new(Ear::default());
        let second = downstream.listen(subject("a"), Arc::clone(&ear) as _);
        *jealous.other.lock().unwrap() = Some((second, ear));
        jealous.heard.notified().await;
        hop.tells(ConnectionEventType::Delete, &["a"]);
        hop.ends();
        jealous.heard.notified().await;
    });
}
