//! Tokens of strangers: none verifies against a key that did not sign it, and none makes a policy panic.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use nsm_chain::Peer;
use nsm_sdk::identity::{About, DevAuthority, PolicyInput, PolicySet, TokenVerifier, peer_of};

/// Somebody whose key never left this process.
static PEER: LazyLock<Arc<Peer>> = LazyLock::new(|| {
    let authority = DevAuthority::new("example.org").unwrap();
    let svid = authority.sign("/peer", Duration::from_secs(3600)).unwrap();
    Arc::new(peer_of(svid.chain()).unwrap())
});

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let now = SystemTime::now();
    assert!(TokenVerifier::new().verify(text, &PEER.certificate, now).is_err());

    // Lines are the tokens of a path.
    let tokens: Vec<&str> = text.split('\n').collect();
    for set in [PolicySet::server(), PolicySet::client(), PolicySet::registry_server(), PolicySet::registry_client()] {
        for index in [0, 1, tokens.len(), usize::MAX] {
            let input = PolicyInput {
                tokens: &tokens,
                index,
                peer: Some(&PEER),
                owner: Some("spiffe://example.org/a"),
                now,
                about: About::Tokens,
            };
            assert!(set.check(&input).is_err(), "nobody signed any of these");
        }
    }
});
