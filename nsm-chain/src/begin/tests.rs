use super::*;
use crate::{Chain, Code, elements};
use nsm_api::Connection;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts, and fails or lingers when told so.
#[derive(Clone, Default)]
struct Far {
    requests: Arc<AtomicUsize>,
    closes: Arc<AtomicUsize>,
    inside: Arc<AtomicUsize>,
    fail: Arc<AtomicUsize>,
    handle: Arc<StdMutex<Option<Handle>>>,
    slot: Arc<crate::Slot<Arc<()>>>,
    guard: Arc<()>,
}

impl Element for Far {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        assert_eq!(self.inside.fetch_add(1, Ordering::SeqCst), 0, "two events at once");
        *self.handle.lock().unwrap() = call.handle().cloned();
        self.slot.set(call.state()?, Arc::clone(&self.guard));
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.inside.fetch_sub(1, Ordering::SeqCst);
        if self.fail.load(Ordering::SeqCst) > 0 {
            return Err(Error::unavailable("told to fail"));
        }
        self.requests.fetch_add(1, Ordering::SeqCst);
        call.body_mut().network_service_endpoint_name = "nse".into();
        next.request(call).await
    }

    async fn close(&self, call: Call, next: Next<'_>) -> Result<Call> {
        assert_eq!(call.body().network_service_endpoint_name, "nse", "closes what was established");
        self.closes.fetch_add(1, Ordering::SeqCst);
        next.close(call).await
    }
}

fn stack(begin: Begin) -> (Chain, Arc<Begin>, Far) {
    let (begin, far) = (Arc::new(begin), Far::default());
    (Chain::new("hop", elements![Arc::clone(&begin), far.clone()]).unwrap(), begin, far)
}

fn asked() -> Call {
    Call::new(Connection { id: "c".into(), ..Default::default() })
}

fn kept(far: &Far) -> usize {
    Arc::strong_count(&far.guard) - 1
}

#[tokio::test(start_paused = true)]
async fn a_failed_first_request_leaves_nothing_and_a_failed_refresh_everything() {
    let (chain, begin, far) = stack(Begin::default());
    far.fail.store(1, Ordering::SeqCst);
    chain.request(asked()).await.unwrap_err();
    assert!(begin.handles().is_empty());
    let idle = kept(&far);
    far.fail.store(0, Ordering::SeqCst);
    chain.request(asked()).await.unwrap();
    far.fail.store(1, Ordering::SeqCst);
    chain.request(asked()).await.unwrap_err();
    assert_eq!((begin.handles().len(), kept(&far)), (1, idle + 1));
    chain.close(asked()).await.unwrap();
    assert_eq!((begin.handles().len(), kept(&far)), (0, idle));
    assert_eq!(far.closes.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_close_of_an_unknown_connection_says_so() {
    let (chain, _, far) = stack(Begin::default());
    chain.request(asked()).await.unwrap();
    assert_eq!(chain.close(asked()).await.unwrap().closed(), Closed::Done);
    assert_eq!(chain.close(asked()).await.unwrap().closed(), Closed::Unknown);
    assert_eq!(far.closes.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn events_of_one_connection_never_overlap() {
    let (chain, begin, _) = stack(Begin::default());
    let events = (0..100).map(|at| {
        let chain = chain.clone();
        tokio::spawn(async move { if at % 3 == 2 { chain.close(asked()).await } else { chain.request(asked()).await } })
    });
    for event in events.collect::<Vec<_>>() {
        event.await.unwrap().unwrap();
    }
    chain.close(asked()).await.unwrap();
    assert!(begin.handles().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_gives_up_leaves_nothing() {
    let (chain, begin, far) = stack(Begin::default());
    let patience = CancellationToken::new();
    let task = tokio::spawn({
        let call = asked().cancelled_by(patience.clone());
        async move { chain.request(call).await }
    });
    tokio::time::sleep(Duration::from_millis(5)).await;
    patience.cancel();
    assert_eq!(task.await.unwrap().unwrap_err().code(), Code::Cancelled);
    assert_eq!((far.closes.load(Ordering::SeqCst), begin.handles().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_reselect_closes_once_and_asks_until_it_works() {
    let (chain, _, far) = stack(Begin::initiator());
    chain.request(asked()).await.unwrap();
    let handle = far.handle.lock().unwrap().clone().unwrap();
    far.fail.store(1, Ordering::SeqCst);
    for _ in 0..3 {
        handle.request(Why::Reselect).await.unwrap_err();
    }
    far.fail.store(0, Ordering::SeqCst);
    let call = handle.request(Why::Reselect).await.unwrap().unwrap();
    assert_eq!(call.body().network_service_endpoint_name, "nse");
    assert_eq!(far.closes.load(Ordering::SeqCst), 1);
    chain.close(asked()).await.unwrap();
    assert!(handle.request(Why::Refresh).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_close_that_nobody_hears_leaves_a_reselect_half_of_its_time() {
    struct Deaf;
    impl Element for Deaf {
        async fn close(&self, call: Call, _next: Next<'_>) -> Result<Call> {
            call.patiently(std::future::pending()).await?
        }
    }
    let begin = Arc::new(Begin::initiator());
    let chain = Chain::new("hop", elements![Arc::clone(&begin), Deaf]).unwrap();
    chain.request(asked()).await.unwrap();
    let before = tokio::time::Instant::now();
    let in_a_second = |call: &mut Call| call.set_deadline(Some(before + Duration::from_secs(1)));
    begin.handles()[0].request_with(Why::Reselect, in_a_second).await.unwrap().unwrap();
    assert_eq!(before.elapsed(), Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn a_first_request_that_breaks_off_leaves_nothing() {
    let (chain, begin, far) = stack(Begin::default());
    let broken_off = tokio::time::timeout(Duration::from_millis(5), chain.request(asked())).await;
    assert!(broken_off.is_err());
    assert_eq!((begin.handles().len(), far.inside.swap(0, Ordering::SeqCst)), (0, 1));
    chain.request(asked()).await.unwrap();
    assert_eq!(begin.handles().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_reselect_leaves_nothing_where_nobody_started_it() {
    let (chain, begin, far) = stack(Begin::default());
    chain.request(asked()).await.unwrap();
    far.fail.store(1, Ordering::SeqCst);
    let mut again = asked();
    again.body_mut().set_state(nsm_api::State::ReselectRequested);
    chain.request(again).await.unwrap_err();
    assert_eq!((far.closes.load(Ordering::SeqCst), begin.handles().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_close_does_not_wait_for_a_request_of_our_own() {
    let patient = crate::from_fn(|call: Call, next: crate::OwnedNext| async move {
        if call.is_own() {
            call.patiently(std::future::pending::<()>()).await?;
        }
        next.request(call).await
    });
    let (begin, far) = (Arc::new(Begin::initiator()), Far::default());
    let chain = Chain::new("hop", elements![Arc::clone(&begin), patient, far.clone()]).unwrap();
    chain.request(asked()).await.unwrap();
    let [handle] = <[Handle; 1]>::try_from(begin.handles()).unwrap();
    let healing = tokio::spawn({
        let handle = handle.clone();
        async move { handle.request(Why::Heal).await }
    });
    tokio::task::yield_now().await;
    let before = tokio::time::Instant::now();
    assert_eq!(chain.close(asked()).await.unwrap().closed(), Closed::Done);
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(healing.await.unwrap().unwrap_err().code(), Code::Cancelled);
    assert!(handle.request(Why::Heal).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_nobody_answers_holds_up_a_healing_for_a_moment_only() {
    let slow = crate::from_fn(|call: Call, next: crate::OwnedNext| async move {
        if call.why() == Why::Refresh {
            call.patiently(std::future::pending::<()>()).await?;
        }
        next.request(call).await
    });
    let begin = Arc::new(Begin::initiator());
    let chain = Chain::new("hop", elements![Arc::clone(&begin), slow]).unwrap();
    chain.request(asked()).await.unwrap();
    let handle = begin.handles().remove(0);
    let refresh = tokio::spawn({
        let handle = handle.clone();
        async move { handle.request(Why::Refresh).await }
    });
    tokio::task::yield_now().await;
    let before = tokio::time::Instant::now();
    handle.request(Why::Heal).await.unwrap().unwrap();
    assert_eq!(before.elapsed(), A_MOMENT);
    assert_eq!(refresh.await.unwrap().unwrap_err().code(), Code::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_close_that_was_overtaken_does_nothing() {
    let (chain, begin, far) = stack(Begin::default());
    chain.request(asked()).await.unwrap();
    let handle = begin.handles().remove(0);
    let label = |connection: &Connection| connection.labels.contains_key("new");
    let mut again = asked();
    again.body_mut().labels.insert("new".into(), String::new());
    let (asked_again, overtaken) = tokio::join!(chain.request(again), handle.close_if(|connection| !label(connection)));
    asked_again.unwrap();
    assert_eq!((overtaken.unwrap(), far.closes.load(Ordering::SeqCst)), (Closed::Unknown, 0));
    assert_eq!(handle.close_if(label).await.unwrap(), Closed::Done);
}

#[tokio::test(start_paused = true)]
async fn with_the_chain_goes_all_it_kept() {
    let (chain, begin, far) = stack(Begin::initiator());
    chain.request(asked()).await.unwrap();
    let handle = begin.handles().remove(0);
    let kept = kept(&far);
    drop(chain);
    assert!(handle.request(Why::Refresh).await.unwrap().is_none());
    *far.handle.lock().unwrap() = None;
    drop((begin, handle));
    assert_eq!(self::kept(&far), kept - 2, "the element and the connection's guard");
}

#[tokio::test(start_paused = true)]
async fn waiting_for_an_event_from_inside_is_an_error_and_not_a_hang() {
    struct Inside;
    impl Element for Inside {
        async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
            let error = call.handle().unwrap().close().await.unwrap_err();
            assert_eq!(error.code(), Code::Internal);
            next.request(call).await
        }
    }
    let chain = Chain::new("hop", elements![Begin::default(), Inside]).unwrap();
    chain.request(asked()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn every_event_says_why() {
    let seen: Arc<StdMutex<Vec<(&str, Why)>>> = Arc::default();
    struct Says(Arc<StdMutex<Vec<(&'static str, Why)>>>);
    impl Element for Says {
        async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
            self.0.lock().unwrap().push(("request", call.why()));
            next.request(call).await
        }
        async fn close(&self, call: Call, next: Next<'_>) -> Result<Call> {
            self.0.lock().unwrap().push(("close", call.why()));
            next.close(call).await
        }
    }
    let said = || std::mem::take(&mut *seen.lock().unwrap());
    for initiates in [true, false] {
        let begin = Arc::new(if initiates { Begin::initiator() } else { Begin::default() });
        let chain = Chain::new("hop", elements![Arc::clone(&begin), Says(Arc::clone(&seen))]).unwrap();
        chain.request(asked()).await.unwrap();
        chain.request(asked()).await.unwrap();
        let handle = begin.handles().remove(0);
        handle.request(Why::Heal).await.unwrap();
        assert_eq!(said(), [("request", Why::First), ("request", Why::Refresh), ("request", Why::Heal)]);
        let mut afresh = asked();
        Service::reselect(afresh.body_mut());
        chain.request(afresh).await.unwrap();
        assert_eq!(said(), [("close", Why::Reselect), ("request", Why::Reselect)]);
        handle.close().await.unwrap();
        assert_eq!(said(), [("close", Why::First)], "it is wanted no more");
    }
}
