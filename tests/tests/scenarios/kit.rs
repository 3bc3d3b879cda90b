//! What scenarios share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nsm_api::Connection;
use nsm_chain::{Call, Element, Next, Result};
use nsm_sdk::stacks::Client;

/// Long enough for anything that works; a paused clock makes it free.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// Counts what reaches an endpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct Count {
    requests: Arc<AtomicUsize>,
    closes: Arc<AtomicUsize>,
}

impl Count {
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn closes(&self) -> usize {
        self.closes.load(Ordering::SeqCst)
    }
}

impl Element for Count {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        next.request(call).await
    }

    async fn close(&self, call: Call, next: Next<'_>) -> Result<Call> {
        self.closes.fetch_add(1, Ordering::SeqCst);
        next.close(call).await
    }
}

/// Asks for `kernel://service/nsm-1`.
pub(crate) async fn ask(client: &Client, service: &str, id: &str) -> Result<Connection> {
    let url = format!("kernel://{service}/nsm-1").parse().unwrap();
    client.request_url(&url, id, SOON).await
}

/// Waits, on the paused clock, until `done`; fails after ten minutes of it.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..60_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came: {what}");
}

/// The names along a connection's path.
pub(crate) fn names(connection: &Connection) -> Vec<&str> {
    connection.path.iter().flat_map(|path| &path.path_segments).map(|segment| segment.name.as_str()).collect()
}
