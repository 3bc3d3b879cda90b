//! Changes that wait for the disk, which takes all of them at once.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use nsm_chain::{Error, Result};
use nsm_sdk::registry::Then;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::StoreError;
use crate::file::{StoreFile, Write};

/// So many changes may wait; whoever comes then waits before the queue.
const ROOM: usize = 8192;

/// Changes in the order in which they came. A task writes them while there are any: what came while it was writing, it
/// writes together.
pub(crate) struct Queue {
    file: Arc<StoreFile>,
    room: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    writing: bool,
}

struct Job {
    write: Write,
    ending: Ending,
}

/// What follows when a change is on the disk, or not.
struct Ending {
    then: Then,
    told: oneshot::Sender<Result<()>>,
    _room: OwnedSemaphorePermit,
}

impl Queue {
    pub(crate) fn new(file: StoreFile) -> Self {
        Self { file: Arc::new(file), room: Arc::new(Semaphore::new(ROOM)), state: Mutex::default() }
    }

    pub(crate) fn file(&self) -> &Arc<StoreFile> {
        &self.file
    }

    /// Writes a change, after all that came before it, and runs `then`.
    pub(crate) fn append(self: Arc<Self>, write: Write, then: Then) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let stopping = || Error::unavailable("the registry is stopping");
            let room = Arc::clone(&self.room).acquire_owned().await.map_err(|_| stopping())?;
            let (told, answer) = oneshot::channel();
            let start = {
                let mut state = self.lock();
                state.waiting.push_back(Job { write, ending: Ending { then, told, _room: room } });
                !std::mem::replace(&mut state.writing, true)
            };
            if start {
                tokio::spawn(Writer { queue: self, ended: false }.run());
            }
            answer.await.unwrap_or_else(|_| Err(stopping()))
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is waiting; with nothing, the writer ends.
    fn take(&self) -> VecDeque<Job> {
        let mut state = self.lock();
        state.writing = !state.waiting.is_empty();
        std::mem::take(&mut state.waiting)
    }
}

/// Writes while there is something. If it is dropped in the middle, with its runtime, whoever waits learns of it.
struct Writer {
    queue: Arc<Queue>,
    ended: bool,
}

impl Writer {
    async fn run(mut self) {
        loop {
            let jobs = self.queue.take();
            if jobs.is_empty() {
                self.ended = true;
                return;
            }
            let (batch, endings): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| (job.write, job.ending)).unzip();
            let file = Arc::clone(&self.queue.file);
            let written = tokio::task::spawn_blocking(move || file.write(&batch)).await;
            let written =
                written.unwrap_or_else(|_| Err(StoreError::damaged(self.queue.file.path(), "writing it panicked")));
            if let Err(error) = &written {
                tracing::error!(%error, changes = endings.len(), "cannot keep what is registered");
            }
            for Ending { then, told, .. } in endings {
                // Nobody may be waiting any more.
                let _ = told.send(match &written {
                    Ok(()) => {
                        then();
                        Ok(())
                    }
                    Err(error) => Err(error.refusal()),
                });
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut state = self.queue.lock();
        state.writing = false;
        let left = std::mem::take(&mut state.waiting);
        drop(state);
        drop(left);
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({:?}, {} waiting)", self.file, self.lock().waiting.len())
    }
}
