use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use nsm_api::Connection;
use nsm_api::mechanism::FileUrl;
use nsm_chain::{Call, Element, Error, Next, Result, Slot};
use tokio::task::AbortHandle;

use super::directory::Directory;
use super::socket::{Socket, serve};
use super::{PacketProcessor, config};

/// Completes a MEMIF mechanism with a socket of this endpoint, and has a [`PacketProcessor`] handle its packets.
///
/// *Request*: the connection gets a socket of its own, which stays the same as long as the connection lives; the
/// mechanism names it. A client that comes there gets memif's server, in IP or Ethernet mode as the payload says. One that
/// is gone may come again. *Close*: the interface is closed, and the socket goes.
///
/// It stands in [`Mechanisms`](crate::Mechanisms). What settles addresses stands before that, so that the processor sees
/// them.
///
/// ```
/// use std::sync::Arc;
/// use nsm_api::{Connection, mechanism::MEMIF};
/// use nsm_memif::Memif;
/// use nsm_mechanisms::{MemifAccept, Mechanisms};
///
/// let echo = MemifAccept::new(|mut memif: Memif, _connection: Arc<Connection>| async move {
///     if let Err(error) = memif.answer(|packet| !packet.is_empty()).await {
///         eprintln!("{error}");
///     }
/// });
/// let mechanisms = Mechanisms::new().with(MEMIF, echo)?;
/// # Ok::<(), nsm_chain::OrderError>(())
/// ```
#[derive(Debug)]
pub struct MemifAccept<P> {
    processor: Arc<P>,
    base: PathBuf,
    /// Made with the first connection, and gone with the element.
    directory: OnceLock<Arc<Directory>>,
    serving: Slot<Arc<Serving>>,
}

/// One connection's socket, and the task that waits there. Dropped, both end, and the interface with them.
#[derive(Debug)]
struct Serving {
    url: FileUrl,
    payload: String,
    task: AbortHandle,
}

impl<P: PacketProcessor> MemifAccept<P> {
    /// With sockets in a private directory below that of temporary files.
    pub fn new(processor: P) -> Self {
        Self {
            processor: Arc::new(processor),
            base: std::env::temp_dir(),
            directory: OnceLock::new(),
            serving: Slot::new(),
        }
    }

    /// With sockets in a private directory below this one, which must be there.
    #[must_use]
    pub fn in_directory(mut self, base: impl Into<PathBuf>) -> Self {
        self.base = base.into();
        self
    }

    fn socket(&self, payload: &str) -> Result<Socket> {
        let directory = match self.directory.get() {
            Some(directory) => directory,
            None => {
                let made = Directory::within(&self.base).map_err(|error| {
                    Error::internal(format!("cannot make a directory for memif sockets in {}", self.base.display()))
                        .because(error)
                })?;
                // One that came second is removed again.
                self.directory.get_or_init(|| Arc::new(made))
            }
        };
        directory.socket(config(payload))
    }

    /// Serves one client after the other.
    fn serve(&self, mut socket: Socket, connection: Connection) -> Serving {
        let (url, payload) = (socket.url.clone(), connection.payload.clone());
        let (processor, connection) = (Arc::clone(&self.processor), Arc::new(connection));
        let work = async move { serve(&mut socket, &*processor, &connection).await };
        Serving { url, payload, task: tokio::spawn(work).abort_handle() }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<P: PacketProcessor> Element for MemifAccept<P> {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let state = Arc::clone(call.state()?);
        let payload = call.connection().payload.clone();
        let kept = self.serving.cloned(&state).filter(|serving| serving.payload == payload);
        let (url, socket) = match &kept {
            Some(serving) => (serving.url.clone(), None),
            None => {
                let socket = self.socket(&payload)?;
                (socket.url.clone(), Some(socket))
            }
        };
        let mut mechanism = call.connection().mechanism.clone();
        if let Some(mut memif) = mechanism.as_mut().and_then(|mechanism| mechanism.as_memif_mut()) {
            memif.set_socket(&url);
        }
        call.connection_mut().mechanism = mechanism;
        // If that fails, a new socket goes again, and one that was there stays.
        let call = next.request(call).await?;
        if let Some(socket) = socket {
            self.serving.set(&state, Arc::new(self.serve(socket, call.connection().clone())));
        }
        Ok(call)
    }

    async fn close(&self, call: Call, next: Next<'_>) -> Result<Call> {
        if let Ok(state) = call.state() {
            self.serving.take(state);
        }
        next.close(call).await
    }
}
