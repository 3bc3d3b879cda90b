use std::collections::BTreeMap;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use nsm_api::connection::ConnectionEventType;
use nsm_chain::sync::models::{beside, explore};
use nsm_chain::sync::tokio;

use super::*;

/// A connection of ours; its payload tells how often it has changed.
fn connection(id: &str, version: u32) -> Connection {
    let segment = |id: &str| PathSegment { id: id.into(), ..Default::default() };
    let path = Path { index: 1, path_segments: vec![segment(&format!("caller of {id}")), segment(id)] };
    Connection { id: id.into(), payload: version.to_string(), path: Some(path), ..Default::default() }
}

fn version(connection: &Connection) -> u32 {
    connection.payload.parse().unwrap()
}

const LAST: u32 = 3;

/// Publishes a connection several times.
fn publishes(board: &Arc<Board>, id: &'static str) -> BoxFuture<'static, ()> {
    let board = Arc::clone(board);
    async move { (1..=LAST).for_each(|version| board.update(Arc::new(connection(id, version)), None)) }.boxed()
}

/// Publishes it, and deletes it.
fn deletes(board: &Arc<Board>, id: &'static str) -> BoxFuture<'static, ()> {
    let board = Arc::clone(board);
    async move {
        board.update(Arc::new(connection(id, LAST)), None);
        board.delete(Arc::new(connection(id, 0)));
    }
    .boxed()
}

/// Watches until every one of these connections has come to its last state, and checks the order in which that came.
fn watches(board: &Arc<Board>, wanted: &[&'static str]) -> BoxFuture<'static, ()> {
    let (board, wanted) = (Arc::clone(board), wanted.to_vec());
    async move {
        let selector = match wanted[..] {
            [one] => vec![PathSegment { id: one.into(), ..Default::default() }],
            _ => Vec::new(),
        };
        let selector = MonitorScopeSelector { path_segments: selector, ..Default::default() };
        let mut events = stream(board.watch(selector, None));
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        let mut first = true;
        while wanted.iter().any(|id| seen.get(*id) != Some(&LAST)) {
            let event = events.next().await.unwrap().unwrap();
            assert_eq!(first, event.r#type() == ConnectionEventType::InitialStateTransfer, "one transfer, and first");
            first = false;
            for (id, connection) in &event.connections {
                assert!(wanted.contains(&id.as_str()), "told of {id}");
                let before = seen.insert(id.clone(), version(connection)).unwrap_or_default();
                assert!(before < version(connection), "version {} of {id} after {before}", version(connection));
            }
        }
    }
    .boxed()
}

#[test]
fn every_watcher_gets_the_last_state_in_order() {
    explore(|| async {
        let board = Arc::<Board>::default();
        beside([publishes(&board, "a"), publishes(&board, "b"), watches(&board, &["a", "b"]), watches(&board, &["b"])])
            .await;
        assert_eq!(board.counts(), (2, 0));
    });
}

#[test]
fn a_watcher_learns_of_the_end_of_what_it_knew() {
    explore(|| async {
        let board = Arc::<Board>::default();
        let watcher = {
            let board = Arc::clone(&board);
            async move {
                let mut events = stream(board.watch(MonitorScopeSelector::default(), None));
                let mut there = !events.next().await.unwrap().unwrap().connections.is_empty();
                let (known, watchers) = board.counts();
                assert!(watchers == 1 && known <= 1);
                // Either it came too late for all, or the end is still to come.
                while there || known == 1 {
                    let event = events.next().await.unwrap().unwrap();
                    there = event.r#type() != ConnectionEventType::Delete;
                    if !there {
                        return;
                    }
                }
            }
        };
        beside([deletes(&board, "a"), watcher.boxed()]).await;
        assert_eq!(board.counts(), (0, 0));
    });
}

#[test]
fn news_of_the_next_hop_do_not_undo_what_a_request_brought() {
    explore(|| async {
        let board = Arc::<Board>::default();
        board.update(Arc::new(connection("a", 1)), None);
        let relay = Relay { board: Arc::clone(&board), id: "a".into() };
        let request = {
            let board = Arc::clone(&board);
            async move { board.update(Arc::new(connection("a", 2)), None) }
        };
        let mut theirs = connection("a", 7);
        theirs.set_state(State::Down);
        beside([request.boxed(), async move { relay.told(News::Changed(&theirs)) }.boxed()]).await;
        let initial = stream(board.watch(MonitorScopeSelector::default(), None)).next().await.unwrap().unwrap();
        assert_eq!(version(&initial.connections["a"]), 2);
    });
}

#[test]
fn a_watcher_that_is_dropped_leaves_nothing() {
    explore(|| async {
        let board = Arc::<Board>::default();
        let watcher = || {
            let board = Arc::clone(&board);
            async move { drop(stream(board.watch(MonitorScopeSelector::default(), None)).next().await) }.boxed()
        };
        let one = watches(&board, &["a"]);
        beside([publishes(&board, "a"), watcher(), watcher(), one]).await;
        assert_eq!(board.counts(), (1, 0));
        tokio::task::yield_now().await;
    });
}
