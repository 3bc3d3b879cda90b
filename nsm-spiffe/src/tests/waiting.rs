use super::*;
use nsm_sdk::identity::IdentityError;
use std::os::unix::net::UnixListener;

#[tokio::test]
async fn without_an_agent_it_says_what_it_waits_for_and_takes_it_when_it_comes() {
    let (directory, authority) = (Directory::new(), authority());
    let identity = directory.follow();
    let state = stuck(&identity, |obstacle| *obstacle == Obstacle::NoSuchFile).await;
    let waiting = format!("waiting for the agent at {}: no such file", directory.endpoint());
    assert!(state.to_string().starts_with(&waiting), "{state}");
    let error = identity.svid().unwrap_err();
    assert!(matches!(&error, IdentityError::NoSvid { reason } if reason.starts_with(&waiting)), "{error}");
    assert!(identity.ready(Duration::from_millis(10)).await.is_err());

    let _agent = directory.serve(agent(&authority)).await;
    ready(&identity).await;
    assert_eq!(identity.svid().unwrap().id().as_str(), "spiffe://example.org/workload");
    following(&identity).await;
}

#[tokio::test]
async fn a_socket_that_nobody_listens_on_is_refused() {
    let directory = Directory::new();
    drop(UnixListener::bind(directory.socket()).unwrap());
    let identity = directory.follow();
    let state = stuck(&identity, |obstacle| *obstacle == Obstacle::Refused).await;
    assert!(state.to_string().contains("connection refused"), "{state}");
}

#[tokio::test]
async fn an_agent_that_takes_the_call_and_says_nothing_is_no_silent_hang() {
    let directory = Directory::new();
    let _mute = UnixListener::bind(directory.socket()).unwrap();
    let identity = directory.follow();
    let state = stuck(&identity, |obstacle| *obstacle == Obstacle::Silent).await;
    assert!(state.to_string().contains("says nothing"), "{state}");
}

#[tokio::test]
async fn a_workload_that_the_agent_does_not_know_is_told_so_and_served_once_it_is_registered() {
    let (directory, authority) = (Directory::new(), authority());
    let agent = directory.serve(DevAgent::new(authority.clone())).await;
    let identity = directory.follow();
    let state = stuck(&identity, |obstacle| matches!(obstacle, Obstacle::NoIdentity { .. })).await;
    assert!(state.to_string().contains("no identity for this workload"), "{state}");
    agent.set_identity(Some("/late"));
    ready(&identity).await;
    assert_eq!(identity.svid().unwrap().id().path(), "/late");
}

#[test]
fn an_endpoint_that_is_none_is_refused_at_once() {
    let error = WorkloadApi::connect("/run/agent.sock").unwrap_err();
    assert!(error.to_string().contains("unix:///path"), "{error}");
}
