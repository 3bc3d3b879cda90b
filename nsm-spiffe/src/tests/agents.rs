use super::*;
use crate::proto::{JwtsvidRequest, JwtsvidResponse, X509BundlesRequest, X509BundlesResponse};
use std::collections::BTreeSet;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};

#[tokio::test]
async fn callers_are_told_apart_by_what_the_system_says_of_them() {
    let (directory, authority) = (Directory::new(), authority());
    let choose =
        |caller: &crate::Caller| (caller.pid == Some(std::process::id().cast_signed())).then(|| "/me".to_owned());
    let _agent = directory.serve(DevAgent::new(authority).identities(choose)).await;
    let identity = directory.follow();
    ready(&identity).await;
    assert_eq!(identity.svid().unwrap().id().path(), "/me");
}

#[tokio::test]
async fn it_serves_over_tcp_too() {
    let agent = agent(&authority()).serve(&"tcp://127.0.0.1:0".parse().unwrap()).await.unwrap();
    let identity = WorkloadApi::connect(&agent.address().to_string()).unwrap();
    ready(&identity).await;
    agent.stop().await;
}

#[tokio::test]
async fn all_workloads_of_one_identity_share_a_certificate() {
    let (directory, authority) = (Directory::new(), authority());
    let _agent = directory.serve(agent(&authority)).await;
    let both = [directory.follow(), directory.follow()];
    let mut leaves = BTreeSet::new();
    for identity in &both {
        ready(identity).await;
        leaves.insert(identity.svid().unwrap().chain()[0].to_vec());
    }
    assert_eq!(leaves.len(), 1);
}

#[tokio::test]
async fn a_path_that_no_spiffe_id_has_is_refused_when_it_starts() {
    let directory = Directory::new();
    let refused = DevAgent::new(authority()).identity("no-slash").serve(&Address::Unix(directory.socket())).await;
    assert!(matches!(refused, Err(crate::AgentError::Identity(_))), "{refused:?}");
    assert!(!directory.socket().exists());
}

async fn channel(agent: &AgentHandle) -> Grpc<tonic::transport::Channel> {
    let Address::Tcp { port, .. } = agent.address() else { panic!("{}", agent.address()) };
    let endpoint = tonic::transport::Endpoint::try_from(format!("http://127.0.0.1:{port}")).unwrap();
    let mut grpc = Grpc::new(endpoint.connect().await.unwrap());
    grpc.ready().await.unwrap();
    grpc
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
    request
}

async fn bundles(agent: &AgentHandle, request: Request<X509BundlesRequest>) -> Result<X509BundlesResponse, Status> {
    let path = PathAndQuery::from_static("/SpiffeWorkloadAPI/FetchX509Bundles");
    let codec = tonic_prost::ProstCodec::default();
    let mut stream = channel(agent).await.server_streaming(request, path, codec).await?.into_inner();
    Ok(stream.message().await?.unwrap())
}

#[tokio::test]
async fn a_call_without_the_header_of_the_specification_is_refused() {
    let agent = agent(&authority()).serve(&"tcp://127.0.0.1:0".parse().unwrap()).await.unwrap();
    let status = bundles(&agent, Request::new(X509BundlesRequest {})).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    bundles(&agent, request(X509BundlesRequest {})).await.unwrap();
}

#[tokio::test]
async fn bundles_are_keyed_by_the_spiffe_id_of_their_domain() {
    let (ours, theirs) = (authority(), DevAuthority::new("theirs.org").unwrap());
    ours.trust(&theirs).unwrap();
    let agent = agent(&ours).serve(&"tcp://127.0.0.1:0".parse().unwrap()).await.unwrap();
    let response = bundles(&agent, request(X509BundlesRequest {})).await.unwrap();
    let wanted = [("spiffe://example.org", ours.root()), ("spiffe://theirs.org", theirs.root())];
    let wanted = wanted.map(|(domain, root)| (domain.to_owned(), root.to_vec()));
    assert_eq!(response.bundles, wanted.into());
}

#[tokio::test]
async fn jwt_svids_are_unimplemented_in_plain_words() {
    let agent = agent(&authority()).serve(&"tcp://127.0.0.1:0".parse().unwrap()).await.unwrap();
    let path = PathAndQuery::from_static("/SpiffeWorkloadAPI/FetchJWTSVID");
    let codec = tonic_prost::ProstCodec::<JwtsvidRequest, JwtsvidResponse>::default();
    let status = channel(&agent).await.unary(request(JwtsvidRequest::default()), path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("X.509"), "{status}");
}
