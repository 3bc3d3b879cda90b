//! Opening watches and comparing their beginning with what was known before.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, TryFutureExt, TryStreamExt};
use nsm_chain::{EventStream, OwnedNext, Record, Registry, Result, Watch};
use tokio::time::Instant;

/// A registry of the reference says nothing at all, not even headers, until the first record of a watch: one
/// that has been quiet for so long counts as open.
pub(super) const QUIET: Duration = Duration::from_millis(200);

/// Opens a watch.
pub(super) async fn open<R: Record>(
    next: &OwnedNext<Registry<R>>,
    watch: &Watch<Registry<R>>,
) -> Result<EventStream<Registry<R>>> {
    let (next, watch) = (next.clone(), asked(watch, watch.query.clone()));
    let mut opening = async move { next.monitor(watch).await }.boxed();
    match tokio::time::timeout(QUIET, &mut opening).await {
        Ok(opened) => opened,
        Err(_) => Ok(Box::pin(opening.try_flatten_stream())),
    }
}

/// What matches now. Asked after a watch was opened, it tells what that watch does not: what is not there.
pub(super) async fn snapshot<R: Record>(
    next: &OwnedNext<Registry<R>>,
    watch: &Watch<Registry<R>>,
) -> Result<Vec<Arc<R>>> {
    let pattern = R::pattern(&watch.query).cloned().unwrap_or_default();
    let found = next.monitor(asked(watch, R::query(pattern, false))).await?;
    found.try_filter_map(|change| async move { Ok((!change.deleted).then_some(change.record)) }).try_collect().await
}

/// A question of the same watcher.
fn asked<R: Record>(watch: &Watch<Registry<R>>, query: R::Query) -> Watch<Registry<R>> {
    let Watch { peer, token, link, hop, .. } = watch;
    let (peer, token, link, hop) = (peer.clone(), token.clone(), link.clone(), hop.clone());
    Watch { peer, token, link, hop, ..Watch::new(query) }
}

/// Names that a snapshot has told of, and the watch beside it has not yet.
///
/// A watch tells the latest state of each record. One that came after the watch was opened, was seen by the snapshot and
/// is gone before the watch gets to it is never mentioned there, and whoever knows it from the snapshot would keep it for
/// ever. So what is not mentioned for long is asked for again.
pub(super) struct Unmentioned {
    names: HashSet<String>,
    pause: Duration,
    due: Instant,
}

/// A watch that is not held up has mentioned all by then.
const HELD_UP: Duration = Duration::from_secs(2);

impl Unmentioned {
    pub(super) fn new(names: HashSet<String>) -> Self {
        Self { names, pause: HELD_UP, due: Instant::now() + HELD_UP }
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Takes note of what the watch mentions; tells whether that was still to come.
    pub(super) fn mentioned(&mut self, name: &str) -> bool {
        self.names.remove(name)
    }

    /// Returns when it is time to [look](Self::gone) again; never, if all has been mentioned.
    pub(super) fn due(&self) -> impl Future<Output = ()> + use<> {
        let due = (!self.names.is_empty()).then_some(self.due);
        async move {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Those that are gone meanwhile; the others are still to come.
    pub(super) async fn gone<R: Record>(
        &mut self,
        next: &OwnedNext<Registry<R>>,
        watch: &Watch<Registry<R>>,
    ) -> Vec<String> {
        let found = snapshot(next, watch).await;
        self.pause *= 2;
        self.due = Instant::now() + self.pause;
        let Ok(found) = found else { return Vec::new() };
        let there: HashSet<&str> = found.iter().map(|record| record.name()).collect();
        self.names.extract_if(|name| !there.contains(name.as_str())).collect()
    }
}
