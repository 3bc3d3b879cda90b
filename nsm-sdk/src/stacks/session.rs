use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nsm_api::Connection;
use nsm_chain::{Closed, Result};
use tokio::sync::watch;

use super::Client;
use crate::lifecycle::{Changes, Interface, Reader, Status};

/// A network service that a client has connected to: one connection as long as it is wanted, whatever endpoint, hops and
/// addresses it has in the course of time.
///
/// It is a handle, to be cloned and dropped at will: the connection belongs to the client, which refreshes and heals it
/// until [`Session::close`] or [`Client::shutdown`]. Closing takes its time and may fail, and dropping can neither wait
/// nor tell.
#[derive(Clone)]
pub struct Session {
    id: Arc<str>,
    client: Client,
    status: watch::Receiver<Status>,
}

impl Session {
    pub(super) fn new(id: Arc<str>, client: Client, status: watch::Receiver<Status>) -> Self {
        Self { id, client, status }
    }

    /// The client's id of the connection.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The interface as it is now; while it is down, or when it is gone, as it was last.
    #[must_use]
    pub fn interface(&self) -> Interface {
        self.status.borrow().interface().clone()
    }

    /// The connection as it is now; while it is down, or when it is gone, as it was last.
    #[must_use]
    pub fn current(&self) -> Arc<Connection> {
        Arc::clone(self.status.borrow().interface().connection())
    }

    /// Whether it is up now.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.status.borrow().is_up()
    }

    /// What becomes of it: first what it is now, at last that it is gone. Each call gives a stream of its own.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes::of(Reader::new(self.status.clone()))
    }

    /// Closes it everywhere.
    ///
    /// # Errors
    /// As [`Client::close`].
    pub async fn close(&self, within: Duration) -> Result<Closed> {
        let connection = Connection::clone(&self.current());
        self.client.close(connection, within).await
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({}: {})", self.id, self.interface())
    }
}
