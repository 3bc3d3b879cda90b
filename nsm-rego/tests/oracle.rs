//! The stock policies against twins of them in Rego: whatever the path, both say the same.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nsm_rego::RegoPolicy;
use nsm_sdk::identity::{About, DevAuthority, HmacTokens, Policy, PolicyInput, PolicySet, Rule, Svid, peer_of};
use nsm_sdk::nsm_api::connection::PathSegment;
use nsm_sdk::nsm_chain::{Peer, Tokens};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

const HOPS: usize = 5;

fn id(hop: usize) -> String {
    format!("spiffe://example.org/hop-{hop}")
}

/// The identities of a mesh.
static MESH: LazyLock<Vec<(Arc<Svid>, Peer)>> = LazyLock::new(|| {
    let authority = DevAuthority::new("example.org").unwrap();
    let hop = |hop| {
        let svid = authority.issue(&format!("/hop-{hop}")).unwrap().svid().unwrap();
        let peer = peer_of(svid.chain()).unwrap();
        (svid, peer)
    };
    (0..HOPS).map(hop).collect()
});

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// Signed by a hop's key, whatever the header says.
fn sign(hop: usize, header: &Value, claims: &Value) -> String {
    let random = SystemRandom::new();
    let key = MESH[hop].0.key().secret_pkcs8_der();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key, &random).unwrap();
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = key.sign(&random, signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// What an honest hop makes for the next one.
fn honest(hop: usize, next: usize) -> String {
    let claims = json!({ "sub": id(hop), "aud": [id(next)], "exp": 1_800_000_600 });
    sign(hop, &json!({ "alg": "ES256", "typ": "JWT" }), &claims)
}

/// One claim, or none.
fn claim(values: Vec<Value>) -> impl Strategy<Value = Option<Value>> {
    prop::option::weighted(0.9, prop::sample::select(values))
}

fn any_claims() -> impl Strategy<Value = Value> {
    let sub = claim(vec![
        json!(id(0)),
        json!(id(1)),
        json!(id(2)),
        json!("bob"),
        json!(""),
        json!(null),
        json!(7),
        json!([id(1)]),
    ]);
    let aud = claim(vec![
        json!([id(1)]),
        json!([id(2), "x"]),
        json!(id(1)),
        json!([]),
        json!([7, id(1)]),
        json!(null),
        json!(7),
        json!({ "a": id(1) }),
    ]);
    let exp = claim(vec![
        json!(1_800_000_001),
        json!(1_800_000_000.5),
        json!(1_799_999_999),
        json!(0),
        json!(-1),
        json!(1e300),
        json!("1900000000"),
        json!(null),
        json!(true),
    ]);
    (sub, aud, exp).prop_map(|(sub, aud, exp)| {
        let mut claims = json!({ "more": [1, { "a": null }] });
        for (name, value) in [("sub", sub), ("aud", aud), ("exp", exp)] {
            if let Some(value) = value {
                claims[name] = value;
            }
        }
        claims
    })
}

fn any_header() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!({ "alg": "ES256" }),
        json!({ "alg": "ES256", "typ": "JWT", "kid": "1" }),
        json!({ "alg": "none" }),
        json!({ "alg": "HS256" }),
        json!({ "alg": 7 }),
        json!({}),
        json!([]),
    ])
}

fn any_token() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => (0..HOPS, 0..HOPS).prop_map(|(hop, next)| honest(hop, next)),
        3 => (0..HOPS, Just(json!({ "alg": "ES256" })), any_claims()).prop_map(|(hop, header, claims)| sign(hop, &header, &claims)),
        2 => (0..HOPS, any_header(), any_claims()).prop_map(|(hop, header, claims)| sign(hop, &header, &claims)),
        1 => (0..HOPS, 0..400_usize).prop_map(|(hop, at)| {
            let mut token = honest(hop, 1).into_bytes();
            let at = at % token.len();
            token[at] = if token[at] == b'A' { b'B' } else { b'A' };
            String::from_utf8(token).unwrap()
        }),
        1 => Just(HmacTokens::new(&MESH[0].1.id).token(None).unwrap().text.to_string()),
        1 => Just(String::new()),
        1 => prop::sample::select(vec!["a.b.c", "..", "null", "{}", "a", "\u{e9}.x.y"]).prop_map(str::to_owned),
        1 => Just("x".repeat(9000)),
    ]
}

/// A path of tokens: an honest one, of which some tokens may be replaced.
fn any_path() -> impl Strategy<Value = Vec<String>> {
    let honest = (0..HOPS).prop_map(|length| (0..length).map(|hop| honest(hop, hop + 1)).collect::<Vec<_>>());
    let wrong = prop::collection::vec((0..HOPS, any_token()), 0..2);
    let replaced = (honest, wrong).prop_map(|(mut path, wrong)| {
        for (at, token) in wrong {
            match path.get_mut(at) {
                Some(place) => *place = token,
                None => path.push(token),
            }
        }
        path
    });
    prop_oneof![3 => replaced, 1 => prop::collection::vec(any_token(), 0..4)]
}

fn any_index() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 0..HOPS, 1 => Just(usize::MAX), 1 => Just(u32::MAX as usize)]
}

/// Both of a kind.
struct Pair {
    policy: Policy,
    native: PolicySet,
    twin: PolicySet,
    allowed: usize,
    denied: usize,
}

impl Pair {
    fn of(policy: Policy) -> Self {
        let read = |name: &str| std::fs::read_to_string(format!("tests/twins/{name}.rego")).unwrap();
        let text = read("claims") + &read(policy.name());
        let twin = PolicySet::of([Rule::custom(RegoPolicy::new(policy.name(), &text).unwrap())]);
        Self { policy, native: PolicySet::of([policy]), twin, allowed: 0, denied: 0 }
    }

    fn compare(&mut self, input: &PolicyInput<'_>, shown: &dyn std::fmt::Debug) {
        let native = self.native.check(input);
        let twin = self.twin.check(input);
        assert!(!twin.as_ref().is_err_and(|denied| denied.failed), "{twin:?} {shown:?}");
        assert_eq!(
            native.is_ok(),
            twin.is_ok(),
            "{}: native {native:?}, twin {twin:?}, {input:?} {shown:?}",
            self.policy.name()
        );
        *(if native.is_ok() { &mut self.allowed } else { &mut self.denied }) += 1;
    }

    /// A property that is never true, or never false, shows nothing.
    fn has_seen_both(&self) {
        assert!(
            self.allowed > 10 && self.denied > 10,
            "{}: {} allowed, {} denied",
            self.policy.name(),
            self.allowed,
            self.denied
        );
    }
}

fn run<S: Strategy>(strategy: &S, mut compare: impl FnMut(S::Value)) {
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let compare = std::cell::RefCell::new(&mut compare);
    runner
        .run(strategy, |value| {
            (compare.borrow_mut())(value);
            Ok(())
        })
        .unwrap();
}

#[test]
fn on_connections_native_and_rego_agree() {
    let mut pairs = [
        Policy::TokensValid,
        Policy::TokensExpired,
        Policy::TokensChained,
        Policy::PrevTokenSigned,
        Policy::NextTokenSigned,
    ]
    .map(Pair::of);
    run(&(any_path(), any_index(), prop::option::weighted(0.9, 0..HOPS)), |(tokens, index, peer)| {
        let segments: Vec<PathSegment> = tokens
            .iter()
            .map(|token| PathSegment { name: "hop".into(), token: token.clone(), ..Default::default() })
            .collect();
        let texts: Vec<&str> = tokens.iter().map(String::as_str).collect();
        let about = About::Connection(&segments);
        // Mostly whose token stands before, or after: what an honest caller or server shows.
        for peer in [peer, index.checked_sub(1), Some(index.saturating_add(1))] {
            let peer = peer.and_then(|hop| Some(&MESH.get(hop)?.1));
            let input = PolicyInput { tokens: &texts, index, peer, owner: None, about, now: now() };
            pairs.iter_mut().for_each(|pair| pair.compare(&input, &tokens));
        }
    });
    pairs.iter().for_each(Pair::has_seen_both);
}

#[test]
fn on_registrations_native_and_rego_agree() {
    let mut pairs = [
        Policy::TokensValid,
        Policy::TokensExpired,
        Policy::TokensChained,
        Policy::ClientAllowed,
        Policy::PrevTokenSigned,
        Policy::NextTokenSigned,
    ]
    .map(Pair::of);
    let owner = prop::option::of(prop::sample::select(vec![id(0), id(1), "spiffe://else.where/x".to_owned()]));
    run(&(any_path(), any_index(), 0..HOPS, owner), |(tokens, index, peer, owner)| {
        let texts: Vec<&str> = tokens.iter().map(String::as_str).collect();
        let path_ids = || {
            let mut all = BTreeMap::from([("another".to_owned(), vec![id(4)])]);
            all.extend(owner.clone().map(|owner| ("nse".to_owned(), vec![owner, id(3)])));
            all
        };
        let about = About::Record { name: "nse", path_ids: &path_ids };
        for peer in [Some(peer), index.checked_sub(1), Some(index.saturating_add(1))] {
            let peer = peer.and_then(|hop| Some(&MESH.get(hop)?.1));
            let input = PolicyInput { tokens: &texts, index, peer, owner: owner.as_deref(), about, now: now() };
            pairs.iter_mut().for_each(|pair| pair.compare(&input, &tokens));
        }
    });
    pairs.iter().for_each(Pair::has_seen_both);
}

#[test]
fn on_watches_native_and_rego_agree() {
    let mut pair = Pair::of(Policy::ServiceConnection);
    let ids = || prop::collection::vec(prop::sample::select(vec!["", "1", "2", "3", "4", "5"]), 0..4);
    run(&(ids(), ids(), ids(), 0..HOPS), |(selected, own, others, watcher)| {
        let all = || {
            let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
            BTreeMap::from([(id(watcher), ids(&own)), (id((watcher + 1) % HOPS), ids(&others))])
        };
        let about = About::Watch { selected: &selected, recorded: &|id| own.contains(&id), all: &all };
        let input = PolicyInput { tokens: &[], index: 0, peer: Some(&MESH[watcher].1), owner: None, about, now: now() };
        pair.compare(&input, &(&selected, &own));
    });
    pair.has_seen_both();
}
