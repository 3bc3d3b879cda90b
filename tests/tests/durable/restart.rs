use std::time::Duration;

use nsm_chain::{Closed, Code, time};

use crate::kill::patiently;
use crate::kit::{Registry, nse};

/// Ordered stops, over gRPC.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_stopped_goes_on_where_it_was() {
    let mut registry = Registry::new();
    assert!(registry.start());
    let (alice, bob) = (registry.client("alice"), registry.client("bob"));
    let stays = alice.register(nse("stays")).await.unwrap();
    let mut brief = nse("brief");
    brief.expiration_time = Some((time::now() + Duration::from_secs(2)).into());
    let brief = alice.register(brief).await.unwrap();
    registry.stop();
    assert!(registry.start());

    let found = patiently(async || bob.find_all().await).await;
    let kept = |name: &str| found.iter().find(|nse| nse.name == name).map(|nse| (**nse).clone());
    assert_eq!(kept("stays"), Some(stays.clone()));
    // Two seconds are short on a busy machine: what counts is that it ends then, and not earlier.
    let over = time::until(brief.expiration_time.unwrap().try_into().unwrap()).is_zero();
    assert!(over || kept("brief") == Some(brief));
    let expired = async {
        while bob.find_all().await.unwrap().len() > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), expired).await.expect("it expires");

    // A refresh that brings no time keeps the first one.
    let refreshed = alice.register(nse("stays")).await.unwrap();
    assert_eq!(refreshed.initial_registration_time, stays.initial_registration_time);
    assert_eq!(bob.register(nse("brief")).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(alice.unregister(nse("stays")).await.unwrap(), Closed::Done);
    registry.stop();
    assert!(registry.start());
    assert!(patiently(async || bob.find_all().await).await.is_empty());
    assert_eq!(bob.register(nse("brief")).await.unwrap_err().code(), Code::PermissionDenied);
    bob.register(nse("stays")).await.unwrap();
}
