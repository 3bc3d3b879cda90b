use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use nsm_chain::time;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::UnixTime;
use rustls::server::NoServerSessionStorage;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ConfigBuilder, ConfigSide, ServerConfig, WantsVerifier};

use super::verifier::SpiffeVerifier;
use super::{IdentityError, Svid, SvidSource};

/// Mutual TLS for one identity, both roles, following its rotation.
///
/// A configuration is made once per SVID and shared by every handshake until the next rotation; trust bundles are read
/// anew in each handshake. Both ends show a certificate; the peer's must carry exactly one SPIFFE ID and chain to the bundle
/// of the trust domain named in it. TLS 1.2 at least, ALPN `h2`, ring for cryptography (never the process default).
///
/// Sessions are not resumed: a resumed one shows the certificate of the first handshake, so a peer's tokens would fail
/// against it after a rotation, and an end of trust would go unnoticed. Links are shared and long-lived, handshakes rare.
pub struct TlsConfigs {
    source: Arc<dyn SvidSource>,
    current: Mutex<Option<Arc<TlsGeneration>>>,
}

/// The configurations that show one particular SVID.
#[derive(Debug)]
pub struct TlsGeneration {
    /// What a handshake with these configurations shows.
    pub svid: Arc<Svid>,
    /// For the accepting side.
    pub server: Arc<ServerConfig>,
    /// For the dialling side.
    pub client: Arc<ClientConfig>,
}

impl TlsConfigs {
    /// Follows `source`.
    #[must_use]
    pub fn new(source: Arc<dyn SvidSource>) -> Self {
        Self { source, current: Mutex::new(None) }
    }

    /// The identity behind it.
    #[must_use]
    pub fn source(&self) -> &Arc<dyn SvidSource> {
        &self.source
    }

    /// The configurations for the next handshake.
    ///
    /// # Errors
    /// [`IdentityError::NoSvid`] while the source has none, [`IdentityError::Key`] for a key that TLS refuses.
    pub fn current(&self) -> Result<Arc<TlsGeneration>, IdentityError> {
        let svid = self.source.svid()?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(generation) = current.as_ref().filter(|one| Arc::ptr_eq(&one.svid, &svid)) {
            return Ok(Arc::clone(generation));
        }
        let made = Arc::new(TlsGeneration::new(svid, &self.source).map_err(|error| {
            IdentityError::Key { reason: error.to_string() }
        })?);
        *current = Some(Arc::clone(&made));
        Ok(made)
    }
}

impl fmt::Debug for TlsConfigs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfigs").finish_non_exhaustive()
    }
}

impl TlsGeneration {
    fn new(svid: Arc<Svid>, source: &Arc<dyn SvidSource>) -> Result<Self, rustls::Error> {
        let verifier = Arc::new(SpiffeVerifier::new(Arc::clone(source)));
        let (chain, key) = (svid.chain().to_vec(), svid.key().clone_key());

        let mut server = versions(ServerConfig::builder_with_details(provider(), Arc::new(Clock)))?
            .with_client_cert_verifier(Arc::clone(&verifier) as _)
            .with_single_cert(chain.clone(), key.clone_key().into())?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let mut client = versions(ClientConfig::builder_with_details(provider(), Arc::new(Clock)))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(chain, key.into())?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        client.enable_sni = false;

        Ok(Self { svid, server: Arc::new(server), client: Arc::new(client) })
    }
}

fn versions<S: ConfigSide>(
    builder: ConfigBuilder<S, rustls::WantsVersions>,
) -> Result<ConfigBuilder<S, WantsVerifier>, rustls::Error> {
    builder.with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
}

/// ring, shared by everything of this module.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(ring::default_provider()));
    Arc::clone(&PROVIDER)
}

/// Certificates are judged by the clock that everything else uses.
#[derive(Debug)]
struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        time::now().duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

/// HTTP/2, the only protocol of gRPC.
const ALPN: &[u8] = b"h2";
