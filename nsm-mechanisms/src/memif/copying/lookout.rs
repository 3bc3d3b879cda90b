//! The forwarder as memif's peer: it listens for a client, and connects to an endpoint.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use nsm_api::Connection;
use nsm_api::mechanism::FileUrl;
use nsm_chain::{Error, Result};
use tokio::task::JoinHandle;

use super::super::attached::{Attached, Target};
use super::super::directory::Directory;
use super::super::socket::{Socket, serve};
use crate::PacketProcessor;
use crate::memif::config;

/// Sockets of this process for MEMIF clients, one for each connection. One lives as long as somebody has it.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    directory: OnceLock<Directory>,
    /// Names follow from connections by a key that nobody knows: the same when it is asked again, and nobody else's.
    names: RandomState,
    open: Mutex<HashMap<String, Weak<Shared>>>,
}

/// A socket that the next worker of its wire takes over.
type Shared = tokio::sync::Mutex<Socket>;

/// How a memif peer is reached.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    /// It comes to this socket.
    Listens(Arc<Shared>),
    /// It listens there.
    Connects(Target),
}

/// Has a processor handle packets of a peer, whenever it is there. Dropped, the interface ends with it.
#[derive(Debug)]
pub(crate) struct Lookout(Looking);

#[derive(Debug)]
enum Looking {
    Listens(Task),
    Connects(Attached),
}

/// Ends when it is dropped.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Sockets {
    /// Where the client of this connection will find its socket.
    pub(crate) fn place(&self, id: &str, payload: &str) -> Result<FileUrl> {
        Ok(FileUrl::Path(self.directory()?.path(&self.name(id, payload))))
    }

    /// Listens there. Who asks again while somebody has the socket gets that.
    pub(crate) fn listen(&self, id: &str, payload: &str) -> Result<Arc<Shared>> {
        let name = self.name(id, payload);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = open.get(&name).and_then(Weak::upgrade) {
            return Ok(socket);
        }
        open.retain(|_, socket| socket.strong_count() > 0);
        let socket = Arc::new(Shared::new(self.directory()?.socket_named(&name, config(payload))?));
        open.insert(name, Arc::downgrade(&socket));
        Ok(socket)
    }

    fn directory(&self) -> Result<&Directory> {
        if let Some(directory) = self.directory.get() {
            return Ok(directory);
        }
        let base = std::env::temp_dir();
        let made = Directory::within(&base).map_err(|error| {
            Error::internal(format!("cannot make a directory for memif sockets in {}", base.display())).because(error)
        })?;
        // One that came second is removed again.
        Ok(self.directory.get_or_init(|| made))
    }

    fn name(&self, id: &str, payload: &str) -> String {
        format!("{:016x}.sock", self.names.hash_one((id, payload)))
    }
}

impl Lookout {
    /// Begins. An endpoint must be there by now; a client may come later.
    pub(crate) async fn begin<P: PacketProcessor>(way: Way, processor: Arc<P>, connection: Connection) -> Result<Self> {
        let looking = match way {
            Way::Connects(target) => Looking::Connects(Attached::new(target, processor, connection).await?),
            Way::Listens(socket) => {
                let work = async move {
                    let mut socket = socket.lock().await;
                    serve(&mut socket, &*processor, &Arc::new(connection)).await;
                };
                Looking::Listens(Task(tokio::spawn(work)))
            }
        };
        Ok(Self(looking))
    }

    /// Ends it; when this returns the processor is no longer used.
    pub(crate) async fn close(self) {
        match self.0 {
            Looking::Connects(attached) => attached.close().await,
            Looking::Listens(mut task) => {
                task.0.abort();
                let _cancelled = (&mut task.0).await;
            }
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
