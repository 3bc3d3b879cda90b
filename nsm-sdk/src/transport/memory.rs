//! Pipes inside the process, by name: a network for tests, which works on a paused clock.

use std::collections::HashMap;
use std::io;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use tokio::io::DuplexStream;
use tokio::sync::mpsc;

static LISTENERS: LazyLock<Mutex<HashMap<String, mpsc::Sender<DuplexStream>>>> = LazyLock::new(Mutex::default);

#[derive(Debug)]
pub(super) struct MemoryListener {
    name: String,
    incoming: mpsc::Receiver<DuplexStream>,
}

impl MemoryListener {
    pub(super) fn bind(name: &str) -> io::Result<Self> {
        let (sender, incoming) = mpsc::channel(BACKLOG);
        let mut listeners = listeners();
        if listeners.contains_key(name) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        listeners.insert(name.to_owned(), sender);
        Ok(Self { name: name.to_owned(), incoming })
    }

    pub(super) async fn accept(&mut self) -> io::Result<DuplexStream> {
        // The sender lives in the table until this listener is dropped.
        self.incoming.recv().await.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        listeners().remove(&self.name);
    }
}

pub(super) async fn connect(name: &str) -> io::Result<DuplexStream> {
    let listener = listeners().get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
    let (ours, theirs) = tokio::io::duplex(PIPE);
    listener.send(theirs).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
    Ok(ours)
}

fn listeners() -> MutexGuard<'static, HashMap<String, mpsc::Sender<DuplexStream>>> {
    LISTENERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connections waiting to be accepted.
const BACKLOG: usize = 128;
/// Bytes on their way in one direction.
const PIPE: usize = 64 << 10;
