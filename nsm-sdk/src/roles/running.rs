use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use nsm_chain::{Begin, Error, Result};

use crate::registry::stacks::RegistryClient;
use crate::transport::{Address, ServerHandle};

/// A role that serves. Dropping it stops it at once, as a crash would; [`Running::shutdown`] leaves in order.
#[derive(Debug)]
pub struct Running {
    name: String,
    server: ServerHandle,
    registrations: Option<RegistryClient>,
    connections: Option<Arc<Begin>>,
    passing: Option<Arc<Begin>>,
}

/// How long each step of a shutdown may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many connections are closed at the same time.
const AT_ONCE: usize = 64;

impl Running {
    pub(super) fn new(name: &str, server: ServerHandle) -> Self {
        Self { name: name.to_owned(), server, registrations: None, connections: None, passing: None }
    }

    /// Is unregistered before it stops.
    pub(super) fn registered(mut self, registrations: RegistryClient) -> Self {
        self.registrations = Some(registrations);
        self
    }

    /// Closes these before it stops.
    pub(super) fn owning(mut self, connections: Arc<Begin>) -> Self {
        self.connections = Some(connections);
        self
    }

    /// These go through it; others own them.
    pub(super) fn passed_by(mut self, connections: Arc<Begin>) -> Self {
        self.passing = Some(connections);
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens, with real ports.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        self.server.addresses()
    }

    /// Where it listens first.
    #[must_use]
    pub fn url(&self) -> String {
        self.addresses().first().map(ToString::to_string).unwrap_or_default()
    }

    /// How many connections it owns now; a role that owns none says none.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.as_ref().map_or(0, |begin| begin.handles().len())
    }

    /// How many connections of others go through it now: a manager's, a manager proxy's.
    #[must_use]
    pub fn passing(&self) -> usize {
        self.passing.as_ref().map_or(0, |begin| begin.handles().len())
    }

    /// Stays registered when it leaves, until that expires: for a role that is about to come back. To be called right
    /// before [`shutdown`](Self::shutdown), because what is registered is no longer refreshed.
    #[must_use]
    pub fn staying_registered(mut self) -> Self {
        self.registrations = None;
        self
    }

    /// Leaves in order: takes itself out of the registry, closes what it owns, lets calls finish, removes its sockets.
    ///
    /// # Errors
    /// What could not be undone; it has stopped all the same.
    pub async fn shutdown(self) -> Result<()> {
        let mut failed = Vec::new();
        if let Some(registrations) = &self.registrations {
            let done = tokio::time::timeout(PATIENCE, registrations.unregister_all()).await;
            failed.extend(done.unwrap_or_else(|_| Err(Error::deadline("unregistering took too long"))).err());
        }
        if let Some(connections) = &self.connections {
            let closing = connections.handles().into_iter().map(|handle| async move {
                let closed = tokio::time::timeout(PATIENCE, handle.close()).await;
                closed.unwrap_or_else(|_| Err(Error::deadline(format!("closing {} took too long", handle.key())))).err()
            });
            failed.extend(
                stream::iter(closing)
                    .buffer_unordered(AT_ONCE)
                    .filter_map(std::future::ready)
                    .collect::<Vec<_>>()
                    .await,
            );
        }
        self.server.shutdown().await;
        match <[Error; 1]>::try_from(failed) {
            Ok([only]) => Err(only),
            Err(failed) if failed.is_empty() => Ok(()),
            Err(failed) => Err(Error::all_failed(format!("{} left something behind", self.name), failed)),
        }
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.server)
    }
}
