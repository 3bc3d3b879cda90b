//! A connection that a pod wants: asked for until it is there, and closed when it is wanted no more.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nsm_api::ServiceUrl;
use nsm_sdk::lifetime::Backoff;
use nsm_sdk::stacks::{Client, Session};
use tokio::task::JoinHandle;

use super::mesh::Mesh;
use super::view::{State, Wire};
use crate::failure::Failure;

/// How long one try may take before it is said why it does not work.
const TRYING: Duration = Duration::from_secs(10);
/// How long closing may take.
const CLOSING: Duration = Duration::from_secs(10);

/// What keeps a connection wanted.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) url: ServiceUrl,
    id: String,
    client: Client,
    /// Why the last try failed, until one does not.
    failed: Arc<Mutex<Option<Failure>>>,
    asking: JoinHandle<()>,
}

impl Keeper {
    /// Begins to ask, with these labels.
    pub(super) fn start(client: &Client, id: String, url: &ServiceUrl, labels: Labels) -> Self {
        let failed = Arc::new(Mutex::new(None));
        let asking = ask(client.clone(), id.clone(), url.clone(), labels, Arc::clone(&failed));
        Self { url: url.clone(), id, client: client.clone(), failed, asking: tokio::spawn(asking) }
    }

    /// The connection, once it is there.
    pub(super) fn session(&self) -> Option<Session> {
        self.client.session(&self.id)
    }

    /// Whether it is there, and packets may be sent.
    pub(super) fn is_up(&self) -> bool {
        self.session().is_some_and(|session| session.is_up())
    }

    /// Why it is not there.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How it looks, or what it will be.
    pub(super) fn view(&self, pod: &str, mesh: &Mesh) -> Wire {
        let planned = Wire::planned(pod, &self.url, mesh);
        match self.session() {
            Some(session) => {
                let interface = session.interface();
                let endpoints = interface.hops().filter(|hop| mesh.endpoints.contains_key(*hop));
                let onward = endpoints.skip(1).map(str::to_owned).collect();
                Wire { onward, ..Wire::made(pod, &self.url, &session) }
            }
            None => {
                let why = self.failure().map(|failure| failure.cause).unwrap_or_default();
                Wire { state: State::Waiting(why), ..planned }
            }
        }
    }

    /// Asks no more, and closes what there is.
    pub(super) async fn close(self) -> Result<(), Failure> {
        self.asking.abort();
        let Some(session) = self.session() else { return Ok(()) };
        let closed = session.close(CLOSING).await;
        closed.map(drop).map_err(|error| Failure::of(&self.id, &error))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.asking.abort();
    }
}

type Labels = std::collections::BTreeMap<String, String>;

async fn ask(client: Client, id: String, url: ServiceUrl, labels: Labels, failed: Arc<Mutex<Option<Failure>>>) {
    let mut pauses = Backoff::of(Duration::from_millis(200), Duration::from_secs(5), &id);
    loop {
        pauses.wait().await;
        let mut request = url.to_request(&*id);
        if let Some(connection) = &mut request.connection {
            connection.labels.clone_from(&labels);
        }
        let outcome = client.request(request, TRYING).await.err().map(|error| Failure::of(&id, &error));
        let there = outcome.is_none();
        *failed.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
        if there {
            return;
        }
    }
}
