use std::os::fd::OwnedFd;
use std::sync::Arc;

use nsm_api::Mechanism;
use nsm_api::mechanism::FileUrl;
use nsm_chain::{Call, Element, Error, FileId, Next, NextHop, Order, Result, SendBeside, ServerLink, Slot};

use super::files::{Files, inode_url, named, path_of, rename};
use super::{open, receive};

/// Sends the files that mechanisms name to the next hop, by descriptor, and takes those that its answer names.
///
/// *Request*: where a mechanism names a file by path, it is opened, its descriptor goes with the call, and the mechanism names it by
/// inode. On the way back the caller finds its own names again. A file of the next hop's that the answer names is taken from the link
/// and kept open as long as the connection; the answer names it by a path of ours, which stays the same through refreshes.
/// *Close*: sends the file again, as the reference does. What was taken goes with the connection.
///
/// Descriptors pass over unix sockets: towards other next hops nothing is changed. A path in an answer from another process is
/// refused, for whoever takes the answer would take it for one of ours.
///
/// It stands behind what chose the next hop and what adds or filters mechanisms. (It is the reference's `sendfd` and `recvfd` clients
/// in one.)
#[derive(Debug, Default)]
pub struct SendFd {
    to: Option<Arc<str>>,
    files: Slot<Files>,
    /// Set for a connection whose next hop takes descriptors: a Close chooses none.
    sends: Slot<()>,
}

/// What goes with a call.
#[derive(Default)]
struct Sent {
    files: Vec<Arc<OwnedFd>>,
    /// Each with the path by which the caller named it.
    names: Vec<(FileId, FileUrl)>,
}

impl SendFd {
    /// Towards the [`NextHop`] of each call.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Towards this URL where no [`NextHop`] says otherwise.
    #[must_use]
    pub fn to(url: impl Into<Arc<str>>) -> Self {
        Self { to: Some(url.into()), ..Self::default() }
    }

    fn passes(&self, call: &Call) -> bool {
        let url = call.fact::<NextHop>().map(|hop| &hop.0).or(self.to.as_ref());
        url.is_some_and(|url| url.starts_with("unix:") || url.starts_with("inode:"))
    }

    /// Takes what the answer names by inode.
    async fn answered(&self, call: &mut Call, sent: &Sent) -> Result<()> {
        let link = call.fact::<ServerLink>().map(|server| server.0.clone()).filter(|link| !link.in_process);
        let (Some(link), Some(mechanism)) = (link, call.connection().mechanism.clone()) else {
            return Ok(());
        };
        let state = Arc::clone(call.state()?);
        let mut files = self.files.cloned(&state).unwrap_or_default();
        let name = match named(&mechanism)? {
            None => {
                files.only(None);
                None
            }
            Some(FileUrl::Path(_)) => {
                return Err(Error::invalid("the next hop names a file by path").hint(
                    "between processes a file is passed by descriptor: the next hop needs a RecvFd (sendfd) element",
                ));
            }
            Some(FileUrl::Inode { device, inode }) => {
                let id = FileId { device, inode };
                // A server may hand back what it was sent.
                let came = link.descriptors.as_ref().and_then(|port| port.take(id));
                let name = sent.names.iter().find(|(known, _)| *known == id).map(|(_, name)| name.clone());
                let name = match name {
                    Some(name) => name,
                    None => {
                        let file = match files.get(id).cloned().or(came) {
                            Some(file) => file,
                            None => call.patiently(receive(&link, id)).await??,
                        };
                        let path = FileUrl::Path(path_of(&file));
                        files.add(id, file)?;
                        path
                    }
                };
                files.only(Some(id));
                Some(name)
            }
        };
        if files.is_empty() {
            self.files.take(&state);
        } else {
            self.files.set(&state, files);
        }
        if let (Some(name), Some(mechanism)) = (name, &mut call.connection_mut().mechanism) {
            rename(mechanism, &name);
        }
        Ok(())
    }
}

impl Sent {
    /// Has the mechanism name its file by inode.
    fn take(&mut self, mechanism: &mut Mechanism) -> Result<()> {
        let Some(name @ FileUrl::Path(_)) = named(mechanism)? else {
            return Ok(());
        };
        let known = self.names.iter().zip(&self.files).find(|((_, known), _)| *known == name);
        let (id, file) = match (known, &name) {
            (Some(((id, _), file)), _) => (*id, Arc::clone(file)),
            (None, FileUrl::Path(path)) => open(path).map_err(|error| {
                Error::precondition(format!("cannot open {}, which a mechanism names", path.display()))
                    .because(error)
                    .hint("the file must be there when the connection is asked for")
            })?,
            (None, FileUrl::Inode { .. }) => return Ok(()),
        };
        rename(mechanism, &inode_url(id));
        // Once for each time that it is named, as the reference sends it.
        self.files.push(file);
        self.names.push((id, name));
        Ok(())
    }

    fn go_with(&self, call: &mut Call) {
        if !self.files.is_empty() {
            call.set_fact(SendBeside(self.files.as_slice().into()));
        }
    }
}

impl Element for SendFd {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let state = Arc::clone(call.state()?);
        if !self.passes(&call) {
            self.sends.take(&state);
            return next.request(call).await;
        }
        self.sends.set(&state, ());
        let (mut sent, first) = (Sent::default(), call.is_first());
        if let Some(mut mechanism) = call.connection().mechanism.clone() {
            sent.take(&mut mechanism)?;
            call.connection_mut().mechanism = Some(mechanism);
        }
        let asked = call.preferences().to_vec();
        for preference in call.extra_mut() {
            sent.take(preference)?;
        }
        sent.go_with(&mut call);
        let mut call = next.request(call).await?;
        *call.extra_mut() = asked;
        match self.answered(&mut call, &sent).await {
            Ok(()) => Ok(call),
            Err(error) if first => Err(next.undo(call, error).await),
            Err(error) => Err(error),
        }
    }

    async fn close(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let asked = call.share();
        if call.slot(&self.sends).is_some()
            && let Some(mut mechanism) = call.connection().mechanism.clone()
        {
            let mut sent = Sent::default();
            // A file that is gone keeps nobody from closing.
            if sent.take(&mut mechanism).is_ok() {
                call.connection_mut().mechanism = Some(mechanism);
                sent.go_with(&mut call);
            }
        }
        let mut call = next.close(call).await?;
        call.set_body(asked);
        Ok(call)
    }

    fn order(&self) -> Order {
        Order { after: &["Begin"], before: &["AuthorizeServer", "Connect"], last: false }
    }
}
