use nsm_chain::{Begin, Chain, Code, elements};

use super::*;
use crate::registry::Memory;
use crate::registry::testing::{
    Hand, Nse, Probe, find, named, names, nse, of_service, register, settle, unread, watch,
};

const MANAGER: &str = "tcp://nsmgr:5001";

struct Mesh {
    manager: Chain<Endpoints>,
    bypass: Arc<LocalBypass>,
    probe: Arc<Probe>,
    registry: Chain<Endpoints>,
}

fn mesh() -> Mesh {
    let registry = Chain::new("registry", elements![Memory::default()]).unwrap();
    let (bypass, probe) = (Arc::new(LocalBypass::new(MANAGER)), Arc::new(Probe::default()));
    let list = elements![Begin::default(), Arc::clone(&bypass), Arc::clone(&probe), Hand(registry.clone())];
    Mesh { manager: Chain::new("nsmgr", list).unwrap(), bypass, probe, registry }
}

async fn url(chain: &Chain<Endpoints>, name: &str) -> Option<String> {
    find(chain, named(name)).await.first().map(|nse| nse.url.clone())
}

#[tokio::test]
async fn an_endpoint_has_its_own_url_here_and_the_managers_elsewhere() {
    let mesh = mesh();
    assert_eq!(register(&mesh.manager, nse("nse-1", &["vpn"])).await.unwrap().url, "unix:///nse-1");
    assert_eq!(url(&mesh.manager, "nse-1").await.as_deref(), Some("unix:///nse-1"));
    assert_eq!(url(&mesh.registry, "nse-1").await.as_deref(), Some(MANAGER));
    // A query by the manager's URL finds what is registered at it.
    let here = Nse { url: MANAGER.into(), ..of_service("vpn") };
    assert_eq!(names(&mesh.manager, here).await, ["nse-1"]);
    mesh.manager.close(Call::new(nse("nse-1", &[]))).await.unwrap();
    assert_eq!(url(&mesh.registry, "nse-1").await, None);
    assert!(mesh.bypass.is_empty());
}

#[tokio::test]
async fn a_record_with_the_managers_url_that_is_not_registered_here_is_hidden_until_it_is() {
    let mesh = mesh();
    register(&mesh.registry, Nse { url: MANAGER.into(), ..nse("nse-1", &["vpn"]) }).await.unwrap();
    register(&mesh.registry, nse("elsewhere", &["vpn"])).await.unwrap();
    let mut events = watch(&mesh.manager, of_service("vpn")).await;
    assert_eq!(names(&mesh.manager, of_service("vpn")).await, ["elsewhere"]);
    assert_eq!(unread(&mut events), ["elsewhere"]);
    register(&mesh.manager, nse("nse-1", &["vpn"])).await.unwrap();
    assert_eq!(unread(&mut events), ["nse-1"]);
    assert_eq!(url(&mesh.manager, "nse-1").await.as_deref(), Some("unix:///nse-1"));
}

#[tokio::test]
async fn a_new_url_under_the_same_name_counts_at_once() {
    let mesh = mesh();
    register(&mesh.manager, nse("nse-1", &["vpn"])).await.unwrap();
    let mut events = watch(&mesh.manager, named("nse-1")).await;
    assert_eq!(unread(&mut events), ["nse-1"]);
    register(&mesh.manager, Nse { url: "unix:///new".into(), ..nse("nse-1", &["vpn"]) }).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().record.url, "unix:///new");
    assert_eq!(url(&mesh.manager, "nse-1").await.as_deref(), Some("unix:///new"));
    assert_eq!(mesh.bypass.len(), 1);
}

#[tokio::test]
async fn a_watcher_that_sees_the_record_before_the_register_returns_sees_its_url() {
    let mesh = mesh();
    let mut events = watch(&mesh.manager, of_service("vpn")).await;
    let hold = mesh.probe.hold();
    let registering = tokio::spawn({
        let chain = mesh.manager.clone();
        async move { register(&chain, nse("nse-1", &["vpn"])).await }
    });
    settle().await;
    register(&mesh.registry, Nse { url: MANAGER.into(), ..nse("nse-1", &["vpn"]) }).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().record.url, "unix:///nse-1");
    mesh.probe.release();
    hold.notify_one();
    registering.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_fails_is_as_if_it_had_not_been_tried() {
    let mesh = mesh();
    mesh.probe.fail(1);
    assert!(register(&mesh.manager, nse("nse-1", &[])).await.is_err());
    assert!(mesh.bypass.is_empty());
    register(&mesh.manager, nse("nse-1", &[])).await.unwrap();
    mesh.probe.fail(1);
    assert!(register(&mesh.manager, Nse { url: "unix:///new".into(), ..nse("nse-1", &[]) }).await.is_err());
    assert_eq!(url(&mesh.manager, "nse-1").await.as_deref(), Some("unix:///nse-1"));
}

#[tokio::test]
async fn an_endpoint_without_a_url_is_refused() {
    let mesh = mesh();
    let error = register(&mesh.manager, named("nse-1")).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(names(&mesh.registry, named("")).await.is_empty());
}

#[tokio::test]
async fn unregistering_what_is_not_registered_here_does_not_travel() {
    let mesh = mesh();
    register(&mesh.registry, nse("elsewhere", &[])).await.unwrap();
    let call = mesh.manager.close(Call::new(nse("elsewhere", &[]))).await.unwrap();
    assert_eq!(call.closed(), Closed::Unknown);
    assert_eq!(names(&mesh.registry, named("")).await, ["elsewhere"]);
}

#[tokio::test]
async fn deletions_reach_watchers_and_found_records_are_shared() {
    let mesh = mesh();
    register(&mesh.manager, nse("nse-1", &["vpn"])).await.unwrap();
    let mut events = watch(&mesh.manager, of_service("vpn")).await;
    assert_eq!(unread(&mut events), ["nse-1"]);
    let (one, other) = (find(&mesh.manager, named("nse-1")).await, find(&mesh.manager, of_service("vpn")).await);
    assert!(Arc::ptr_eq(&one[0], &other[0]));
    mesh.manager.close(Call::new(nse("nse-1", &[]))).await.unwrap();
    assert_eq!(unread(&mut events), ["-nse-1"]);
}
