//! Whole hops on top of links.

use nsm_api::registry::network_service_endpoint_registry_server::NetworkServiceEndpointRegistryServer;
use nsm_chain::{Begin, Call, Chain, Node, OwnedNext, Protocol, RegistryPath, elements, from_fn, grpc};

use super::*;
use crate::connect::Connect;
use crate::identity::PolicySet;
use crate::path::{UpdatePath, UpdateToken};
use crate::registry::{AuthorizeRegistry, AuthorizeRegistryServer, Endpoints, Memory, UpdateRegistryPath};
use crate::security::{Authorize, AuthorizeServer};

/// Rotates every identity when a call comes by.
fn rotating<P: Protocol>(authority: &DevAuthority) -> Node<P> {
    let authority = authority.clone();
    Node::new(from_fn(move |call: Call<P>, next: OwnedNext<P>| {
        authority.rotate().unwrap();
        async move { next.request(call).await }
    }))
}

async fn serve(transport: &Transport, chain: Chain) -> (Address, ServerHandle) {
    let server = Server::new(transport.clone()).with(NetworkServiceServer::new(grpc::Server::new(chain)));
    let address = memory();
    let handle = server.bind(std::slice::from_ref(&address), &BindOptions::default()).await.unwrap();
    (address, handle)
}

async fn serve_registry(transport: &Transport, chain: Chain<Endpoints>) -> (Address, ServerHandle) {
    let server =
        Server::new(transport.clone()).with(NetworkServiceEndpointRegistryServer::new(grpc::Server::new(chain)));
    let address = memory();
    let handle = server.bind(std::slice::from_ref(&address), &BindOptions::default()).await.unwrap();
    (address, handle)
}

/// A manager answers over the old connection what it has asked over a new one. Its token is checked by both neighbours, each
/// against another certificate.
#[tokio::test]
async fn an_answer_that_a_rotation_overtook_is_good_for_the_caller() {
    let authority = DevAuthority::new("example.org").unwrap();
    let [client, manager, endpoint] = ["/client", "/manager", "/endpoint"].map(|path| mtls(&authority, path));
    let hop = |name: &str, transport: &Transport| {
        elements![
            UpdatePath::new(name),
            Begin::default(),
            UpdateToken::new(transport.tokens()),
            Authorize::new(PolicySet::server()),
        ]
    };

    let answers = Chain::new("endpoint", hop("endpoint", &endpoint)).unwrap();
    let (to_endpoint, _endpoint) = serve(&endpoint, answers).await;
    let mut passes = hop("manager", &manager);
    passes.push(rotating(&authority));
    passes.push(Node::new(AuthorizeServer::new(PolicySet::client())));
    passes.push(Node::new(Connect::new(Arc::new(channels(&manager))).to(to_endpoint.to_string())));
    let (to_manager, _manager) = serve(&manager, Chain::new("manager", passes).unwrap()).await;
    let asks = elements![
        UpdatePath::new("client"),
        Begin::default(),
        UpdateToken::new(client.tokens()),
        AuthorizeServer::new(PolicySet::client()),
        Connect::new(Arc::new(channels(&client))).to(to_manager.to_string()),
    ];
    let asks = Chain::new("client", asks).unwrap();

    let mut connection = Connection { network_service: "vpn".to_owned(), ..Connection::default() };
    for _ in 0..5 {
        let answered = asks.request(Call::request(connection, Vec::new())).await.unwrap();
        let segments = &answered.connection().path.as_ref().unwrap().path_segments;
        assert_eq!(
            segments.iter().map(|segment| &*segment.name).collect::<Vec<_>>(),
            ["client", "manager", "endpoint"]
        );
        connection = answered.into_body();
    }
}

#[tokio::test]
async fn so_is_a_registrys_answer() {
    let authority = DevAuthority::new("example.org").unwrap();
    let [client, manager, registry] = ["/client", "/manager", "/registry"].map(|path| mtls(&authority, path));
    let hop = |transport: &Transport| {
        elements![UpdateRegistryPath::new(transport.tokens()), AuthorizeRegistry::new(PolicySet::registry_server())]
    };

    let mut keeps = hop(&registry);
    keeps.push(Node::new(Memory::default()));
    let (to_registry, _registry) = serve_registry(&registry, Chain::new("registry", keeps).unwrap()).await;
    let mut passes: Vec<Node<Endpoints>> = hop(&manager);
    passes.push(rotating(&authority));
    passes.push(Node::new(AuthorizeRegistryServer::new(PolicySet::registry_client())));
    passes.push(Node::new(Connect::new(Arc::new(channels(&manager))).to(to_registry.to_string())));
    let (to_manager, _manager) = serve_registry(&manager, Chain::new("manager", passes).unwrap()).await;
    let asks = elements![
        AuthorizeRegistryServer::new(PolicySet::registry_client()),
        Connect::new(Arc::new(channels(&client))).to(to_manager.to_string()),
    ];
    let asks = Chain::<Endpoints>::new("client", asks).unwrap();

    let mut path = RegistryPath::default();
    for _ in 0..5 {
        let endpoint = NetworkServiceEndpoint { name: "nse".to_owned(), ..NetworkServiceEndpoint::default() };
        let mut call = Call::new(endpoint);
        *call.extra_mut() = Some(path);
        let answered = asks.request(call).await.unwrap();
        path = answered.extra().clone().unwrap();
        assert_eq!(path.tokens.len(), 3);
    }
}
