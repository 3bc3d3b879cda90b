use tokio::io::AsyncReadExt;

use super::*;
use crate::identity::{Bundles, FixedSvid, IdentityError};
use crate::transport::{Listener, TransportError};

async fn refused(client: &Transport, address: &Address) -> TransportError {
    let error = channels(client).get(address).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    error
}

fn lasting(authority: &DevAuthority, path: &str, lifetime: Duration) -> Transport {
    let svid = authority.sign(path, lifetime).unwrap();
    let source = FixedSvid::new(svid, Bundles::clone(&authority.bundles()));
    Transport::mtls(Arc::new(source), Duration::from_secs(600))
}

#[tokio::test]
async fn an_address_without_listener_says_which_kind_of_nothing_it_is() {
    let directory = Directory::new();
    let missing = directory.socket("missing.sock");
    assert!(matches!(refused(&insecure(), &missing).await, TransportError::NotFound { .. }));
    let stale = directory.socket("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(path(&stale)).unwrap());
    assert!(matches!(refused(&insecure(), &stale).await, TransportError::Refused { .. }));
    let port = Listener::bind(&any_port(), &BindOptions::default()).await.unwrap().address().clone();
    assert!(matches!(refused(&insecure(), &port).await, TransportError::Refused { .. }));
    let name = "tcp://no-such-host.invalid:1".parse().unwrap();
    assert!(matches!(refused(&insecure(), &name).await, TransportError::NotFound { .. }));
    assert!(matches!(refused(&insecure(), &memory()).await, TransportError::NotFound { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_a_timeout() {
    let authority = DevAuthority::new("example.org").unwrap();
    for transport in [insecure(), mtls(&authority, "/client")] {
        let address = memory();
        let _silent = Listener::bind(&address, &BindOptions::default()).await.unwrap();
        let error = refused(&transport, &address).await;
        assert!(matches!(error, TransportError::Timeout { after, .. } if after.as_secs() == 15), "{error}");
    }
}

#[tokio::test]
async fn foreign_trust_domains_are_refused_on_both_sides() {
    let (ours, theirs) = (DevAuthority::new("ours.org").unwrap(), DevAuthority::new("theirs.org").unwrap());
    let directory = Directory::new();
    for address in [directory.socket("a.sock"), any_port(), memory()] {
        let handle = Echo::default().serve(&mtls(&theirs, "/server"), &address).await;
        let address = &handle.addresses()[0];
        let error = refused(&mtls(&ours, "/client"), address).await;
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<IdentityError>());
        assert!(
            matches!(source, Some(IdentityError::WrongTrustDomain { id }) if id.trust_domain() == "theirs.org"),
            "{error}"
        );
        // One that trusts them, and is not trusted by them.
        let believer = DevAuthority::new("ours.org").unwrap();
        believer.trust(&theirs).unwrap();
        let error = refused(&mtls(&believer, "/client"), address).await;
        assert!(matches!(error, TransportError::Rejected { .. }), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_certificate_is_refused_with_its_name_and_end() {
    let authority = DevAuthority::new("example.org").unwrap();
    let (old, good) = (lasting(&authority, "/old", Duration::from_secs(60)), mtls(&authority, "/good"));
    let (to_old, to_good) = (memory(), memory());
    let _old = Echo::default().serve(&old, &to_old).await;
    let _good = Echo::default().serve(&good, &to_good).await;
    channels(&good).get(&to_old).await.unwrap();
    channels(&old).get(&to_good).await.unwrap();
    tokio::time::advance(Duration::from_secs(62)).await;
    let error = refused(&good, &to_old).await;
    assert!(
        matches!(&error, TransportError::Untrusted { source: IdentityError::Expired { id, .. }, .. } if id.path() == "/old"),
        "{error}"
    );
    let error = refused(&old, &to_good).await;
    assert!(
        matches!(&error, TransportError::Identity { source: IdentityError::Expired { id, .. }, .. } if id.path() == "/old"),
        "{error}"
    );
}

#[tokio::test]
async fn mixed_security_fails_with_a_reason() {
    let authority = DevAuthority::new("example.org").unwrap();
    let (secure, plain) = (memory(), memory());
    let _secure = Echo::default().serve(&mtls(&authority, "/server"), &secure).await;
    let _plain = Echo::default().serve(&insecure(), &plain).await;
    let error = refused(&insecure(), &secure).await;
    assert!(matches!(error, TransportError::Closed { .. }), "{error}");
    let error = refused(&mtls(&authority, "/client"), &plain).await;
    assert!(matches!(error, TransportError::Handshake { .. } | TransportError::Closed { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stalls_in_the_handshake_delays_nobody_and_is_dropped() {
    let authority = DevAuthority::new("example.org").unwrap();
    let address = memory();
    let _handle = Echo::default().serve(&mtls(&authority, "/server"), &address).await;
    let Address::Memory(name) = &address else { unreachable!() };
    let mut stalled = Vec::new();
    for _ in 0..100 {
        stalled.push(crate::transport::memory::connect(name).await.unwrap());
    }
    let before = tokio::time::Instant::now();
    let link = channels(&mtls(&authority, "/client")).get(&address).await.unwrap();
    ask(&link, "").await.unwrap();
    assert_eq!(before.elapsed(), Duration::ZERO);
    // The server hangs up on them.
    for mut stream in stalled {
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
    }
    assert_eq!(before.elapsed().as_secs(), 10);
}
