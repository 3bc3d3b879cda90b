//! What is said to a lab that is up: one question and one answer a connection, each a line of JSON, over a unix socket in
//! a directory that only its user may enter.

use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::view::View;
use crate::failure::Failure;

/// A question.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// What is there?
    View,
    /// Become what this file says.
    Apply { file: String, text: String },
    /// End.
    Down,
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Reply {
    View(Box<View>),
    /// What was changed, a line each, and how much was not.
    Applied {
        changes: Vec<String>,
        unchanged: usize,
    },
    /// Everything was taken down: what that was, and what is left.
    Ended {
        closed: String,
        left: Vec<String>,
    },
    Failed(Failure),
}

/// A question, and where its answer goes.
pub(super) type Asked = (Ask, oneshot::Sender<Reply>);

/// How many questions may wait.
const QUESTIONS: usize = 16;
/// How long a question may take to be put.
const ASKING: Duration = Duration::from_secs(5);
/// How long the last answers may take to be written: on a busy machine it takes a while until anybody gets to run.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Longer questions are cut, and so refused.
const LONGEST: u64 = 4 << 20;
/// How long an answer may take: a lab may be taking down many nodes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Asks the lab that listens there.
pub(super) fn ask(socket: &Path, ask: &Ask) -> std::io::Result<Reply> {
    let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(ask)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    std::io::BufReader::new(stream).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

/// The side of the lab. Who asks for the end is heard at once, also while the lab is busy, and answered at the end.
pub(super) struct Control {
    listening: JoinHandle<()>,
    /// Answers that are not yet written.
    open: TaskTracker,
    questions: mpsc::Sender<Asked>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Who waits for the end.
    waiting: Mutex<Vec<oneshot::Sender<Reply>>>,
    /// The sockets of those who asked, as proc(5) calls them: they are not the lab's.
    sockets: Mutex<BTreeSet<String>>,
}

impl Control {
    /// Listens; what is asked for comes out of the receiver, the wish that it ends cancels `ending`.
    pub(super) fn start(listener: UnixListener, ending: &CancellationToken) -> (Self, mpsc::Receiver<Asked>) {
        let (questions, asked) = mpsc::channel(QUESTIONS);
        let (open, shared) = (TaskTracker::new(), Arc::<Shared>::default());
        let listening = {
            let (open, shared, questions, ending) =
                (open.clone(), Arc::clone(&shared), questions.clone(), ending.clone());
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    lock(&shared.sockets).extend(socket(&stream));
                    open.spawn(answer(stream, Arc::clone(&shared), questions.clone(), ending.clone()));
                }
            })
        };
        (Self { listening, open, questions, shared }, asked)
    }

    /// Where questions of our own go.
    pub(super) fn sender(&self) -> mpsc::Sender<Asked> {
        self.questions.clone()
    }

    /// Hears no more questions. The sockets of those who still wait for an answer.
    pub(super) async fn stop_listening(&mut self) -> BTreeSet<String> {
        self.listening.abort();
        // Its socket is closed when it has ended.
        let _aborted = (&mut self.listening).await;
        lock(&self.shared.sockets).clone()
    }

    /// Answers all who waited for the end.
    pub(super) async fn tell_the_end(self, reply: &Reply) {
        for waiting in std::mem::take(&mut *lock(&self.shared.waiting)) {
            let _gone = waiting.send(reply.clone());
        }
        self.open.close();
        // Who does not read does not hold us up.
        let _late = tokio::time::timeout(LAST_WORDS, self.open.wait()).await;
    }
}

async fn answer(stream: UnixStream, shared: Arc<Shared>, questions: mpsc::Sender<Asked>, ending: CancellationToken) {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(LONGEST));
    if !matches!(tokio::time::timeout(ASKING, read.read_line(&mut line)).await, Ok(Ok(_))) {
        return;
    }
    let (reply, answered) = oneshot::channel();
    match serde_json::from_str(&line) {
        Ok(Ask::Down) => {
            lock(&shared.waiting).push(reply);
            ending.cancel();
        }
        Ok(ask) => {
            if questions.send((ask, reply)).await.is_err() {
                return;
            }
        }
        Err(error) => {
            let failure = Failure::at("lab", format!("not understood: {error}"), "use the same nsm for both");
            let _gone = reply.send(Reply::Failed(failure));
        }
    }
    drop(shared);
    // Nobody answers a question when the lab ends.
    let Ok(reply) = answered.await else { return };
    if let Ok(mut text) = serde_json::to_vec(&reply) {
        text.push(b'\n');
        let _gone = write.write_all(&text).await;
    }
}

/// A socket as proc(5) calls it.
fn socket(stream: &UnixStream) -> Option<String> {
    let inode = nix::sys::stat::fstat(stream).ok()?.st_ino;
    Some(format!("socket:[{inode}]"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
