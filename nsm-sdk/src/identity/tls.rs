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
        let made = Arc::new(
            TlsGeneration::new(svid, &self.source).map_err(|error| IdentityError::Key { reason: error.to_string() })?,
        );
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
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::{CertificateError, ClientConnection, ServerConnection};

    use super::*;
    use crate::identity::{Bundles, DevAuthority, FixedSvid, peer_of};

    /// A whole handshake in memory: what each side ends with.
    fn handshake(
        client: &TlsConfigs,
        server: &TlsConfigs,
    ) -> (Result<ClientConnection, rustls::Error>, Result<ServerConnection, rustls::Error>) {
        let mut client =
            ClientConnection::new(Arc::clone(&client.current().unwrap().client), "localhost".try_into().unwrap())
                .unwrap();
        let mut server = ServerConnection::new(Arc::clone(&server.current().unwrap().server)).unwrap();
        let (mut client_end, mut server_end) = (Ok(()), Ok(()));
        for _ in 0..4 {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server_end = server_end.and(server.process_new_packets().map(drop));
            let mut bytes = Vec::new();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client_end = client_end.and(client.process_new_packets().map(drop));
        }
        (client_end.map(|()| client), server_end.map(|()| server))
    }

    fn reason(error: rustls::Error) -> IdentityError {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
                other.0.downcast_ref::<IdentityError>().unwrap().clone()
            }
            other => panic!("{other:?}"),
        }
    }

    fn configs(authority: &DevAuthority, path: &str) -> TlsConfigs {
        TlsConfigs::new(authority.issue(path).unwrap())
    }

    #[test]
    fn both_sides_learn_who_the_other_is() {
        let authority = DevAuthority::new("example.org").unwrap();
        let (client, server) = handshake(&configs(&authority, "/client"), &configs(&authority, "/server"));
        let (client, server) = (client.unwrap(), server.unwrap());
        assert_eq!(peer_of(client.peer_certificates().unwrap()).unwrap().id.path(), "/server");
        assert_eq!(peer_of(server.peer_certificates().unwrap()).unwrap().id.path(), "/client");
        assert_eq!(client.alpn_protocol(), Some(b"h2".as_slice()));
        assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    }

    #[test]
    fn a_rotation_makes_new_configurations_once() {
        let authority = DevAuthority::new("example.org").unwrap();
        let configs = configs(&authority, "/a");
        let first = configs.current().unwrap();
        assert!(Arc::ptr_eq(&first, &configs.current().unwrap()));
        authority.rotate().unwrap();
        let second = configs.current().unwrap();
        assert!(!Arc::ptr_eq(&first.svid, &second.svid));
        assert!(Arc::ptr_eq(&second, &configs.current().unwrap()));
    }

    #[test]
    fn a_foreign_trust_domain_is_refused_until_it_is_trusted() {
        let ours = DevAuthority::new("ours.org").unwrap();
        let theirs = DevAuthority::new("theirs.org").unwrap();
        let (client, server) = (configs(&ours, "/client"), configs(&theirs, "/server"));
        let error = reason(handshake(&client, &server).0.err().unwrap());
        assert!(matches!(error, IdentityError::WrongTrustDomain { .. }), "{error}");
        ours.trust(&theirs).unwrap();
        let error = reason(handshake(&client, &server).1.err().unwrap());
        assert!(matches!(error, IdentityError::WrongTrustDomain { .. }), "{error}");
        theirs.trust(&ours).unwrap();
        assert!(matches!(handshake(&client, &server), (Ok(_), Ok(_))));
    }

    #[test]
    fn one_trusted_domain_cannot_speak_for_another() {
        let ours = DevAuthority::new("ours.org").unwrap();
        let impostor = DevAuthority::new("ours.org").unwrap();
        let bundles =
            Bundles::clone(&ours.bundles()).with("theirs.org", impostor.bundles().roots("ours.org").to_vec()).unwrap();
        let fixed = FixedSvid::new(ours.sign("/client", Duration::from_secs(60)).unwrap(), bundles);
        let (client, server) = handshake(&TlsConfigs::new(Arc::new(fixed)), &configs(&impostor, "/server"));
        let error = reason(client.err().unwrap());
        assert!(matches!(error, IdentityError::NotTrusted { .. }), "{error}");
        assert!(server.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_certificate_is_refused_on_both_sides() {
        let authority = DevAuthority::new("example.org").unwrap();
        let fixed = FixedSvid::new(
            authority.sign("/old", Duration::from_secs(60)).unwrap(),
            Bundles::clone(&authority.bundles()),
        );
        let (old, good) = (TlsConfigs::new(Arc::new(fixed)), configs(&authority, "/good"));
        assert!(matches!(handshake(&good, &old), (Ok(_), Ok(_))));
        tokio::time::advance(Duration::from_secs(62)).await;
        let error = reason(handshake(&good, &old).0.err().unwrap());
        assert!(matches!(&error, IdentityError::Expired { id, .. } if id.path() == "/old"), "{error}");
        let error = reason(handshake(&old, &good).1.err().unwrap());
        assert!(matches!(error, IdentityError::Expired { .. }), "{error}");
    }
}
