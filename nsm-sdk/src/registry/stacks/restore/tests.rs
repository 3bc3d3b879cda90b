use std::sync::atomic::Ordering;
use std::time::Duration;

use nsm_chain::{Closed, Code, Node, RegistryPath, Timers};

use super::*;
use crate::registry::Journals;
use crate::registry::stacks::tests::{admission, asking, tokens};
use crate::registry::stacks::{Admission, ManagerRegistry, MemoryRegistry};
use crate::registry::testing::{Notebook, Nse, find, named, names, nse, register, seconds, service, unread, watch};

#[derive(Default)]
struct Disk {
    services: Arc<Notebook<NetworkService>>,
    endpoints: Arc<Notebook<NetworkServiceEndpoint>>,
}

impl Disk {
    fn journals(&self) -> Journals {
        Journals { services: Arc::clone(&self.services) as _, endpoints: Arc::clone(&self.endpoints) as _ }
    }

    /// A registry that lets in whom names belong to.
    async fn registry(&self) -> MemoryRegistry {
        MemoryRegistry::builder("registry", admission("registry")).restore(&self.journals()).await.unwrap()
    }
}

fn by(who: &str, nse: Nse) -> Call<Endpoints> {
    asking(nse).from_peer(None, Some(tokens(who).token(None).unwrap()))
}

fn ends(nse: &Nse) -> Option<Duration> {
    expiration(nse).map(time::until)
}

#[tokio::test(start_paused = true)]
async fn what_was_registered_is_there_after_a_restart_under_the_same_end_and_since_the_same_time() {
    let disk = Disk::default();
    let registry = disk.registry().await;
    let before = registry.endpoints.request(by("alice", nse("nse-1", &["vpn"]))).await.unwrap().into_body();
    registry.endpoints.request(by("alice", nse("nse-2", &["vpn"]))).await.unwrap();
    registry.endpoints.close(by("alice", nse("nse-2", &[]))).await.unwrap();
    drop(registry);
    tokio::time::advance(seconds(20)).await;
    let registry = disk.registry().await;
    assert_eq!(names(&registry.endpoints, named("")).await, ["nse-1"]);
    assert_eq!(*find(&registry.endpoints, named("nse-1")).await[0], before);
    // A refresh by a client that brings no time of its own.
    let after = registry.endpoints.request(by("alice", nse("nse-1", &["vpn"]))).await.unwrap().into_body();
    assert_eq!(after.initial_registration_time, before.initial_registration_time);
    assert_eq!(ends(&after), Some(seconds(60)));
    assert_eq!(registry.endpoints.close(by("alice", nse("nse-1", &[]))).await.unwrap().closed(), Closed::Done);
    assert!(disk.endpoints.names().is_empty());
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_it_was_promised_to_whatever_the_restart() {
    let disk = Disk::default();
    disk.registry().await.endpoints.request(by("alice", nse("nse-1", &[]))).await.unwrap();
    tokio::time::advance(seconds(50)).await;
    // Shorter lives from now on: what was promised before is not taken back.
    let registry = MemoryRegistry::builder("registry", admission("registry"))
        .default_expiration(seconds(5))
        .restore(&disk.journals())
        .await
        .unwrap();
    let mut events = watch(&registry.endpoints, named("")).await;
    tokio::time::sleep(seconds(9)).await;
    assert_eq!(unread(&mut events), ["nse-1"]);
    tokio::time::sleep(seconds(2)).await;
    assert_eq!(unread(&mut events), ["-nse-1"]);
    assert!(disk.endpoints.names().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_expired_meanwhile_is_gone_and_its_name_is_still_its_owners() {
    let disk = Disk::default();
    disk.registry().await.endpoints.request(by("alice", nse("nse-1", &[]))).await.unwrap();
    tokio::time::advance(seconds(61)).await;
    for _ in 0..2 {
        let registry = disk.registry().await;
        assert!(names(&registry.endpoints, named("")).await.is_empty());
        assert!(disk.endpoints.names().is_empty());
        let other = registry.endpoints.request(by("bob", nse("nse-1", &[]))).await.unwrap_err();
        assert_eq!(other.code(), Code::PermissionDenied);
    }
    disk.registry().await.endpoints.request(by("alice", nse("nse-1", &[]))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_name_is_free_after_an_unregister_and_not_after_an_expiry() {
    let disk = Disk::default();
    let registry = disk.registry().await;
    registry.endpoints.request(by("alice", nse("expires", &[]))).await.unwrap();
    registry.endpoints.request(by("alice", nse("leaves", &[]))).await.unwrap();
    registry.endpoints.close(by("alice", nse("leaves", &[]))).await.unwrap();
    tokio::time::sleep(seconds(61)).await;
    assert_eq!(disk.endpoints.owners(), ["expires: spiffe://mesh/alice"]);
    let registry = disk.registry().await;
    registry.endpoints.request(by("bob", nse("leaves", &[]))).await.unwrap();
    assert!(registry.endpoints.request(by("bob", nse("expires", &[]))).await.is_err());
    // Its owner can let go of a name that has expired.
    registry.endpoints.close(by("alice", nse("expires", &[]))).await.unwrap();
    assert_eq!(disk.endpoints.owners(), ["leaves: spiffe://mesh/bob"]);
}

#[tokio::test(start_paused = true)]
async fn network_services_and_their_owners_are_kept_too() {
    let disk = Disk::default();
    let by = |who: &str, name: &str| {
        let mut call = Call::new(service(name)).from_peer(None, Some(tokens(who).token(None).unwrap()));
        *call.extra_mut() = Some(RegistryPath::default());
        call
    };
    disk.registry().await.services.request(by("alice", "vpn")).await.unwrap();
    let registry = disk.registry().await;
    assert_eq!(registry.services.request(by("bob", "vpn")).await.unwrap_err().code(), Code::PermissionDenied);
    registry.services.close(by("alice", "vpn")).await.unwrap();
    assert_eq!((disk.services.names(), disk.services.owners()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_kept_is_refused_and_changes_nothing() {
    let disk = Disk::default();
    let registry = disk.registry().await;
    registry.endpoints.request(by("alice", nse("nse-1", &["vpn"]))).await.unwrap();
    let mut events = watch(&registry.endpoints, named("")).await;
    assert_eq!(unread(&mut events), ["nse-1"]);
    disk.endpoints.refuse(true);
    for call in [by("alice", nse("nse-1", &["other"])), by("bob", nse("nse-2", &[]))] {
        assert_eq!(registry.endpoints.request(call).await.unwrap_err().code(), Code::ResourceExhausted);
    }
    assert!(unread(&mut events).is_empty());
    assert_eq!(find(&registry.endpoints, named("")).await[0].network_service_names, ["vpn"]);
    disk.endpoints.refuse(false);
    // Bob's failure left the name free.
    registry.endpoints.request(by("alice", nse("nse-2", &[]))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unregister_that_cannot_be_kept_fails_until_it_can() {
    let disk = Disk::default();
    let registry = disk.registry().await;
    registry.endpoints.request(by("alice", nse("nse-1", &[]))).await.unwrap();
    disk.endpoints.refuse(true);
    for _ in 0..2 {
        registry.endpoints.close(by("alice", nse("nse-1", &[]))).await.unwrap_err();
        assert!(names(&registry.endpoints, named("")).await.is_empty());
    }
    disk.endpoints.refuse(false);
    assert!(registry.endpoints.request(by("bob", nse("nse-1", &[]))).await.is_err());
    assert_eq!(registry.endpoints.close(by("alice", nse("nse-1", &[]))).await.unwrap().closed(), Closed::Done);
    assert!(disk.endpoints.names().is_empty() && disk.endpoints.owners().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_expires_while_nothing_can_be_kept_is_gone_here_and_after_a_restart() {
    let disk = Disk::default();
    let registry = disk.registry().await;
    registry.endpoints.request(by("alice", nse("nse-1", &[]))).await.unwrap();
    disk.endpoints.refuse(true);
    tokio::time::sleep(seconds(61)).await;
    assert!(names(&registry.endpoints, named("")).await.is_empty());
    disk.endpoints.refuse(false);
    assert!(names(&disk.registry().await.endpoints, named("")).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_unregister_of_what_nobody_knows_writes_nothing() {
    let disk = Disk::default();
    let registry = disk.registry().await;
    assert_eq!(registry.endpoints.close(by("alice", nse("nse-1", &[]))).await.unwrap().closed(), Closed::Unknown);
    assert_eq!(disk.endpoints.entries.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_gives_up_leaves_nothing_in_the_journal() {
    let disk = Disk::default();
    let registry = disk.registry().await;
    let call = by("alice", nse("nse-1", &[]));
    call.cancellation().cancel();
    registry.endpoints.request(call).await.unwrap_err();
    assert!(disk.endpoints.names().is_empty() && disk.endpoints.owners().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_keeps_its_records_itself_has_them_after_a_restart() {
    let disk = Disk::default();
    let manager = async |timers: &Timers| {
        ManagerRegistry::builder("nsmgr", "unix:///nsmgr", Admission::open())
            .timers(timers.clone())
            .restore(&disk.journals())
            .await
            .unwrap()
    };
    let first = manager(&Timers::default()).await;
    register(&first.services, service("vpn")).await.unwrap();
    register(&first.endpoints, nse("fwd", &["forwarder"])).await.unwrap();
    drop(first);
    let timers = Timers::default();
    let second = manager(&timers).await;
    assert_eq!(second.finder.service("vpn", "IP").await.unwrap().name, "vpn");
    assert_eq!(second.finder.forwarders("forwarder", "unix:///nsmgr").await.unwrap()[0].url, "unix:///fwd");
    assert_eq!(timers.armed(), 1);
    tokio::time::sleep(seconds(61)).await;
    assert!(second.finder.endpoints_of("forwarder").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_manager_with_a_registry_further_on_has_nothing_to_keep() {
    let disk = Disk::default();
    let ends = (Node::new(Memory::default()), Node::new(Memory::default()));
    let manager = ManagerRegistry::builder("nsmgr", "unix:///nsmgr", Admission::open()).ending_in(ends.0, ends.1);
    let error = manager.restore(&disk.journals()).await.unwrap_err();
    assert!(error.to_string().contains("give the store to the registry"), "{error}");
}
