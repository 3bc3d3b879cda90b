use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures::StreamExt;
use nsm_api::registry::NetworkServiceEndpoint;
use nsm_chain::{Call, Change, Element, Error, EventStream, FileId, LinkInfo, Next, Order, Result, SendBeside, Watch};

use super::Endpoints;
use crate::descriptors::{open, receive};
use crate::transport::{Address, HeldSocket};

/// Registers endpoints by the descriptor of their socket, and takes those of endpoints that are found.
///
/// *Register*, *Unregister*: a unix socket's file is opened, its descriptor goes with the call, and the URL names it by inode; the
/// answer has the endpoint's own URL again. *Find*: where an endpoint's URL names a socket by inode, its descriptor is taken from the
/// link; from then on that URL leads to it ([`HeldSocket`]). Of the endpoints found last, so many as a node has, the descriptors are
/// kept until they are told to be gone.
///
/// Descriptors pass over unix sockets: towards others nothing is changed. It stands before the element that asks the manager, and
/// behind caches. (It is the reference's `sendfd` and `recvfd` clients in one.)
pub struct SendFd {
    passes: bool,
    found: Arc<Found>,
}

/// The sockets of endpoints by their names, the one found last at the end.
#[derive(Default)]
struct Found(Mutex<VecDeque<(String, HeldSocket)>>);

/// Sockets kept: more than the endpoints of a node.
const MOST: usize = 1024;

/// The socket that a URL names by inode.
pub(super) fn inode(url: &str) -> Option<FileId> {
    match url.starts_with("inode:").then(|| url.parse())? {
        Ok(Address::Held(id)) => Some(id),
        _ => None,
    }
}

impl SendFd {
    /// Towards the manager at this URL.
    #[must_use]
    pub fn to(url: &str) -> Self {
        Self { passes: url.starts_with("unix:") || url.starts_with("inode:"), found: Arc::default() }
    }

    /// Has the descriptor of the endpoint's socket go with the call; says by what URL the caller knows it.
    fn send(&self, call: &mut Call<Endpoints>) -> Result<Option<String>> {
        let Ok(Address::Unix(path)) = call.body().url.parse() else {
            return Ok(None);
        };
        if !self.passes {
            return Ok(None);
        }
        let (id, file) = open(&path).map_err(|error| missing(&path, error))?;
        call.set_fact(SendBeside([file].into()));
        Ok(Some(std::mem::replace(&mut call.body_mut().url, id.to_string())))
    }
}

fn missing(path: &Path, error: std::io::Error) -> Error {
    Error::precondition(format!("cannot open the endpoint's socket {}", path.display()))
        .because(error)
        .hint("listen before registering")
}

impl Found {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(String, HeldSocket)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, name: &str) -> Option<HeldSocket> {
        let mut found = self.lock();
        let at = found.iter().position(|(known, _)| known == name)?;
        found.remove(at).map(|(_, socket)| socket)
    }

    fn keep(&self, name: &str, socket: HeldSocket) {
        let mut found = self.lock();
        found.retain(|(known, _)| known != name);
        if found.len() == MOST {
            found.pop_front();
        }
        found.push_back((name.to_owned(), socket));
    }

    /// Takes the descriptor that comes with a change.
    async fn take(&self, change: &Change<NetworkServiceEndpoint>, link: Option<&LinkInfo>) {
        let name = &change.record.name;
        let before = self.remove(name);
        let (Some(id), Some(link)) = (inode(&change.record.url), link) else {
            return;
        };
        let came = link.descriptors.as_ref().and_then(|port| port.take(id));
        if change.deleted {
            return;
        }
        let socket = match (before.filter(|before| before.id() == id), came) {
            (Some(before), _) => before,
            (None, Some(file)) => HeldSocket::hold(id, file),
            (None, None) => match receive(link, id).await {
                Ok(file) => HeldSocket::hold(id, file),
                // Whoever dials it is told; other endpoints can be found all the same.
                Err(error) => return tracing::warn!(endpoint = name, %error, "found an endpoint without its socket"),
            },
        };
        self.keep(name, socket);
    }
}

impl Element<Endpoints> for SendFd {
    async fn request(&self, mut call: Call<Endpoints>, next: Next<'_, Endpoints>) -> Result<Call<Endpoints>> {
        let url = self.send(&mut call)?;
        let mut call = next.request(call).await?;
        if let Some(url) = url {
            call.body_mut().url = url;
        }
        Ok(call)
    }

    async fn close(&self, mut call: Call<Endpoints>, next: Next<'_, Endpoints>) -> Result<Call<Endpoints>> {
        // A socket that is gone keeps nobody from unregistering.
        let url = self.send(&mut call).unwrap_or_default();
        let mut call = next.close(call).await?;
        if let Some(url) = url {
            call.body_mut().url = url;
        }
        Ok(call)
    }

    async fn monitor(&self, mut watch: Watch<Endpoints>, next: Next<'_, Endpoints>) -> Result<EventStream<Endpoints>> {
        if !self.passes {
            return next.monitor(watch).await;
        }
        let server: Arc<OnceLock<LinkInfo>> = Arc::clone(watch.server.get_or_insert_default());
        let changes = next.monitor(watch).await?;
        let found = Arc::clone(&self.found);
        let taken = move |change: Result<Change<NetworkServiceEndpoint>>| {
            let (found, server) = (Arc::clone(&found), Arc::clone(&server));
            async move {
                if let Ok(change) = &change {
                    found.take(change, server.get().filter(|link| !link.in_process)).await;
                }
                change
            }
        };
        Ok(changes.then(taken).boxed())
    }

    fn order(&self) -> Order {
        Order { after: &[], before: &["Connect"], last: false }
    }
}

impl fmt::Debug for SendFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SendFd({} found)", self.found.lock().len())
    }
}
