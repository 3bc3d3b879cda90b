//! Tokens that are no good: refused everywhere in the same way, with the reason in the log of who refused and nowhere else.

use std::sync::Arc;
use std::time::Duration;

use nsm_api::connection::monitor_connection_client::MonitorConnectionClient;
use nsm_api::connection::{Connection, MonitorScopeSelector, Path, PathSegment};
use nsm_api::networkservice::NetworkServiceRequest;
use nsm_api::networkservice::network_service_client::NetworkServiceClient;
use nsm_api::registry::network_service_endpoint_registry_client::NetworkServiceEndpointRegistryClient;
use nsm_api::registry::{NetworkServiceEndpoint, NetworkServiceEndpointQuery};
use nsm_chain::{Token, Tokens};
use nsm_sdk::identity::{Es256Tokens, HmacTokens, SvidSource};
use nsm_sdk::roles::Running;
use tonic::{Code, Request, Status};

use crate::kit::{Log, Mesh, Raw};

/// A caller: an identity and its tokens.
pub(crate) struct Caller {
    pub(crate) source: Arc<dyn SvidSource>,
    pub(crate) raw: Raw,
    audience: String,
}

impl Caller {
    pub(crate) async fn new(mesh: &Mesh, name: &str, to: &Running) -> Self {
        let source = mesh.authority.issue(&format!("/{name}")).unwrap();
        let raw = Raw::to(to, Arc::clone(&source)).await;
        Self { source, raw, audience: format!("spiffe://example.org/{}", to.name()) }
    }

    pub(crate) fn token(&self) -> Token {
        self.token_of(Duration::from_secs(600), &self.audience)
    }

    fn token_of(&self, life: Duration, audience: &str) -> Token {
        let tokens = Es256Tokens::new(Arc::clone(&self.source), life);
        tokens.token(Some(&audience.parse().unwrap())).unwrap()
    }

    pub(crate) fn registry(&self) -> NetworkServiceEndpointRegistryClient<Raw> {
        NetworkServiceEndpointRegistryClient::new(self.raw.clone())
    }
}

/// A message with these headers beside it.
pub(crate) fn beside<T>(message: T, token: &str, path: &str) -> Request<T> {
    let mut request = Request::new(message);
    let headers = request.metadata_mut();
    headers.insert("nsm-client-token", token.parse().unwrap());
    headers.insert("nsm-client-token-expires", "2099-01-01T00:00:00+02:00".parse().unwrap());
    headers.insert("path", path.parse().unwrap());
    request
}

pub(crate) fn nse(name: &str) -> NetworkServiceEndpoint {
    NetworkServiceEndpoint {
        name: name.into(),
        network_service_names: vec!["vpn".into()],
        url: "tcp://127.0.0.1:1".into(),
        ..Default::default()
    }
}

pub(crate) const FRESH: &str = r#"{"Index":0,"PathSegments":null}"#;

/// The caller learns that it may not and where; the log, which policy said so.
fn is_refused(status: &Status, log: &Log, policy: &str, token: &str) {
    let told = format!("{status:?}");
    assert_eq!(status.code(), Code::PermissionDenied, "{told}");
    assert!(status.message().contains("no sufficient privileges"), "{told}");
    for secret in ["tokens_", "_signed", "client_allowed", "malformed", "expired"] {
        assert!(!told.contains(secret), "{told} tells {secret}");
    }
    let lines = log.take();
    assert!(lines.contains("WARN") && lines.contains(&format!("policy={policy}")), "{policy}: {lines}");
    assert!(token.len() < 20 || !lines.contains(&token[..20]), "a token in {lines}");
}

#[tokio::test]
async fn a_token_that_is_no_good_is_refused_with_the_rule_in_our_log_only() {
    let mesh = Mesh::start().await;
    let log = Log::default();
    let _listening = log.listen();
    for role in [&mesh.registry, &mesh.manager] {
        let bob = Caller::new(&mesh, "bob", role).await;
        let bobs = bob.token().text.to_string();
        for (number, rule) in [
            "tokens_valid",
            "tokens_valid",
            "tokens_expired",
            "tokens_chained",
            "prev_token_signed",
            "prev_token_signed",
            "prev_token_signed",
        ]
        .into_iter()
        .enumerate()
        {
            // A caller of its own for each: one that is refused again is only counted.
            let alice = Caller::new(&mesh, &format!("alice-{number}"), role).await;
            let good = alice.token().text.to_string();
            let (claims, _) = good.rsplit_once('.').unwrap();
            let (_, bobs_signature) = bobs.rsplit_once('.').unwrap();
            let token = match number {
                0 => String::new(),
                1 => "not.a.token".to_owned(),
                2 => alice.token_of(Duration::ZERO, &alice.audience).text.to_string(),
                3 => alice.token_of(Duration::from_secs(60), "spiffe://example.org/else").text.to_string(),
                4 => format!("{claims}.{bobs_signature}"),
                5 => bobs.clone(),
                _ => {
                    let id = format!("spiffe://example.org/alice-{number}").parse().unwrap();
                    let audience = alice.audience.parse().unwrap();
                    HmacTokens::new(&id).token(Some(&audience)).unwrap().text.to_string()
                }
            };
            let error = alice.registry().register(beside(nse("nse-1"), &token, FRESH)).await.unwrap_err();
            is_refused(&error, &log, rule, &token);
            let error = alice.registry().unregister(beside(nse("nse-1"), &token, FRESH)).await.unwrap_err();
            assert_eq!((error.code(), log.take()), (Code::PermissionDenied, String::new()), "told once");
            if rule != "tokens_chained" {
                // A look has no path: whom the token is for does not matter, only its bearer can show it.
                let seeker = Caller::new(&mesh, &format!("seeker-{number}"), role).await;
                let query = NetworkServiceEndpointQuery::default();
                let token = if number == 2 {
                    seeker.token_of(Duration::ZERO, &seeker.audience).text.to_string()
                } else {
                    token
                };
                let error = seeker.registry().find(beside(query, &token, FRESH)).await.unwrap_err();
                is_refused(&error, &log, rule, &token);
            }
        }
        let alice = Caller::new(&mesh, "alice", role).await;
        let good = alice.token().text.to_string();
        alice.registry().register(beside(nse("nse-1"), &good, FRESH)).await.unwrap();
        alice.registry().find(beside(NetworkServiceEndpointQuery::default(), &good, FRESH)).await.unwrap();
        let error = bob.registry().register(beside(nse("nse-1"), &bobs, FRESH)).await.unwrap_err();
        is_refused(&error, &log, "client_allowed", &bobs);
        // The name of another, under a path that another began: his first token was not made for this caller.
        let stolen = format!(r#"{{"Index":1,"PathSegments":[{{"token":"{good}"}},{{"token":""}}]}}"#);
        let error = bob.registry().register(beside(nse("nse-1"), &bobs, &stolen)).await.unwrap_err();
        is_refused(&error, &log, "tokens_chained", &good);
        alice.registry().unregister(beside(nse("nse-1"), &good, FRESH)).await.unwrap();
    }
}

#[tokio::test]
async fn a_request_with_a_token_that_is_no_good_makes_nothing() {
    let mesh = Mesh::start().await;
    let endpoint = mesh.endpoint("nse-1", Vec::new()).await;
    let log = Log::default();
    let _listening = log.listen();
    for (number, rule) in ["tokens_valid", "tokens_expired", "prev_token_signed"].into_iter().enumerate() {
        let alice = Caller::new(&mesh, &format!("alice-{number}"), &mesh.manager).await;
        let token = match number {
            0 => String::new(),
            1 => alice.token_of(Duration::ZERO, &alice.audience).text.to_string(),
            _ => Caller::new(&mesh, "bob", &mesh.manager).await.token().text.to_string(),
        };
        let segment = PathSegment { name: "nsc".into(), id: "1".into(), ..Default::default() };
        let connection = Connection {
            id: "1".into(),
            network_service: "vpn".into(),
            path: Some(Path { index: 0, path_segments: vec![segment] }),
            ..Default::default()
        };
        let message = NetworkServiceRequest { connection: Some(connection.clone()), mechanism_preferences: Vec::new() };
        let mut client = NetworkServiceClient::new(alice.raw.clone());
        let error = client.request(beside(message, &token, FRESH)).await.unwrap_err();
        is_refused(&error, &log, rule, &token);
        let mut monitor = MonitorConnectionClient::new(alice.raw.clone());
        let selector = beside(MonitorScopeSelector::default(), &token, FRESH);
        let first = monitor.monitor_connections(selector).await.unwrap().into_inner().message().await.unwrap().unwrap();
        assert!(first.connections.is_empty());
    }
    assert_eq!((endpoint.connections(), mesh.forwarder.connections()), (0, 0));
}
