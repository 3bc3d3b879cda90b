use std::sync::Arc;

use futures::{StreamExt, future};
use nsm_api::registry::NetworkServiceEndpoint;
use nsm_chain::{Call, Change, Element, Error, EventStream, LinkInfo, Next, Order, Result, Slot, Watch};

use super::Endpoints;
use super::send_fd::inode;
use crate::descriptors::receive;
use crate::transport::HeldSocket;

/// Takes the sockets that endpoints register by descriptor, and gives them to whoever finds the endpoints.
///
/// *Register*: where the URL names a socket by inode, its descriptor is taken from the link and kept while the endpoint is registered;
/// meanwhile that URL leads to it ([`HeldSocket`]). A Register that fails leaves the one that was kept. *Unregister*: it goes with the
/// registration. *Find*: with an endpoint whose socket is held here goes its descriptor. Sockets that were registered by path are
/// passed on as paths: who cannot reach one gets no descriptor of it here.
///
/// It stands in a manager, after `Begin` and before `LocalBypass` and whatever dials the URL. (It is the reference's `recvfd` and
/// `sendfd` servers in one.)
#[derive(Debug, Default)]
pub struct RecvFd {
    socket: Slot<HeldSocket>,
}

impl RecvFd {
    /// Keeps nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// The link, if its other end is another process.
fn from_elsewhere(link: Option<&LinkInfo>) -> Option<&LinkInfo> {
    link.filter(|link| !link.in_process)
}

impl Element<Endpoints> for RecvFd {
    async fn request(&self, call: Call<Endpoints>, next: Next<'_, Endpoints>) -> Result<Call<Endpoints>> {
        let state = Arc::clone(call.state()?);
        let named = inode(&call.body().url);
        let (Some(id), Some(link)) = (named, from_elsewhere(call.fact()).cloned()) else {
            let call = next.request(call).await?;
            if named.is_none() {
                // It is reached by path now.
                self.socket.take(&state);
            }
            return Ok(call);
        };
        let came = link.descriptors.as_ref().and_then(|port| port.take(id));
        let socket = match (self.socket.cloned(&state).filter(|held| held.id() == id), came) {
            (Some(held), _) => held,
            (None, Some(file)) => HeldSocket::hold(id, file),
            (None, None) => HeldSocket::hold(id, call.patiently(receive(&link, id)).await??),
        };
        let call = next.request(call).await?;
        self.socket.set(&state, socket);
        Ok(call)
    }

    async fn close(&self, call: Call<Endpoints>, next: Next<'_, Endpoints>) -> Result<Call<Endpoints>> {
        let port = call.fact::<LinkInfo>().and_then(|link| link.descriptors.clone());
        if let (Some(id), Some(port)) = (inode(&call.body().url), port) {
            // A caller may send it again with this.
            port.release(id);
        }
        next.close(call).await
    }

    async fn monitor(&self, watch: Watch<Endpoints>, next: Next<'_, Endpoints>) -> Result<EventStream<Endpoints>> {
        let Some(link) = from_elsewhere(watch.link.as_ref()).cloned() else {
            return next.monitor(watch).await;
        };
        let found = next.monitor(watch).await?;
        let sent = move |change: Result<_>| {
            future::ready(change.map(|change| send(&link, change)).unwrap_or_else(|error| Some(Err(error))))
        };
        Ok(found.filter_map(sent).boxed())
    }

    fn order(&self) -> Order {
        Order { after: &["Begin"], before: &["OpenAhead", "LocalBypass", "Connect"], last: false }
    }
}

/// The change with its descriptor on the way; none if it names one that is not here: no process could do anything with that.
fn send(link: &LinkInfo, change: Change<NetworkServiceEndpoint>) -> Option<Result<Change<NetworkServiceEndpoint>>> {
    let Some(id) = inode(&change.record.url) else {
        return Some(Ok(change));
    };
    match (HeldSocket::get(id), &link.descriptors) {
        (Some(socket), Some(port)) => Some(match port.send(&[Arc::clone(socket.file())]) {
            Ok(()) => Ok(change),
            Err(congested) => Err(Error::exhausted("cannot send a descriptor").because(congested)),
        }),
        // That it is gone is told all the same; nobody may wait for its descriptor.
        _ if change.deleted => {
            let record = NetworkServiceEndpoint { url: String::new(), ..(*change.record).clone() };
            Some(Ok(Change { record: record.into(), deleted: true }))
        }
        _ => {
            tracing::debug!(endpoint = change.record.name, "its socket cannot be passed to who finds it");
            None
        }
    }
}

#[cfg(test)]
mod tests;
