use std::sync::Arc;

use nsm_api::SpiffeId;
use nsm_chain::{Begin, Chain, Code, Peer, RegistryPath, Timers, Token, Tokens, elements};

use super::*;
use crate::identity::{DevAuthority, Es256Tokens, HmacTokens, Policy, SvidSource, peer_of};
use crate::registry::testing::{Notebook, Probe, nse, seconds};
use crate::registry::{Endpoints, Expire, Memory, UpdateRegistryPath};

fn id(name: &str) -> SpiffeId {
    format!("spiffe://mesh/{name}").parse().unwrap()
}

struct Hop {
    chain: Chain<Endpoints>,
    authorize: Arc<AuthorizeRegistry>,
    probe: Arc<Probe>,
}

fn hop(authorize: AuthorizeRegistry) -> Hop {
    hop_ending_in(authorize, Memory::default())
}

fn hop_ending_in(authorize: AuthorizeRegistry, memory: Memory<nsm_api::NetworkServiceEndpoint>) -> Hop {
    let (authorize, probe) = (Arc::new(authorize), Arc::new(Probe::default()));
    let list = elements![
        UpdateRegistryPath::new(Arc::new(HmacTokens::new(&id("registry")))),
        Arc::clone(&authorize),
        Begin::default(),
        Expire::after(seconds(60), Timers::default()),
        Arc::clone(&probe),
        memory,
    ];
    Hop { chain: Chain::new("registry", list).unwrap(), authorize, probe }
}

fn owners() -> AuthorizeRegistry {
    AuthorizeRegistry::new(PolicySet::of([Policy::TokensValid, Policy::ClientAllowed]))
}

fn by(who: &str, name: &str) -> Call<Endpoints> {
    let token = HmacTokens::new(&id(who)).token(None).unwrap();
    let mut call = Call::new(nse(name, &[])).from_peer(None, Some(token));
    *call.extra_mut() = Some(RegistryPath::default());
    call
}

#[tokio::test(start_paused = true)]
async fn a_name_belongs_to_whom_registered_it_until_he_unregisters_it() {
    let hop = hop(owners());
    hop.chain.request(by("alice", "nse-1")).await.unwrap();
    hop.chain.request(by("alice", "nse-1")).await.unwrap();
    assert_eq!(hop.chain.request(by("bob", "nse-1")).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(hop.chain.close(by("bob", "nse-1")).await.unwrap_err().code(), Code::PermissionDenied);
    hop.chain.request(by("bob", "nse-2")).await.unwrap();
    hop.chain.close(by("alice", "nse-1")).await.unwrap();
    hop.chain.request(by("bob", "nse-1")).await.unwrap();
    assert_eq!(hop.authorize.owned(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_name_still_belongs_to_its_owner_when_it_has_expired() {
    let hop = hop(owners());
    hop.chain.request(by("alice", "nse-1")).await.unwrap();
    hop.probe.take();
    tokio::time::sleep(seconds(61)).await;
    assert_eq!(hop.probe.take(), ["-nse-1"]);
    assert_eq!(hop.chain.request(by("bob", "nse-1")).await.unwrap_err().code(), Code::PermissionDenied);
    hop.chain.request(by("alice", "nse-1")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_record_cannot_claim_another_owner() {
    let hop = hop(owners());
    let mut call = by("bob", "nse-1");
    call.body_mut().path_ids = vec![id("alice").to_string()];
    hop.chain.request(call).await.unwrap();
    assert!(hop.chain.request(by("alice", "nse-1")).await.is_err());
    hop.chain.request(by("bob", "nse-1")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_fails_leaves_no_owner_and_takes_none_away() {
    let hop = hop(owners());
    hop.probe.fail(1);
    assert!(hop.chain.request(by("alice", "nse-1")).await.is_err());
    assert_eq!(hop.authorize.owned(), 0);
    hop.chain.request(by("bob", "nse-1")).await.unwrap();
    hop.probe.fail(1);
    assert!(hop.chain.request(by("bob", "nse-1")).await.is_err());
    hop.probe.fail(1);
    assert!(hop.chain.close(by("bob", "nse-1")).await.is_err());
    assert_eq!(hop.chain.request(by("alice", "nse-1")).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test(start_paused = true)]
async fn of_two_who_ask_for_a_free_name_at_once_one_gets_it() {
    let hop = hop(owners());
    let hold = hop.probe.hold();
    let first = tokio::spawn({
        let chain = hop.chain.clone();
        async move { chain.request(by("alice", "nse-1")).await }
    });
    crate::registry::testing::settle().await;
    assert_eq!(hop.chain.request(by("bob", "nse-1")).await.unwrap_err().code(), Code::PermissionDenied);
    hop.probe.release();
    hold.notify_one();
    first.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn ownership_is_bounded() {
    let hop = hop(owners().remembering(3));
    for number in 0..10 {
        hop.chain.request(by("alice", &format!("nse-{number}"))).await.unwrap();
        hop.chain.request(by("alice", "nse-0")).await.unwrap();
    }
    assert_eq!(hop.authorize.owned(), 3);
    assert!(hop.chain.request(by("bob", "nse-0")).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_the_policy_in_our_log_only() {
    let hop = hop(owners());
    hop.chain.request(by("alice", "nse-1")).await.unwrap();
    let error = hop.chain.request(by("bob", "nse-1")).await.unwrap_err();
    assert!(!error.to_string().contains("client_allowed"), "{error}");
    assert!(error.detail().is_some_and(|detail| detail.contains("client_allowed")));
}

#[tokio::test(start_paused = true)]
async fn without_policies_everybody_may_and_nothing_is_remembered() {
    let hop = hop(AuthorizeRegistry::new(PolicySet::allow_all()));
    hop.chain.request(by("alice", "nse-1")).await.unwrap();
    hop.chain.request(Call::new(nse("nse-1", &[]))).await.unwrap();
    assert_eq!(hop.authorize.owned(), 0);
}

/// The stock policies, with certificates and signatures as over mTLS.
#[tokio::test]
async fn the_stock_policies_let_the_owner_in_and_nobody_without_a_path_or_with_anothers_token() {
    let authority = DevAuthority::new("mesh").unwrap();
    let issue = |name: &str| authority.issue(&format!("/{name}")).unwrap();
    let tokens = |source: Arc<dyn SvidSource>| Es256Tokens::new(source, seconds(600));
    let peer = |source: &Arc<dyn SvidSource>| Arc::new(peer_of(source.svid().unwrap().chain()).unwrap());
    let (alice, bob, registry) = (issue("alice"), issue("bob"), issue("registry"));
    let chain: Chain<Endpoints> = Chain::new(
        "registry",
        elements![
            UpdateRegistryPath::new(Arc::new(tokens(Arc::clone(&registry)))),
            AuthorizeRegistry::new(PolicySet::registry_server()),
            Begin::default(),
            Memory::default(),
        ],
    )
    .unwrap();
    let call = |who: &Arc<dyn SvidSource>, signer: &Arc<dyn SvidSource>| {
        let token = tokens(Arc::clone(signer)).token(Some(&peer(&registry).id)).unwrap();
        let mut call = Call::<Endpoints>::new(nse("nse-1", &[])).from_peer(Some(peer(who)), Some(token));
        *call.extra_mut() = Some(RegistryPath::default());
        call
    };
    chain.request(call(&alice, &alice)).await.unwrap();
    for refused in [call(&bob, &bob), call(&bob, &alice), {
        let mut call = call(&alice, &alice);
        *call.extra_mut() = None;
        call
    }] {
        assert_eq!(chain.request(refused).await.unwrap_err().code(), Code::PermissionDenied);
    }
    chain.close(call(&alice, &alice)).await.unwrap();
    chain.request(call(&bob, &bob)).await.unwrap();
}

/// Over mTLS the reference's clients send their token with a Find too.
#[tokio::test(start_paused = true)]
async fn only_a_caller_with_a_living_token_of_its_own_may_find_and_a_watch_outlives_its_token() {
    let authority = DevAuthority::new("mesh").unwrap();
    let issue = |name: &str| authority.issue(&format!("/{name}")).unwrap();
    let peer = |source: &Arc<dyn SvidSource>| Arc::new(peer_of(source.svid().unwrap().chain()).unwrap());
    let (alice, bob, registry) = (issue("alice"), issue("bob"), issue("registry"));
    let token = |signer: &Arc<dyn SvidSource>| {
        Es256Tokens::new(Arc::clone(signer), seconds(600)).token(Some(&peer(&registry).id)).unwrap()
    };
    let chain: Chain<Endpoints> = Chain::new(
        "registry",
        elements![
            UpdateRegistryPath::new(Arc::new(Es256Tokens::new(Arc::clone(&registry), seconds(600)))),
            AuthorizeRegistry::new(PolicySet::registry_server()),
            Memory::default(),
        ],
    )
    .unwrap();
    let look = |peer: Option<Arc<Peer>>, token: Option<Token>| {
        let query = <nsm_api::registry::NetworkServiceEndpoint as Record>::query(nse("", &[]), true);
        chain.monitor(Watch { peer, token, ..Watch::new(query) })
    };
    let old = token(&alice);
    let mut watch = look(Some(peer(&alice)), Some(old.clone())).await.unwrap();
    for (peer, token) in [
        (None, None),
        (None, Some(old.clone())),
        (Some(peer(&alice)), None),
        (Some(peer(&alice)), Some(token(&bob))),
        (Some(peer(&bob)), Some(old.clone())),
    ] {
        let error = look(peer, token).await.err().unwrap();
        assert_eq!((error.code(), error.detail().is_some()), (Code::PermissionDenied, true));
    }
    tokio::time::advance(seconds(601)).await;
    assert!(look(Some(peer(&alice)), Some(old)).await.is_err(), "expired");
    drop(look(Some(peer(&alice)), Some(token(&alice))).await.unwrap());
    // The one that began in time hears on.
    let mut call = Call::<Endpoints>::new(nse("nse-1", &[])).from_peer(Some(peer(&bob)), Some(token(&bob)));
    *call.extra_mut() = Some(RegistryPath::default());
    chain.request(call).await.unwrap();
    assert_eq!(crate::registry::testing::unread(&mut watch), ["nse-1"]);
}

#[tokio::test(start_paused = true)]
async fn owners_are_kept_with_their_records_and_hold_in_the_next_life() {
    let notebook = Arc::new(Notebook::default());
    let kept = |authorize| hop_ending_in(authorize, Memory::kept_in(Arc::clone(&notebook) as _));
    let one = kept(owners().remembering(2));
    one.chain.request(by("alice", "a")).await.unwrap();
    one.chain.request(by("alice", "b")).await.unwrap();
    one.chain.close(by("alice", "b")).await.unwrap();
    one.probe.fail(1);
    assert!(one.chain.request(by("bob", "c")).await.is_err());
    assert_eq!(notebook.owners(), ["a: spiffe://mesh/alice"]);

    let next = kept(owners().remembering(2).owned_by([("a".into(), "spiffe://mesh/alice".into())]));
    assert!(next.chain.request(by("bob", "a")).await.is_err());
    next.chain.request(by("bob", "b")).await.unwrap();
    // The name unused for longest makes room, here and there.
    next.chain.request(by("bob", "c")).await.unwrap();
    assert_eq!(notebook.owners(), ["b: spiffe://mesh/bob", "c: spiffe://mesh/bob"]);

    // What cannot be kept has no owner.
    next.chain.close(by("bob", "b")).await.unwrap();
    notebook.refuse(true);
    assert!(next.chain.request(by("bob", "b")).await.is_err());
    assert_eq!((next.authorize.owned(), notebook.owners()), (1, vec!["c: spiffe://mesh/bob".to_owned()]));
}
