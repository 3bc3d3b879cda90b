use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use super::ending::Ending;
use super::parting::Parting;
use super::server::Phase;
use super::{Listener, RawStream, Secured, ServeOptions, Services, Transport, options};

/// What all connections of a server share.
#[derive(Debug)]
pub(super) struct Acceptor {
    pub(super) transport: Transport,
    pub(super) services: Services,
    pub(super) options: ServeOptions,
    pub(super) handshakes: Arc<Semaphore>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) tasks: TaskTracker,
}

impl Acceptor {
    /// Accepts until the server stops, then closes the listener. Handshakes run beside, so that a peer that stalls holds up no other.
    pub(super) async fn run(self: Arc<Self>, mut listener: Listener) {
        let mut phase = self.phase.clone();
        let mut stopping = pin!(phase.wait_for(|phase| phase.is_stopping()));
        loop {
            let next = async {
                // The semaphore is never closed; if it were, nothing would be accepted.
                let permit = Arc::clone(&self.handshakes).acquire_owned().await.ok();
                (permit, listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                biased;
                _ = &mut stopping => return,
                next = next => next,
            };
            match accepted {
                Ok(stream) => {
                    let acceptor = Arc::clone(&self);
                    self.tasks.spawn(async move {
                        let secured = acceptor.handshake(stream).await;
                        drop(permit);
                        if let Some(secured) = secured {
                            acceptor.serve(secured).await;
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(address = %listener.address(), %error, "cannot accept a connection");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    async fn handshake(&self, stream: RawStream) -> Option<Secured> {
        let mut phase = self.phase.clone();
        let accepting = tokio::time::timeout(self.options.handshake_timeout, self.transport.accept(stream));
        tokio::select! {
            _ = phase.wait_for(|phase| phase.is_stopping()) => None,
            accepted = accepting => match accepted {
                Ok(Ok(secured)) => Some(secured),
                Ok(Err(error)) => {
                    tracing::info!(%error, "refused a peer in the handshake");
                    None
                }
                Err(_) => {
                    tracing::info!("a peer did not finish its handshake in time");
                    None
                }
            },
        }
    }

    /// Serves one connection until the peer leaves, the server stops, or the SVID that it was shown is rotated away: then the peer is
    /// told to open a new one (GOAWAY), and what is under way on this one ends in peace.
    async fn serve(&self, secured: Secured) {
        let link = secured.link();
        let services = self.services.clone();
        let phase = self.phase.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(link.clone());
            let (answer, phase) = (services.call(request), phase.clone());
            async move {
                let response: Response<Ending> = answer.await.map(|body| Ending::new(body, phase));
                Ok::<_, Infallible>(response)
            }
        });
        let mut connection = pin!(self.http2().serve_connection(TokioIo::new(Parting::new(secured.stream)), service));
        let mut phase = self.phase.clone();
        let leave = |phase: &Phase| phase.is_stopping() || !self.transport.is_current(secured.shown.as_ref());
        tokio::select! {
            ended = &mut connection => return log(ended),
            _ = phase.wait_for(leave) => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            ended = &mut connection => log(ended),
            _ = phase.wait_for(|phase| *phase == Phase::Killed) => {}
        }
    }

    fn http2(&self) -> http2::Builder<TokioExecutor> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .initial_stream_window_size(options::STREAM_WINDOW)
            .initial_connection_window_size(options::CONNECTION_WINDOW)
            .max_concurrent_streams(options::STREAMS)
            .max_header_list_size(options::HEADERS);
        if let Some(keep_alive) = self.options.keep_alive {
            builder.keep_alive_interval(keep_alive.interval).keep_alive_timeout(keep_alive.timeout);
        }
        builder
    }
}

fn log(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

/// So that running out of descriptors does not become a busy loop.
const AFTER_FAILURE: Duration = Duration::from_millis(50);
