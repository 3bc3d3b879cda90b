use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use nsm_chain::{LinkInfo, Peer, Tokens, time};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::{RawStream, Stream};
use crate::identity::{Es256Tokens, IdentityError, Svid, SvidSource, TlsConfigs, peer_of};

/// The security of all links of a process, both directions, and the tokens that travel on them.
///
/// ```
/// use std::time::Duration;
/// use nsm_sdk::identity::DevAuthority;
/// use nsm_sdk::transport::Transport;
///
/// let authority = DevAuthority::new("example.org")?;
/// let transport = Transport::mtls(authority.issue("/manager")?, Duration::from_secs(600));
/// assert!(transport.source().is_some());
/// # Ok::<(), nsm_sdk::identity::IdentityError>(())
/// ```
#[derive(Clone)]
pub struct Transport {
    security: Security,
}

#[derive(Clone)]
enum Security {
    Insecure(Arc<dyn Tokens>),
    Mtls { configs: Arc<TlsConfigs>, tokens: Arc<Es256Tokens> },
}

/// A stream after the handshake, and who is at its other end.
pub struct Secured {
    /// The bytes.
    pub stream: Stream,
    /// The other end; none without TLS.
    pub peer: Option<Arc<Peer>>,
    /// What we have shown to it; none without TLS.
    pub shown: Option<Arc<Svid>>,
    /// Makes the tokens for it: signed with what we have shown. None without TLS.
    pub tokens: Option<Arc<dyn Tokens>>,
}

impl Transport {
    /// Links without identity and privacy: for tests and benchmarks. `tokens` travel all the same.
    #[must_use]
    pub fn insecure(tokens: Arc<dyn Tokens>) -> Self {
        Self { security: Security::Insecure(tokens) }
    }

    /// Mutual TLS with the identity of `source`; a path token lives `max_token_lifetime` at most.
    #[must_use]
    pub fn mtls(source: Arc<dyn SvidSource>, max_token_lifetime: Duration) -> Self {
        let configs = Arc::new(TlsConfigs::new(Arc::clone(&source)));
        let tokens = Arc::new(Es256Tokens::new(source, max_token_lifetime));
        Self { security: Security::Mtls { configs, tokens } }
    }

    /// What makes the tokens of this process.
    #[must_use]
    pub fn tokens(&self) -> Arc<dyn Tokens> {
        match &self.security {
            Security::Insecure(tokens) => Arc::clone(tokens),
            Security::Mtls { tokens, .. } => Arc::clone(tokens) as _,
        }
    }

    /// The identity of this process; none without TLS.
    #[must_use]
    pub fn source(&self) -> Option<&Arc<dyn SvidSource>> {
        match &self.security {
            Security::Insecure(_) => None,
            Security::Mtls { configs, .. } => Some(configs.source()),
        }
    }

    /// Whether a link that has shown `shown` is of the present identity.
    pub(super) fn is_current(&self, shown: Option<&Arc<Svid>>) -> bool {
        match (self.source().map(|source| source.svid()), shown) {
            (Some(Ok(now)), Some(shown)) => Arc::ptr_eq(&now, shown),
            // Without an identity there is nothing to rotate; without a present one the old is the best there is.
            _ => true,
        }
    }

    /// The scheme of requests.
    pub(super) fn scheme(&self) -> http::uri::Scheme {
        match &self.security {
            Security::Insecure(_) => http::uri::Scheme::HTTP,
            Security::Mtls { .. } => http::uri::Scheme::HTTPS,
        }
    }

    /// The dialling side of a handshake.
    ///
    /// # Errors
    /// [`IdentityError`] (outer) if we have nothing to show, an I/O error with the TLS reason inside if the handshake fails.
    pub(super) async fn connect(&self, stream: RawStream) -> Result<io::Result<Secured>, IdentityError> {
        let Security::Mtls { configs, tokens } = &self.security else {
            return Ok(Ok(Secured::plain(stream)));
        };
        let generation = configs.current()?;
        let svid = &generation.svid;
        if svid.not_after() <= time::now() {
            return Err(IdentityError::expired(svid.id().clone(), svid.not_after()));
        }
        let name = ServerName::try_from("localhost")
            .map_err(|error| IdentityError::Malformed { reason: error.to_string() })?;
        let connected = TlsConnector::from(Arc::clone(&generation.client)).connect(name, stream).await;
        Ok(connected.and_then(|tls| Secured::tls(tls.into(), svid, tokens.signed_with(svid))))
    }

    /// The accepting side of a handshake.
    ///
    /// # Errors
    /// An I/O error, with the TLS or identity reason inside. The peer has been told then.
    pub(super) async fn accept(&self, stream: RawStream) -> io::Result<Secured> {
        let Security::Mtls { configs, tokens } = &self.security else {
            return Ok(Secured::plain(stream));
        };
        let generation = configs.current().map_err(io::Error::other)?;
        let accepting = TlsAcceptor::from(Arc::clone(&generation.server)).accept(stream).into_fallible();
        match accepting.await {
            Ok(tls) => Secured::tls(tls.into(), &generation.svid, tokens.signed_with(&generation.svid)),
            Err((error, stream)) => {
                linger(stream).await;
                Err(error)
            }
        }
    }
}

impl Secured {
    fn plain(stream: RawStream) -> Self {
        Self { stream: Stream::Plain(stream), peer: None, shown: None, tokens: None }
    }

    /// What elements and the gRPC border learn of it.
    pub(super) fn link(&self) -> LinkInfo {
        self.stream.link(self.peer.clone(), self.tokens.clone())
    }

    fn tls(stream: TlsStream<RawStream>, shown: &Arc<Svid>, tokens: Arc<dyn Tokens>) -> io::Result<Self> {
        let certificates: &[CertificateDer<'_>] = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let peer = Arc::new(peer_of(certificates).map_err(io::Error::other)?);
        Ok(Self {
            stream: Stream::Tls(Box::new(stream)),
            peer: Some(peer),
            shown: Some(Arc::clone(shown)),
            tokens: Some(tokens),
        })
    }
}

/// Reads what a refused peer still sends: closing with unread bytes would reset the connection, and the alert that tells the
/// peer why would be lost. Ends with the peer, or with the time-out of the handshake around it.
async fn linger(mut stream: RawStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut ignored = [0; 4096];
    for _ in 0..MAX_LINGER_READS {
        if !matches!(stream.read(&mut ignored).await, Ok(1..)) {
            break;
        }
    }
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured").field("peer", &self.peer).field("shown", &self.shown).finish_non_exhaustive()
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.security {
            Security::Insecure(_) => "Transport(insecure)",
            Security::Mtls { .. } => "Transport(mtls)",
        })
    }
}

const MAX_LINGER_READS: usize = 64;
