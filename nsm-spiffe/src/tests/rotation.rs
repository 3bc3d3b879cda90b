use super::*;
use nsm_sdk::identity::IdentityError;
use std::sync::Arc;

#[tokio::test]
async fn a_rotation_replaces_the_certificate_and_leaves_the_bundles() {
    let (directory, authority) = (Directory::new(), authority());
    let agent = directory.serve(agent(&authority)).await;
    let identity = directory.follow();
    ready(&identity).await;
    let (svid, bundles) = (identity.svid().unwrap(), identity.bundle());
    agent.rotate();
    until(&identity, |identity| !Arc::ptr_eq(&identity.svid().unwrap(), &svid)).await;
    assert_eq!(identity.svid().unwrap().id(), svid.id());
    assert!(Arc::ptr_eq(&identity.bundle(), &bundles));
    assert_eq!(*identity.changed().borrow(), 2);
}

#[tokio::test]
async fn a_period_rotates_by_itself() {
    let (directory, authority) = (Directory::new(), authority());
    let _agent = directory.serve(agent(&authority).rotate_every(Duration::from_millis(50))).await;
    let identity = directory.follow();
    ready(&identity).await;
    until(&identity, |identity| *identity.changed().borrow() >= 4).await;
}

#[tokio::test]
async fn a_lost_agent_leaves_the_certificate_and_is_followed_again_when_it_is_back() {
    let (directory, authority) = (Directory::new(), authority());
    let first = directory.serve(agent(&authority)).await;
    let identity = directory.follow();
    ready(&identity).await;
    let svid = identity.svid().unwrap();
    first.stop().await;
    stuck(&identity, |obstacle| *obstacle == Obstacle::NoSuchFile).await;
    assert!(Arc::ptr_eq(&identity.svid().unwrap(), &svid));

    let _second = directory.serve(agent(&authority)).await;
    until(&identity, |identity| !Arc::ptr_eq(&identity.svid().unwrap(), &svid)).await;
    following(&identity).await;
}

#[tokio::test]
async fn an_agent_that_knows_us_no_more_leaves_the_certificate_too() {
    let (directory, authority) = (Directory::new(), authority());
    let agent = directory.serve(agent(&authority)).await;
    let identity = directory.follow();
    ready(&identity).await;
    agent.set_identity(None);
    stuck(&identity, |obstacle| matches!(obstacle, Obstacle::NoIdentity { .. })).await;
    identity.svid().unwrap();
}

#[tokio::test]
async fn a_certificate_that_ends_without_its_agent_is_expired_and_says_why() {
    let (directory, authority) = (Directory::new(), authority());
    let agent = directory.serve(agent(&authority).lifetime(Duration::from_secs(2))).await;
    let identity = directory.follow();
    ready(&identity).await;
    agent.stop().await;
    stuck(&identity, |obstacle| *obstacle == Obstacle::NoSuchFile).await;
    let end = identity.svid().unwrap().not_after();
    tokio::time::sleep_until(nsm_chain::time::instant(end) + Duration::from_millis(10)).await;
    let error = identity.svid().unwrap_err();
    let told = format!("waiting for the agent at {}: no such file", directory.endpoint());
    assert!(matches!(&error, IdentityError::Expired { not_after, .. } if *not_after == end), "{error:?}");
    assert!(error.to_string().contains(&told), "{error}");
}

#[tokio::test]
async fn a_replaced_root_is_trusted_beside_the_old_one_until_that_is_retired() {
    let (directory, authority) = (Directory::new(), authority());
    let _agent = directory.serve(agent(&authority)).await;
    let identity = directory.follow();
    ready(&identity).await;
    let (svid, old) = (identity.svid().unwrap(), authority.root());
    let roots = |identity: &WorkloadApi| identity.bundle().roots("example.org").to_vec();
    authority.prepare().unwrap();
    until(&identity, |identity| roots(identity).len() == 2).await;
    assert!(Arc::ptr_eq(&identity.svid().unwrap(), &svid), "nothing is signed anew yet");
    authority.activate().unwrap();
    until(&identity, |identity| !Arc::ptr_eq(&identity.svid().unwrap(), &svid)).await;
    assert_eq!(roots(&identity).len(), 2);
    authority.retire().unwrap();
    until(&identity, |identity| roots(identity) == [authority.root()]).await;
    assert_ne!(authority.root(), old);
}
