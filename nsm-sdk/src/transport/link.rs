use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use http::header::{HeaderValue, USER_AGENT};
use http::{Request, Response, Uri};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use nsm_chain::{Peer, SendBeside, Token, TokenError};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use super::body::CallBody;
use super::channels::Lease;
use super::dial::Live;
use super::timeout::grpc_timeout;
use super::{Address, TransportError};

/// The shared connection to a peer: give clones of it to generated clients, in place of tonic's channel.
///
/// - Each call carries `nsm-client-token` and `nsm-client-token-expires` of the connection it leaves on: the audience is the peer of its
///   handshake, the signature that of the certificate shown in it. So a rotation on either side does no harm to calls under way.
/// - A connection found dead is opened again; a call that has not left yet, or that the peer has not touched, goes out on the new one.
/// - A call's `grpc-timeout` holds here as well as at the peer.
/// - Descriptors in a request's extensions ([`SendBeside`]) are sent before it, on the connection it leaves on; over TCP they are not.
/// - A response carries a [`LinkInfo`](nsm_chain::LinkInfo) in its extensions: the link over which this very answer came.
///
/// Held by at least one clone, the link stays in its pool; the last one dropped, it is closed after the idle time.
#[derive(Clone)]
pub struct Link {
    pub(super) lease: Arc<Lease>,
}

impl Link {
    /// Where it leads.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.lease.trunk.dialler.address
    }

    /// The other end, as the latest handshake showed it; none without TLS.
    #[must_use]
    pub fn peer(&self) -> Option<Arc<Peer>> {
        self.lease.trunk.latest().and_then(|live| live.link.peer.clone())
    }

    /// The token that a call would carry now.
    ///
    /// # Errors
    /// [`TokenError`] if there is no SVID to sign with.
    pub fn token(&self) -> Result<Token, TokenError> {
        let tokens = self.lease.trunk.dialler.transport.tokens();
        match self.lease.trunk.latest() {
            Some(live) => live.link.token(&*tokens),
            None => tokens.token(None),
        }
    }

    /// Waits until the connection stands, opening it if need be.
    ///
    /// # Errors
    /// [`TransportError`]: why it does not.
    pub async fn connected(&self) -> Result<(), TransportError> {
        self.lease.trunk.live().await.map(drop)
    }

    async fn send(self, request: Request<Body>) -> Result<Response<ResponseBody>, Status> {
        let dialler = &self.lease.trunk.dialler;
        let (mut head, body) = request.into_parts();
        let mut uri = head.uri.into_parts();
        uri.scheme = Some(dialler.scheme.clone());
        uri.authority = Some(dialler.authority.clone());
        head.uri = Uri::from_parts(uri).map_err(|error| Status::internal(error.to_string()))?;
        head.headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));

        let mut body = CallBody::new(body);
        let mut tries = 0;
        loop {
            tries += 1;
            let live = self.lease.trunk.live().await.map_err(unavailable)?;
            live.stamp(&dialler.transport, &mut head.headers).map_err(unauthenticated)?;
            if let (Some(SendBeside(files)), Some(port)) = (head.extensions.get(), &live.link.descriptors) {
                port.send(files).map_err(|congested| Status::resource_exhausted(congested.to_string()))?;
            }
            let again = body.again();
            let request = Request::from_parts(head.clone(), body);
            let error = match live.sender.clone().try_send_request(request).await {
                Ok(response) => return Ok(Self::received(&live, response)),
                Err(error) => error,
            };
            let unsent = error.message().is_some();
            match again {
                Some(again) if tries < TRIES && (unsent || is_untouched(error.error())) => {
                    self.lease.trunk.retire(&live);
                    body = again;
                }
                _ => return Err(failed(error.into_error())),
            }
        }
    }

    fn received(live: &Live, response: Response<Incoming>) -> Response<ResponseBody> {
        let mut response = response.map(ResponseBody);
        response.extensions_mut().insert(live.link.clone());
        response
    }
}

impl Service<Request<Body>> for Link {
    type Response = Response<ResponseBody>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<ResponseBody>, Status>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let limit = grpc_timeout(request.headers());
        let sending = self.clone().send(request);
        match limit {
            Some(limit) => within(limit, sending).boxed(),
            None => sending.boxed(),
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("address", self.address()).field("peer", &self.peer()).finish()
    }
}

/// The body of an answer; a connection that ends in the middle of it gives `Unavailable`.
#[derive(Debug)]
pub struct ResponseBody(Incoming);

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.0).poll_frame(cx).map_err(failed)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
        Err(Status::deadline_exceeded(format!("no answer within the {limit:?} that the call was given")))
    })
}

fn unavailable(error: TransportError) -> Status {
    let mut status = Status::unavailable(error.to_string());
    status.set_source(Arc::new(error));
    status
}

fn unauthenticated(error: TokenError) -> Status {
    let mut status = Status::unauthenticated(error.to_string());
    status.set_source(Arc::new(error));
    status
}

/// Whether the peer says that it has done nothing about a call: it refused the stream (RFC 9113 §8.7), or was going away when it came
/// (§6.8). Such a call may be sent again, whatever it is.
fn is_untouched(error: &hyper::Error) -> bool {
    h2_error(error).is_some_and(|error| {
        let leaving = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        error.is_remote() && (leaving || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

/// A reset of the stream has a gRPC code; everything else is a connection that ended.
fn failed(error: hyper::Error) -> Status {
    match h2_error(&error) {
        Some(reset) if reset.is_reset() => Status::from_error(Box::new(error)),
        _ => {
            let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            let mut status = Status::unavailable(format!("the connection ended: {why}"));
            status.set_source(Arc::new(error));
            status
        }
    }
}

fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(error).and_then(|source| source.downcast_ref())
}

/// A call that meets this many connections on their way out gives up.
const TRIES: usize = 4;
const AGENT: &str = concat!("nsm/", env!("CARGO_PKG_VERSION"));
