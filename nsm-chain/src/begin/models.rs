use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;
use nsm_api::{Connection, State as Is};

use super::*;
use crate::sync::models::{beside, explore};
use crate::sync::tokio;
use crate::{Chain, Slot, elements};

/// What follows in the chain: knows whether the connection is open there, and fails when told so.
#[derive(Clone, Default)]
struct Far {
    inside: Arc<AtomicUsize>,
    open: Arc<AtomicBool>,
    failing: Arc<AtomicBool>,
    slot: Arc<Slot<Arc<()>>>,
    guard: Arc<()>,
}

impl Far {
    async fn alone(&self) {
        assert_eq!(self.inside.fetch_add(1, Ordering::SeqCst), 0, "two events of a connection at once");
        let _inside = Inside(&self.inside);
        tokio::task::yield_now().await;
    }
}

/// An event under way; it may break off.
struct Inside<'a>(&'a AtomicUsize);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Element for Far {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        self.slot.set(call.state()?, Arc::clone(&self.guard));
        self.alone().await;
        if self.failing.load(Ordering::SeqCst) {
            return Err(Error::unavailable("told to fail"));
        }
        self.open.store(true, Ordering::SeqCst);
        next.request(call).await
    }

    async fn close(&self, call: Call, next: Next<'_>) -> Result<Call> {
        self.alone().await;
        self.open.store(false, Ordering::SeqCst);
        next.close(call).await
    }
}

#[derive(Clone)]
struct Hop {
    chain: Chain,
    begin: Arc<Begin>,
    far: Far,
}

impl Hop {
    fn new(begin: Begin) -> Self {
        let (begin, far) = (Arc::new(begin), Far::default());
        let chain = Chain::new("hop", elements![Arc::clone(&begin), far.clone()]).unwrap();
        Self { chain, begin, far }
    }

    /// What is known is established, open further on, and has its state; of anything else nothing is left.
    fn check(&self) -> bool {
        let handles = self.begin.handles();
        let there = match &handles[..] {
            [] => false,
            [one] => {
                assert!(one.peek().is_some(), "an empty entry stayed in the table");
                true
            }
            _ => panic!("two entries for one connection"),
        };
        assert_eq!(self.far.open.load(Ordering::SeqCst), there, "open further on");
        assert_eq!(Arc::strong_count(&self.far.guard), 2 + usize::from(there), "state that is kept");
        there
    }

    fn request(&self) -> BoxFuture<'static, ()> {
        let hop = self.clone();
        async move { drop(hop.chain.request(asked()).await) }.boxed()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let hop = self.clone();
        async move { drop(hop.chain.close(asked()).await.unwrap()) }.boxed()
    }

    /// An event that an element starts.
    fn own(&self, handle: &Handle, why: Why) -> BoxFuture<'static, ()> {
        let handle = handle.clone();
        async move { drop(handle.request(why).await) }.boxed()
    }

    /// Somebody who looks at what is there.
    fn look(&self) -> BoxFuture<'static, ()> {
        let hop = self.clone();
        async move { drop(hop.begin.handles().iter().map(Handle::peek).collect::<Vec<_>>()) }.boxed()
    }

    /// A Request whose caller gives up at some time.
    fn given_up(&self) -> BoxFuture<'static, ()> {
        let (hop, patience) = (self.clone(), CancellationToken::new());
        let cancel = patience.clone();
        let request = async move { drop(hop.chain.request(asked().cancelled_by(patience)).await) };
        beside([request.boxed(), async move { cancel.cancel() }.boxed()]).boxed()
    }

    /// A Request whose future is dropped at some time, unless it was faster.
    fn broken_off(&self) -> BoxFuture<'static, ()> {
        let hop = self.clone();
        async move {
            tokio::select! {
                result = hop.chain.request(asked()) => drop(result),
                () = tokio::task::yield_now() => {}
            }
        }
        .boxed()
    }
}

fn asked() -> Call {
    Call::new(Connection { id: "c".into(), ..Default::default() })
}

#[test]
fn a_close_beside_a_first_request_leaves_nothing() {
    explore(|| async {
        let hop = Hop::new(Begin::default());
        let closed = tokio::spawn({
            let hop = hop.clone();
            async move { hop.chain.close(asked()).await.unwrap().closed() }
        });
        hop.chain.request(asked()).await.unwrap();
        let closed = closed.await.unwrap();
        assert_eq!(hop.check(), closed == Closed::Unknown, "after a Close that says {closed:?}");
    });
}

#[test]
fn one_event_at_a_time_happens_and_all_come_to_an_end() {
    explore(|| async {
        let hop = Hop::new(Begin::default());
        hop.chain.request(asked()).await.unwrap();
        let handle = hop.begin.handles().remove(0);
        beside([hop.request(), hop.close(), hop.own(&handle, Why::Heal), hop.close()]).await;
        hop.check();
        hop.close().await;
        assert!(!hop.check());
    });
}

#[test]
fn what_was_closed_is_not_revived_by_a_handle() {
    explore(|| async {
        let hop = Hop::new(Begin::initiator());
        hop.chain.request(asked()).await.unwrap();
        let handle = hop.begin.handles().remove(0);
        beside([hop.own(&handle, Why::Refresh), hop.close(), hop.own(&handle, Why::Reselect)]).await;
        assert!(!hop.check());
        assert!(handle.request(Why::Heal).await.unwrap().is_none());
    });
}

#[test]
fn a_caller_who_gives_up_leaves_nothing_whatever_happens_beside() {
    explore(|| async {
        let hop = Hop::new(Begin::default());
        beside([hop.given_up(), hop.close()]).await;
        hop.check();
        hop.close().await;
        beside([hop.given_up(), hop.look()]).await;
        hop.check();
        beside([hop.given_up(), hop.request(), hop.close()]).await;
        hop.check();
    });
}

#[test]
fn a_first_request_that_fails_leaves_nothing_and_the_next_starts_afresh() {
    explore(|| async {
        let hop = Hop::new(Begin::default());
        hop.far.failing.store(true, Ordering::SeqCst);
        let failing = Arc::clone(&hop.far.failing);
        beside([hop.request(), hop.request(), async move { failing.store(false, Ordering::SeqCst) }.boxed()]).await;
        hop.check();
    });
}

#[test]
fn a_request_that_breaks_off_beside_a_close_leaves_no_entry() {
    explore(|| async {
        let hop = Hop::new(Begin::default());
        beside([hop.broken_off(), hop.close()]).await;
        // Further on something may be half open: for that callers are detached at borders. Here nothing is left of it.
        assert!(hop.begin.handles().iter().all(|handle| handle.peek().is_some()), "an empty entry stayed in the table");
    });
}

#[test]
fn a_peer_that_wants_another_choice_does_not_overlap() {
    explore(|| async {
        let hop = Hop::new(Begin::default());
        hop.chain.request(asked()).await.unwrap();
        let again = {
            let (hop, mut again) = (hop.clone(), asked());
            again.body_mut().set_state(Is::ReselectRequested);
            async move { drop(hop.chain.request(again).await.unwrap()) }.boxed()
        };
        beside([again, hop.close(), hop.request()]).await;
        hop.check();
    });
}
