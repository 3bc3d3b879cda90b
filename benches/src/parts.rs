//! Parts of the mesh, measured alone and in process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use nsm_api::registry::NetworkServiceEndpointQuery;
use nsm_api::{Connection, NetworkServiceEndpoint, Path, PathSegment, SpiffeId};
use nsm_chain::{Call, Chain, Element, Node, Token, Tokens, Watch, elements, time};
use nsm_sdk::identity::{HmacTokens, PolicySet};
use nsm_sdk::registry::{Endpoints, Memory};
use nsm_sdk::stacks::{Endpoint, Hop};

/// An element that only calls the next one.
#[derive(Debug, Clone, Copy)]
pub struct Empty;

impl Element for Empty {}

/// A chain of that many elements that only call the next one.
#[must_use]
pub fn empty_chain(count: usize) -> Chain {
    Chain::new("empty", (0..count).map(|_| Node::new(Empty)).collect()).expect("a chain")
}

/// One who asks an endpoint's chain.
#[derive(Debug)]
pub struct Asker {
    chain: Chain,
    asked: Connection,
    token: Token,
}

impl Asker {
    /// An endpoint without elements of its own, and a connection that passed client, manager and forwarder.
    pub async fn new(elements: Vec<Node>) -> Self {
        let id: SpiffeId = "spiffe://test.com/subject".parse().expect("an id");
        let tokens: Arc<dyn Tokens> = Arc::new(HmacTokens::new(&id));
        let token = tokens.token(None).expect("a token");
        let hop = Hop::new("nse", tokens).with_policies(PolicySet::allow_all());
        let segment = |name: &str| PathSegment {
            name: name.into(),
            id: format!("{name}-0b9a-4f6e-8a53-5d9a3a1c6f5e"),
            token: (*token.text).into(),
            expires: Some(token.expires.into()),
            ..Default::default()
        };
        let path_segments = vec![segment("nsc"), segment("nsmgr"), segment("forwarder")];
        let asked = Connection {
            id: path_segments[2].id.clone(),
            network_service: "bench".into(),
            path: Some(Path { index: 2, path_segments }),
            ..Default::default()
        };
        let mut asker = Self { chain: Endpoint::new(&hop, elements).expect("an endpoint").chain, asked, token };
        asker.asked = asker.ask().await;
        asker
    }

    /// One Request of the same connection: a refresh.
    pub async fn ask(&self) -> Connection {
        let call = Call::new(self.asked.clone()).from_peer(None, Some(self.token.clone()));
        self.chain.request(call).await.expect("an answer").into_body()
    }
}

/// A store of endpoints, ten for each service.
#[derive(Debug)]
pub struct Store {
    chain: Chain<Endpoints>,
    services: usize,
    next: AtomicUsize,
}

impl Store {
    /// Holds that many endpoints.
    pub async fn of(endpoints: usize) -> Self {
        let chain = Chain::new("registry", elements![Memory::default()]).expect("a chain");
        let services = endpoints / 10;
        let expires = time::now() + std::time::Duration::from_secs(3600);
        for at in 0..endpoints {
            let record = NetworkServiceEndpoint {
                name: format!("nse-{at}"),
                network_service_names: vec![format!("service-{}", at % services)],
                url: "unix:///run/nse.sock".into(),
                expiration_time: Some(expires.into()),
                ..Default::default()
            };
            chain.request(Call::new(record)).await.expect("a registration");
        }
        Self { chain, services, next: AtomicUsize::new(0) }
    }

    /// Finds the ten endpoints of a service, each time another.
    pub async fn find(&self) -> usize {
        let service = self.next.fetch_add(7919, Ordering::Relaxed) % self.services;
        let pattern =
            NetworkServiceEndpoint { network_service_names: vec![format!("service-{service}")], ..Default::default() };
        let query = NetworkServiceEndpointQuery { network_service_endpoint: Some(pattern), watch: false };
        self.chain.monitor(Watch::new(query)).await.expect("an answer").count().await
    }
}
