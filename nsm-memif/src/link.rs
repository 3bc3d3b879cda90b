use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::control::Control;
use crate::protocol::Message;
use crate::{Closed, Error, Result, Violation};

/// What all queues of an interface share: whether it is up. With the last one the interface ends.
#[derive(Debug)]
pub(crate) struct Link {
    state: Arc<State>,
    watch: AbortHandle,
    _busy: Option<Arc<()>>,
}

#[derive(Debug)]
struct State {
    control: Control,
    closed: OnceLock<Closed>,
    changed: Notify,
}

impl Link {
    /// Watches the socket from now on. Keeps `busy` as long as it lives.
    pub(crate) fn new(control: Control, busy: Option<Arc<()>>) -> Self {
        let state = Arc::new(State { control, closed: OnceLock::new(), changed: Notify::new() });
        let watch = tokio::spawn(Arc::clone(&state).watch()).abort_handle();
        Self { state, watch, _busy: busy }
    }

    /// Says something to the peer.
    pub(crate) async fn send(&self, message: &Message) -> Result<()> {
        self.state.control.send(message, None).await
    }

    /// Why it is closed, if it is. Costs nothing while it is not.
    pub(crate) fn closed(&self) -> Option<&Closed> {
        self.state.closed.get()
    }

    /// Returns once it is closed.
    pub(crate) async fn until_closed(&self) -> Closed {
        loop {
            let mut changed = std::pin::pin!(self.state.changed.notified());
            changed.as_mut().enable();
            if let Some(closed) = self.closed() {
                return closed.clone();
            }
            changed.await;
        }
    }

    /// The peer broke the protocol: closes the interface, and says so at both ends.
    pub(crate) fn violated(&self, violation: Violation) -> Error {
        self.state.close(Closed::Violation(violation.clone()));
        Error::Violation(violation)
    }

    pub(crate) fn close(&self) {
        self.state.close(Closed::ByUs);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
        self.watch.abort();
    }
}

impl State {
    async fn watch(self: Arc<Self>) {
        let why = match self.control.receive().await {
            Ok((Message::Disconnect { reason, .. }, _)) => Closed::ByPeer(reason),
            Ok((message, _)) => Closed::Violation(Violation::OutOfTurn { got: message.name(), expected: "DISCONNECT" }),
            Err(Error::Violation(violation)) => Closed::Violation(violation),
            Err(_) => Closed::PeerGone,
        };
        self.close(why);
    }

    /// The first reason stays.
    fn close(&self, why: Closed) {
        let mut first = false;
        let why = self.closed.get_or_init(|| {
            first = true;
            why
        });
        if first {
            tracing::debug!(%why, "a memif interface is closed");
            match why {
                Closed::ByUs => self.control.disconnect(&"closed"),
                Closed::Violation(violation) => self.control.disconnect(violation),
                Closed::ByPeer(_) | Closed::PeerGone => {}
            }
            self.changed.notify_waiters();
        }
    }
}
