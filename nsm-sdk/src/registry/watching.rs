//! Opening watches and comparing their beginning with what was known before.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, TryFutureExt, TryStreamExt};
use nsm_chain::{EventStream, OwnedNext, Record, Registry, Result, Watch};

/// A registry of the reference says nothing at all, not even headers, until the first record of a watch: one
/// that has been quiet for so long counts as open.
const QUIET: Duration = Duration::from_millis(200);

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
