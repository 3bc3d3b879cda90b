use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use nsm_chain::grpc::headers::rfc3339;
use nsm_chain::{LinkInfo, TokenError};
use tokio::net::UnixStream;

use super::body::CallBody;
use super::witness::Witness;
use super::{Address, DialOptions, HeldSocket, RawStream, Transport, TransportError, memory, options};
use crate::identity::Svid;

/// Opens connections to one address.
#[derive(Debug)]
pub(super) struct Dialler {
    pub(super) address: Address,
    pub(super) transport: Transport,
    #[cfg_attr(all(test, feature = "shuttle"), allow(dead_code, reason = "as `open`"))]
    pub(super) options: DialOptions,
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
}

/// An open connection on which the peer has begun to speak.
pub(super) struct Live {
    pub(super) sender: SendRequest<CallBody>,
    /// What is known of it: the peer, the descriptors that travel with it.
    pub(super) link: LinkInfo,
    pub(super) shown: Option<Arc<Svid>>,
    stamp: Mutex<Option<Stamp>>,
}

/// A token as headers, made once per token.
struct Stamp {
    token: Arc<str>,
    text: HeaderValue,
    expires: HeaderValue,
}

impl Dialler {
    pub(super) fn new(address: Address, transport: Transport, options: DialOptions) -> Self {
        let scheme = transport.scheme();
        // A path is no authority (RFC 3986 §3.2): peers expect `localhost` on anything but TCP.
        let localhost = || Authority::from_static("localhost");
        let authority = match &address {
            Address::Tcp { host, .. } if host.is_empty() => localhost(),
            Address::Tcp { host, port } if host.contains(':') => {
                format!("[{host}]:{port}").parse().unwrap_or_else(|_| localhost())
            }
            Address::Tcp { host, port } => format!("{host}:{port}").parse().unwrap_or_else(|_| localhost()),
            Address::Unix(_) | Address::Memory(_) | Address::Held(_) => localhost(),
        };
        Self { address, transport, options, scheme, authority }
    }

    #[cfg(all(test, feature = "shuttle"))]
    pub(super) async fn dial(&self) -> Result<Live, TransportError> {
        super::channels::models::dial(self).await
    }

    #[cfg(not(all(test, feature = "shuttle")))]
    pub(super) async fn dial(&self) -> Result<Live, TransportError> {
        let after = self.options.timeout;
        tokio::time::timeout(after, self.open())
            .await
            .unwrap_or_else(|_| Err(TransportError::Timeout { address: self.address.clone(), after }))
    }

    #[cfg_attr(all(test, feature = "shuttle"), allow(dead_code, reason = "in a model the peer is one of its threads"))]
    async fn open(&self) -> Result<Live, TransportError> {
        let tls = |error: io::Error| TransportError::tls(&self.address, &error);
        let stream = self.connect().await?;
        let secured = match self.transport.connect(stream).await {
            Ok(shaken) => shaken.map_err(tls)?,
            Err(source) => {
                return Err(TransportError::Identity { address: self.address.clone(), source });
            }
        };
        let link = secured.link();
        let (stream, first) = Witness::new(secured.stream);
        let closed = |reason: String| TransportError::Closed { address: self.address.clone(), reason };
        let (sender, connection) =
            self.http2().handshake(TokioIo::new(stream)).await.map_err(|error| closed(error.to_string()))?;
        let address = self.address.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, %error, "connection ended");
            }
        });
        match first.await {
            Ok(Ok(())) => Ok(Live::new(sender, link, secured.shown)),
            Ok(Err(error)) => Err(tls(error)),
            Err(_) => Err(closed("it ended at once".to_owned())),
        }
    }

    async fn connect(&self) -> Result<RawStream, TransportError> {
        let failed = |error| TransportError::connect(&self.address, error);
        match &self.address {
            Address::Unix(path) => UnixStream::connect(path).await.map(RawStream::unix).map_err(failed),
            Address::Tcp { host, port } => self.tcp(host, *port).await,
            Address::Memory(name) => memory::connect(name).await.map(RawStream::Memory).map_err(failed),
            Address::Held(id) => {
                let socket = HeldSocket::get(*id).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
                UnixStream::connect(socket.path()).await.map(RawStream::unix).map_err(failed)
            }
        }
    }

    /// Tries each address of the host in turn.
    async fn tcp(&self, host: &str, port: u16) -> Result<RawStream, TransportError> {
        let host = if host.is_empty() { "localhost" } else { host };
        let not_found = || TransportError::NotFound { address: self.address.clone() };
        let mut last = None;
        for address in tokio::net::lookup_host((host, port)).await.map_err(|_| not_found())? {
            match self.options.sockets.tcp_connect(address).await.and_then(RawStream::tcp) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(TransportError::connect(&self.address, error)),
            }
        }
        Err(last.unwrap_or_else(not_found))
    }

    fn http2(&self) -> http2::Builder<TokioExecutor> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(options::STREAM_WINDOW)
            .initial_connection_window_size(options::CONNECTION_WINDOW)
            .max_header_list_size(options::HEADERS);
        if let Some(keep_alive) = self.options.keep_alive {
            builder
                .keep_alive_interval(keep_alive.interval)
                .keep_alive_timeout(keep_alive.timeout)
                .keep_alive_while_idle(true);
        }
        builder
    }
}

impl Live {
    pub(super) fn new(sender: SendRequest<CallBody>, link: LinkInfo, shown: Option<Arc<Svid>>) -> Self {
        Self { sender, link, shown, stamp: Mutex::default() }
    }

    /// Puts the token for this connection onto a call, in place of any other.
    pub(super) fn stamp(&self, transport: &Transport, headers: &mut HeaderMap) -> Result<(), TokenError> {
        let token = self.link.token(&*transport.tokens())?;
        let mut stamp = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = match stamp.take().filter(|stamp| Arc::ptr_eq(&stamp.token, &token.text)) {
            Some(same) => stamp.insert(same),
            None => {
                let unfit = |_| TokenError { reason: "it does not fit into a header".to_owned() };
                let mut text = HeaderValue::from_str(&token.text).map_err(unfit)?;
                text.set_sensitive(true);
                let expires = HeaderValue::from_maybe_shared(Bytes::from(rfc3339(token.expires))).map_err(unfit)?;
                stamp.insert(Stamp { token: token.text, text, expires })
            }
        };
        headers.insert("nsm-client-token", stamp.text.clone());
        headers.insert("nsm-client-token-expires", stamp.expires.clone());
        Ok(())
    }

    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("link", &self.link).finish_non_exhaustive()
    }
}
