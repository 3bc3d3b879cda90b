//! `--watch`: every edit of the file is applied.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::control::{Ask, Asked};

/// How often the file is looked at. Editors write it anew or put another one in its place; a look finds either.
const LOOKING: Duration = Duration::from_millis(200);

/// Inode, size, and time of the last change.
type Seen = (u64, u64, i64, i64);

/// Has the file applied whenever it has changed, until nobody listens. What is wrong with it is said by the lab.
pub(super) async fn follow(file: PathBuf, lab: mpsc::Sender<Asked>) {
    let mut last = None;
    loop {
        let now = seen(&file);
        // While it is not there, it is being replaced. The first look applies what has changed since the lab read it.
        if now.is_some() && now != last {
            last = now;
            if let Ok(text) = std::fs::read_to_string(&file) {
                let (reply, answered) = oneshot::channel();
                let ask = Ask::Apply { file: file.display().to_string(), text };
                if lab.send((ask, reply)).await.is_err() || answered.await.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(LOOKING).await;
    }
}

fn seen(file: &Path) -> Option<Seen> {
    let facts = std::fs::metadata(file).ok()?;
    Some((facts.ino(), facts.size(), facts.mtime(), facts.mtime_nsec()))
}
