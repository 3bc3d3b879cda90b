use std::sync::Arc;

use nsm_chain::{Begin, Chain, Code, FromFn, OwnedNext, elements, from_fn};

use super::*;
use crate::registry::Memory;
use crate::registry::testing::{Nse, Probe, find, named, names, nse, register, seconds, settle, token, unread, watch};

struct Hop {
    chain: Chain<Endpoints>,
    begin: Arc<Begin<Endpoints>>,
    probe: Arc<Probe>,
    timers: Timers,
}

fn hop(default: Option<u64>) -> Hop {
    let (begin, probe, timers) = (Arc::new(Begin::default()), Arc::new(Probe::default()), Timers::default());
    let expire = match default {
        Some(life) => Expire::after(seconds(life), timers.clone()),
        None => Expire::when_asked(timers.clone()),
    };
    let list = elements![Arc::clone(&begin), expire, Arc::clone(&probe), Memory::default()];
    Hop { chain: Chain::new("registry", list).unwrap(), begin, probe, timers }
}

fn left(nse: &Nse) -> Option<Duration> {
    expiration(nse).map(time::until)
}

fn asking(life: u64) -> Nse {
    Nse { expiration_time: Some((time::now() + seconds(life)).into()), ..nse("nse-1", &["vpn"]) }
}

#[tokio::test(start_paused = true)]
async fn the_earliest_of_request_token_and_default_counts() {
    for (asked, callers, default, counts) in
        [(10, 20, 30, 10), (20, 10, 30, 10), (30, 20, 10, 10), (3600, 3600, 60, 60)]
    {
        let hop = hop(Some(default));
        let call = Call::new(asking(asked)).from_peer(None, Some(token(seconds(callers))));
        let nse = hop.chain.request(call).await.unwrap().into_body();
        assert_eq!(left(&nse), Some(seconds(counts)));
        assert_eq!(left(&find(&hop.chain, named("nse-1")).await[0]), Some(seconds(counts)));
    }
}

#[tokio::test(start_paused = true)]
async fn our_own_token_counts_too() {
    let own: FromFn<_> = from_fn(|mut call: Call<Endpoints>, next: OwnedNext<Endpoints>| async move {
        call.set_fact(OwnToken { expires: time::now() + seconds(5) });
        next.request(call).await
    });
    let expire = Expire::after(seconds(60), Timers::default());
    let chain = Chain::new("registry", elements![Begin::default(), own, expire, Memory::default()]).unwrap();
    assert_eq!(left(&register(&chain, nse("nse-1", &[])).await.unwrap()), Some(seconds(5)));
}

#[tokio::test(start_paused = true)]
async fn an_earlier_end_in_the_answer_counts() {
    let upstream = Chain::new(
        "registry",
        elements![Begin::default(), Expire::after(seconds(7), Timers::default()), Memory::default()],
    );
    let hop = hop(Some(60));
    let expire = Expire::after(seconds(60), hop.timers.clone());
    let chain =
        Chain::new("nsmgr", elements![Begin::default(), expire, crate::registry::testing::Hand(upstream.unwrap())])
            .unwrap();
    assert_eq!(left(&register(&chain, nse("nse-1", &[])).await.unwrap()), Some(seconds(7)));
    tokio::time::sleep(seconds(8)).await;
    assert_eq!(hop.timers.armed(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_is_not_refreshed_is_gone_when_it_ends() {
    let hop = hop(Some(60));
    register(&hop.chain, nse("nse-1", &["vpn"])).await.unwrap();
    let mut events = watch(&hop.chain, named("")).await;
    assert_eq!(unread(&mut events), ["nse-1"]);
    tokio::time::sleep(seconds(59)).await;
    assert_eq!(names(&hop.chain, named("")).await, ["nse-1"]);
    tokio::time::sleep(seconds(2)).await;
    assert_eq!(names(&hop.chain, named("")).await, [""; 0]);
    assert_eq!(unread(&mut events), ["-nse-1"]);
    assert!(hop.begin.handles().is_empty());
    assert_eq!(hop.timers.armed(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_is_refreshed_lives_on() {
    let hop = hop(Some(60));
    for _ in 0..50 {
        register(&hop.chain, nse("nse-1", &[])).await.unwrap();
        tokio::time::sleep(seconds(40)).await;
        assert!(!hop.probe.take().contains(&"-nse-1".to_owned()));
    }
    assert_eq!(hop.timers.armed(), 1);
    hop.chain.close(Call::new(nse("nse-1", &[]))).await.unwrap();
    assert_eq!(hop.timers.armed(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_changes_nothing_about_the_end() {
    let hop = hop(Some(60));
    register(&hop.chain, nse("nse-1", &[])).await.unwrap();
    tokio::time::sleep(seconds(40)).await;
    hop.probe.fail(1);
    assert_eq!(register(&hop.chain, nse("nse-1", &[])).await.unwrap_err().code(), Code::Unavailable);
    tokio::time::sleep(seconds(19)).await;
    assert_eq!(names(&hop.chain, named("")).await, ["nse-1"]);
    tokio::time::sleep(seconds(2)).await;
    assert_eq!(names(&hop.chain, named("")).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_under_way_when_the_time_is_over_saves_the_registration() {
    let hop = hop(Some(60));
    register(&hop.chain, nse("nse-1", &[])).await.unwrap();
    tokio::time::sleep(seconds(58)).await;
    let hold = hop.probe.hold();
    let refresh = tokio::spawn({
        let chain = hop.chain.clone();
        async move { register(&chain, nse("nse-1", &[])).await }
    });
    tokio::time::sleep(seconds(5)).await;
    hop.probe.release();
    hold.notify_one();
    refresh.await.unwrap().unwrap();
    hop.probe.take();
    tokio::time::sleep(seconds(30)).await;
    assert_eq!(hop.probe.take(), [""; 0]);
    assert_eq!(names(&hop.chain, named("")).await, ["nse-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_under_way_that_fails_does_not_save_it() {
    let hop = hop(Some(60));
    register(&hop.chain, nse("nse-1", &[])).await.unwrap();
    tokio::time::sleep(seconds(58)).await;
    hop.probe.hold();
    let refresh = tokio::spawn({
        let chain = hop.chain.clone();
        async move { chain.request(Call::new(nse("nse-1", &[])).within(seconds(4))).await }
    });
    tokio::time::sleep(seconds(1)).await;
    refresh.abort();
    tokio::time::sleep(seconds(2)).await;
    assert_eq!(names(&hop.chain, named("")).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn however_long_the_caller_waits_it_has_nine_tenths_of_the_life_to_refresh() {
    let hop = hop(Some(60));
    hop.chain.request(Call::new(nse("nse-1", &[])).within(seconds(50))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(53_900)).await;
    assert_eq!(names(&hop.chain, named("")).await, ["nse-1"]);
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(names(&hop.chain, named("")).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn without_anything_that_says_when_a_registration_does_not_end() {
    let hop = hop(None);
    assert_eq!(left(&register(&hop.chain, nse("nse-1", &[])).await.unwrap()), None);
    assert_eq!(hop.timers.armed(), 0);
    register(&hop.chain, asking(5)).await.unwrap();
    tokio::time::sleep(seconds(6)).await;
    assert_eq!(names(&hop.chain, named("")).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_unregistered_further_on_is_let_go_here() {
    let hop = hop(Some(60));
    register(&hop.chain, nse("nse-1", &[])).await.unwrap();
    hop.probe.fail(1);
    tokio::time::sleep(seconds(61)).await;
    settle().await;
    assert!(hop.begin.handles().is_empty());
    register(&hop.chain, nse("nse-1", &[])).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_end_in_the_past_or_out_of_all_bounds_harms_nobody() {
    let hop = hop(Some(60));
    for seconds in [0, -1, i64::MIN, i64::MAX] {
        let mut nse = nse("nse-1", &[]);
        nse.expiration_time = asking(1).expiration_time.map(|mut time| {
            time.seconds = seconds;
            time
        });
        register(&hop.chain, nse).await.unwrap();
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!(names(&hop.chain, named("")).await, [""; 0], "{seconds}");
    }
}
