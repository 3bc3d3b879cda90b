use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use nsm_api::Connection;
use nsm_mechanisms::KernelLiveness;

use crate::lifetime::Liveness;

/// Pings through the connection's own interface.
impl Liveness for KernelLiveness {
    fn alive<'a>(&'a self, connection: &'a Connection, within: Duration) -> BoxFuture<'a, bool> {
        self.is_alive(connection, within).boxed()
    }
}
