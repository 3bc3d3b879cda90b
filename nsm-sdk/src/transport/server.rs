use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::Service;

use super::accept::Acceptor;
use super::{Address, BindOptions, Listener, ServeOptions, Services, Transport, TransportError};

/// A gRPC server in the making: services, and how they are served.
///
/// A health service (`grpc.health.v1.Health`) tells `SERVING` for each of them and for the server as a whole.
#[derive(Debug)]
pub struct Server {
    transport: Transport,
    services: Services,
    options: ServeOptions,
}

/// A running server. Dropping it stops the server at once; [`ServerHandle::shutdown`] lets calls finish.
#[derive(Debug)]
pub struct ServerHandle {
    addresses: Vec<Address>,
    phase: watch::Sender<Phase>,
    tasks: TaskTracker,
    grace: std::time::Duration,
}

/// How far the life of a server has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It serves; the number counts changes of its identity.
    Serving(u64),
    /// Nothing new is accepted, streams are ended, calls may finish.
    Stopping,
    /// Everything is dropped.
    Killed,
}

impl Phase {
    pub(super) fn is_stopping(self) -> bool {
        !matches!(self, Self::Serving(_))
    }
}

impl Server {
    /// No services yet.
    #[must_use]
    pub fn new(transport: Transport) -> Self {
        Self { transport, services: Services::default(), options: ServeOptions::default() }
    }

    /// Serves one more: a generated server, or one in tower layers.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
    {
        self.services = self.services.with(service);
        self
    }

    /// In place of the defaults.
    #[must_use]
    pub fn with_options(mut self, options: ServeOptions) -> Self {
        self.options = options;
        self
    }

    /// Listens on all `addresses` and serves.
    ///
    /// # Errors
    /// [`TransportError`] of the first address that cannot be listened on; nothing is served then.
    pub async fn bind(self, addresses: &[Address], options: &BindOptions) -> Result<ServerHandle, TransportError> {
        let mut listeners = Vec::with_capacity(addresses.len());
        for address in addresses {
            listeners.push(Listener::bind(address, options).await?);
        }
        Ok(self.serve(listeners).await)
    }

    /// Serves on `listeners`.
    pub async fn serve(self, listeners: Vec<Listener>) -> ServerHandle {
        let health = HealthReporter::new();
        for name in self.services.names() {
            health.set_service_status(name, ServingStatus::Serving).await;
        }
        health.set_service_status("", ServingStatus::Serving).await;
        let health = tonic_health::server::HealthService::from_health_reporter(health);
        let health = tonic_health::pb::health_server::HealthServer::new(health);

        let (phase, tasks) = (watch::Sender::new(Phase::Serving(0)), TaskTracker::new());
        let acceptor = Arc::new(Acceptor {
            handshakes: Arc::new(Semaphore::new(self.options.handshakes.clamp(1, Semaphore::MAX_PERMITS))),
            transport: self.transport,
            services: self.services.with(health),
            phase: phase.subscribe(),
            tasks: tasks.clone(),
            options: self.options,
        });
        let addresses = listeners.iter().map(|listener| listener.address().clone()).collect();
        for listener in listeners {
            tasks.spawn(Arc::clone(&acceptor).run(listener));
        }
        if let Some(source) = acceptor.transport.source() {
            tasks.spawn(follow(source.changed(), phase.clone()));
        }
        tasks.close();
        ServerHandle { addresses, phase, tasks, grace: acceptor.options.grace }
    }
}

impl ServerHandle {
    /// Where it listens, in the order asked for, with the real ports.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Stops: nothing new is accepted, sockets are removed, streams end with `Unavailable`, calls in flight may finish within the
    /// grace of [`ServeOptions`]; what is left then is dropped. Returns when nothing of the server runs any more.
    pub async fn shutdown(self) {
        self.phase.send_replace(Phase::Stopping);
        if tokio::time::timeout(self.grace, self.tasks.wait()).await.is_err() {
            tracing::warn!(grace = ?self.grace, "calls did not finish in time and are dropped");
            self.phase.send_replace(Phase::Killed);
            self.tasks.wait().await;
        }
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Killed);
    }
}

/// Tells the connections when the identity changes.
async fn follow(mut changed: watch::Receiver<u64>, phase: watch::Sender<Phase>) {
    let mut ending = phase.subscribe();
    loop {
        tokio::select! {
            _ = ending.wait_for(|phase| phase.is_stopping()) => return,
            change = changed.changed() => match change {
                Ok(()) => phase.send_modify(|phase| {
                    if let Phase::Serving(changes) = phase {
                        *changes += 1;
                    }
                }),
                // The source is gone and will change no more.
                Err(_) => return,
            },
        }
    }
}

impl fmt::Display for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.addresses.iter().enumerate() {
            write!(f, "{}{address}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
