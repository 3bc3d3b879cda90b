use std::time::Duration;

use nsm_chain::{Chain, Code, Peer, TokenError, elements, time};

use super::*;
use crate::connect::{Connect, InProcess};
use crate::identity::HmacTokens;
use crate::registry::testing::{Nse, nse, seconds, token};
use crate::registry::{Endpoints, Memory};

fn id(name: &str) -> SpiffeId {
    format!("spiffe://mesh/{name}").parse().unwrap()
}

fn tokens(name: &str) -> Arc<dyn Tokens> {
    Arc::new(HmacTokens::new(&id(name)))
}

fn peer(name: &str) -> Arc<Peer> {
    Arc::new(Peer { id: id(name), certificate: Arc::from([]), not_after: time::now() + seconds(3600) })
}

/// A client's way through a manager to a registry.
fn mesh() -> Chain<Endpoints> {
    let hops = InProcess::default();
    let registry = elements![UpdateRegistryPath::new(tokens("registry")), Memory::default()];
    hops.serve("mem://registry", Chain::new("registry", registry).unwrap());
    let further = hops.seen_by(Some(peer("nsmgr")), tokens("nsmgr"));
    let manager =
        elements![UpdateRegistryPath::new(tokens("nsmgr")), Connect::new(further.links()).to("mem://registry")];
    hops.serve("mem://nsmgr", Chain::new("nsmgr", manager).unwrap());
    let client = hops.seen_by(Some(peer("nse")), tokens("nse"));
    Chain::new("nse", elements![Connect::new(client.links()).to("mem://nsmgr")]).unwrap()
}

fn asked(path: RegistryPath) -> Call<Endpoints> {
    let mut call = Call::new(nse("nse-1", &[]));
    *call.extra_mut() = Some(path);
    call
}

fn subjects(call: &Call<Endpoints>) -> Vec<String> {
    let tokens = &call.extra().as_ref().unwrap().tokens;
    tokens.iter().map(|token| identity::claims(&token.0).unwrap().subject.unwrap()).collect()
}

#[tokio::test]
async fn every_hop_enters_its_token_and_its_identity() {
    let call = mesh().request(asked(RegistryPath::default())).await.unwrap();
    let ids = ["spiffe://mesh/nse", "spiffe://mesh/nsmgr", "spiffe://mesh/registry"];
    assert_eq!(subjects(&call), ids);
    assert_eq!(call.body().path_ids, ids);
    assert_eq!(call.extra().as_ref().unwrap().index, 0);
}

#[tokio::test]
async fn registering_again_refreshes_the_tokens_and_keeps_the_path() {
    let mesh = mesh();
    let first = mesh.request(asked(RegistryPath::default())).await.unwrap();
    let mut stale = first.clone();
    for token in &mut stale.extra_mut().as_mut().unwrap().tokens {
        *token = PathToken("stale".into());
    }
    let again = mesh.request(stale).await.unwrap();
    assert_eq!(subjects(&again), subjects(&first));
    assert_eq!(again.body().path_ids, first.body().path_ids);
    let closed = mesh.close(again).await.unwrap();
    assert_eq!(closed.closed(), nsm_chain::Closed::Done);
}

fn hop() -> Chain<Endpoints> {
    Chain::new("registry", elements![UpdateRegistryPath::new(tokens("registry")), Memory::default()]).unwrap()
}

#[tokio::test]
async fn a_caller_without_a_path_gets_none() {
    let call = hop().request(Call::new(nse("nse-1", &[]))).await.unwrap();
    assert!(call.extra().is_none());
    assert!(call.body().path_ids.is_empty());
    assert!(call.fact::<OwnToken>().is_some());
}

#[tokio::test]
async fn a_caller_without_a_valid_token_leaves_an_empty_identity() {
    for callers in [None, Some(token(seconds(60)))] {
        let call = asked(RegistryPath::default()).from_peer(None, callers);
        let call = hop().request(call).await.unwrap();
        assert_eq!(call.body().path_ids, ["", "spiffe://mesh/registry"]);
    }
}

#[tokio::test]
async fn an_index_beyond_the_path_is_refused() {
    for index in [1, 2, usize::MAX] {
        let path = RegistryPath { index, tokens: vec![PathToken::default()] };
        assert_eq!(hop().request(asked(path.clone())).await.unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(hop().close(asked(path)).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn foreign_path_ids_do_not_survive() {
    let mut call = asked(RegistryPath::default());
    *call.body_mut() = Nse { path_ids: vec!["spiffe://mesh/someone".into(); 9], ..nse("nse-1", &[]) };
    let call = hop().request(call.from_peer(None, tokens("nse").token(None).ok())).await.unwrap();
    assert_eq!(call.body().path_ids, ["spiffe://mesh/nse", "spiffe://mesh/registry"]);
}

#[tokio::test]
async fn a_hop_that_cannot_sign_registers_nothing() {
    struct Mute;
    impl Tokens for Mute {
        fn token(&self, _: Option<&SpiffeId>) -> Result<Token, TokenError> {
            Err(TokenError { reason: "no certificate".into() })
        }
    }
    struct Nameless;
    impl Tokens for Nameless {
        fn token(&self, _: Option<&SpiffeId>) -> Result<Token, TokenError> {
            Ok(Token { text: "not a token".into(), expires: time::now() + Duration::from_secs(9) })
        }
    }
    for (tokens, code) in [(Arc::new(Mute) as Arc<dyn Tokens>, Code::Unavailable), (Arc::new(Nameless), Code::Internal)]
    {
        let memory = Arc::new(Memory::<Nse>::default());
        let chain = Chain::new("registry", elements![UpdateRegistryPath::new(tokens), Arc::clone(&memory)]).unwrap();
        assert_eq!(chain.request(asked(RegistryPath::default())).await.unwrap_err().code(), code);
        assert!(memory.is_empty());
    }
}
