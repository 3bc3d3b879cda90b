use super::*;

#[tokio::test]
async fn a_federated_bundle_appears_and_disappears() {
    let (directory, ours, theirs) = (Directory::new(), authority(), DevAuthority::new("theirs.org").unwrap());
    let _agent = directory.serve(agent(&ours)).await;
    let identity = directory.follow();
    ready(&identity).await;
    let domains = |identity: &WorkloadApi| identity.bundle().trust_domains().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(domains(&identity), ["example.org"]);
    ours.trust(&theirs).unwrap();
    until(&identity, |identity| domains(identity) == ["example.org", "theirs.org"]).await;
    assert_eq!(identity.bundle().roots("theirs.org"), [theirs.root()]);
    ours.distrust("theirs.org").unwrap();
    until(&identity, |identity| domains(identity) == ["example.org"]).await;
}
