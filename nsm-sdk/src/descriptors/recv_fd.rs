use std::sync::Arc;

use nsm_api::Mechanism;
use nsm_api::mechanism::FileUrl;
use nsm_chain::{Call, Element, Error, FileId, LinkInfo, Next, Order, Result, Slot};

use super::files::{Files, inode_url, named, path_of, rename};
use super::{open, receive};

/// Takes the files that a caller's mechanisms name by descriptor, and gives it ours.
///
/// *Request*: where a mechanism names a file by inode, its descriptor is taken from the link, and the mechanism names it by a path
/// (`file:///proc/<pid>/fd/<n>`) from here on. The path stays the same through refreshes. The answer names it by inode again; a file
/// of ours that the answer names is sent to the caller. The files of mechanisms that were not chosen are closed; a Request that fails
/// leaves those of the established connection as they were. *Close*: the files go with the connection.
///
/// A path that comes over a link from another process is refused: by it a caller could have a namespace opened that it has no right
/// to. Over a link without descriptors (TCP) that is so of an inode, too. Calls from inside the process name files as they like.
///
/// It stands after `Begin` and before whatever opens the files. (It is the reference's `recvfd` and `sendfd` servers in one.)
#[derive(Debug, Default)]
pub struct RecvFd {
    files: Slot<Files>,
}

impl RecvFd {
    /// Keeps nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Element for RecvFd {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let state = Arc::clone(call.state()?);
        let link = call.fact::<LinkInfo>().filter(|link| !link.in_process).cloned();
        let files = self.files.cloned(&state);
        if link.is_none() && files.is_none() {
            return next.request(call).await;
        }
        let (first, mut files) = (call.is_first(), files.unwrap_or_default());
        take(&mut call, &mut files, link.as_ref()).await?;
        let mut call = next.request(call).await?;
        match answer(&mut call, &mut files, link.as_ref()) {
            Ok(()) if files.is_empty() => drop(self.files.take(&state)),
            Ok(()) => drop(self.files.set(&state, files)),
            Err(error) if first => return Err(next.undo(call, error).await),
            Err(error) => return Err(error),
        }
        Ok(call)
    }

    async fn close(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let files = call.slot(&self.files);
        if let (Some(files), Some(mechanism)) = (files, &call.connection().mechanism)
            && let Ok(Some(FileUrl::Inode { device, inode })) = named(mechanism)
            && let id = (FileId { device, inode })
            && let Some(file) = files.get(id)
        {
            let mut mechanism = mechanism.clone();
            rename(&mut mechanism, &FileUrl::Path(path_of(file)));
            // A caller may send it with the Close too.
            if let Some(port) = call.fact::<LinkInfo>().and_then(|link| link.descriptors.clone()) {
                port.release(id);
            }
            call.connection_mut().mechanism = Some(mechanism);
        }
        next.close(call).await
    }

    fn order(&self) -> Order {
        Order { after: &["Begin"], before: &["Mechanisms", "CrossConnect", "SendFd", "Connect"], last: false }
    }
}

/// Has all mechanisms of the call name paths of ours.
async fn take(call: &mut Call, files: &mut Files, link: Option<&LinkInfo>) -> Result<()> {
    let (mut chosen, mut preferences) = (call.connection().mechanism.clone(), std::mem::take(call.extra_mut()));
    let taking = async {
        if let Some(chosen) = &mut chosen {
            take_one(chosen, files, link, true).await?;
        }
        for preference in &mut preferences {
            // With a mechanism chosen, preferences do not matter: of one that is not here the descriptor is not waited for.
            take_one(preference, files, link, chosen.is_none()).await?;
        }
        Ok::<_, Error>(())
    };
    call.patiently(taking).await??;
    *call.extra_mut() = preferences;
    if chosen != call.connection().mechanism {
        call.connection_mut().mechanism = chosen;
    }
    Ok(())
}

async fn take_one(mechanism: &mut Mechanism, files: &mut Files, link: Option<&LinkInfo>, wait: bool) -> Result<()> {
    let id = match (named(mechanism)?, link) {
        (Some(FileUrl::Inode { device, inode }), _) => FileId { device, inode },
        (Some(FileUrl::Path(_)), Some(_)) => {
            return Err(Error::invalid(format!("the {} mechanism names a file by path", shown(mechanism)))
                .hint("between processes a file is passed by descriptor: the caller needs a SendFd element"));
        }
        _ => return Ok(()),
    };
    let came = link.and_then(|link| link.descriptors.as_ref()).and_then(|port| port.take(id));
    let file = match (files.get(id).cloned().or(came), link) {
        (Some(file), _) => file,
        (None, Some(link)) if wait => receive(link, id).await?,
        (None, _) => return Ok(()),
    };
    rename(mechanism, &FileUrl::Path(path_of(&file)));
    files.add(id, file)
}

/// Has the answer's mechanism name its file by inode, and keeps that file only. One of ours is sent to the caller.
fn answer(call: &mut Call, files: &mut Files, link: Option<&LinkInfo>) -> Result<()> {
    let Some(mechanism) = call.connection().mechanism.as_ref() else {
        files.only(None);
        return Ok(());
    };
    let id = match named(mechanism)? {
        Some(FileUrl::Inode { device, inode }) => Some(FileId { device, inode }),
        Some(FileUrl::Path(path)) => match (files.at(&path), link.map(|link| &link.descriptors)) {
            (Some(id), _) => Some(id),
            // It has no meaning at the other end; let it stand for what it is.
            (None, Some(None)) => None,
            (None, port) => {
                let gone = |error| Error::internal(format!("cannot open {}", path.display())).because(error);
                let (id, file) = open(&path).map_err(gone)?;
                match port.and_then(Option::as_ref) {
                    Some(port) => port
                        .send(&[Arc::clone(&file)])
                        .map_err(|congested| Error::exhausted("cannot send a descriptor").because(congested))?,
                    // A Request of our own: the caller has it, if it was sent before.
                    None if files.get(id).is_none() => return Ok(()),
                    None => {}
                }
                files.add(id, file)?;
                Some(id)
            }
        },
        None => None,
    };
    files.only(id);
    if let Some(id) = id
        && let Some(mechanism) = &mut call.connection_mut().mechanism
    {
        rename(mechanism, &inode_url(id));
    }
    Ok(())
}

/// What a peer sent, fit for a message.
fn shown(mechanism: &Mechanism) -> String {
    mechanism.r#type.chars().take(16).flat_map(char::escape_debug).collect()
}
