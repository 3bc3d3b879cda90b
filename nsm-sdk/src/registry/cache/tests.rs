use nsm_chain::{Call, Chain, elements};

use super::*;
use crate::connect::{Connect, InProcess};
use crate::registry::testing::{
    Nse, Probe, named, names, nse, of_service, register, seconds, settle, text, unread, watch,
};
use crate::registry::{Endpoints, Memory};

struct Mesh {
    hops: InProcess<Endpoints>,
    probe: Arc<Probe>,
    cache: Arc<Cache<Nse>>,
    client: Chain<Endpoints>,
    registry: Chain<Endpoints>,
    memory: Arc<Memory<Nse>>,
}

fn mesh(most: usize) -> Mesh {
    let (hops, probe, cache) = (InProcess::default(), Arc::default(), Arc::new(Cache::sized(most, seconds(60))));
    let connect = Connect::new(hops.links()).to("mem://registry");
    let client = Chain::new("nsmgr", elements![Arc::clone(&cache), Arc::clone(&probe), connect]).unwrap();
    let (registry, memory) = serve(&hops);
    Mesh { hops, probe, cache, client, registry, memory }
}

fn serve(hops: &InProcess<Endpoints>) -> (Chain<Endpoints>, Arc<Memory<Nse>>) {
    let memory = Arc::new(Memory::default());
    let registry = Chain::new("registry", elements![Arc::clone(&memory)]).unwrap();
    hops.serve("mem://registry", registry.clone());
    (registry, memory)
}

#[tokio::test(start_paused = true)]
async fn a_pattern_is_asked_for_once_and_then_answered_from_the_copy() {
    let mesh = mesh(9);
    register(&mesh.registry, nse("a", &["vpn"])).await.unwrap();
    assert_eq!(names(&mesh.client, of_service("vpn")).await, ["a"]);
    assert_eq!(mesh.probe.take().len(), 2);
    register(&mesh.registry, nse("b", &["vpn"])).await.unwrap();
    settle().await;
    assert_eq!(names(&mesh.client, of_service("vpn")).await, ["a", "b"]);
    mesh.registry.close(Call::new(nse("a", &[]))).await.unwrap();
    settle().await;
    assert_eq!(names(&mesh.client, of_service("vpn")).await, ["b"]);
    assert_eq!(mesh.probe.take(), [""; 0]);
    // Another pattern is another copy.
    assert_eq!(names(&mesh.client, named("b")).await, ["b"]);
    assert_eq!(mesh.cache.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn many_first_finds_ask_once() {
    let mesh = mesh(9);
    register(&mesh.registry, nse("a", &["vpn"])).await.unwrap();
    let finds = (0..50).map(|_| names(&mesh.client, of_service("vpn")));
    assert!(futures::future::join_all(finds).await.iter().all(|found| found == &["a"]));
    assert_eq!(mesh.probe.take().len(), 2);
    assert_eq!(mesh.memory.watchers(), 1);
}

#[tokio::test(start_paused = true)]
async fn that_nothing_matches_is_asked_for_each_time_and_not_kept() {
    let mesh = mesh(9);
    for _ in 0..3 {
        assert!(names(&mesh.client, of_service("vpn")).await.is_empty());
        settle().await;
        assert_eq!((mesh.cache.len(), mesh.memory.watchers()), (0, 0));
    }
    register(&mesh.registry, nse("a", &["vpn"])).await.unwrap();
    assert_eq!(names(&mesh.client, of_service("vpn")).await, ["a"]);
    // The last one goes: nobody is told so from the copy.
    mesh.registry.close(Call::new(nse("a", &[]))).await.unwrap();
    settle().await;
    mesh.probe.take();
    assert!(names(&mesh.client, of_service("vpn")).await.is_empty());
    assert_eq!(mesh.probe.take().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn watches_share_one_further_on() {
    let mesh = mesh(9);
    register(&mesh.registry, nse("a", &["vpn"])).await.unwrap();
    let mut watchers = Vec::new();
    for _ in 0..10 {
        watchers.push(watch(&mesh.client, of_service("vpn")).await);
    }
    assert_eq!(mesh.memory.watchers(), 1);
    register(&mesh.registry, nse("b", &["vpn"])).await.unwrap();
    mesh.registry.close(Call::new(nse("a", &[]))).await.unwrap();
    for events in &mut watchers {
        let mut told = Vec::new();
        while told.last().is_none_or(|last| last != "-a") {
            told.push(text(&events.next().await.unwrap().unwrap()));
        }
        assert_eq!(told, ["a", "b", "-a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_for_what_is_not_there_yet_waits_in_the_copy() {
    let mesh = mesh(9);
    let mut events = watch(&mesh.client, named("late")).await;
    settle().await;
    tokio::time::sleep(seconds(300)).await;
    register(&mesh.registry, nse("late", &[])).await.unwrap();
    assert_eq!(text(&events.next().await.unwrap().unwrap()), "late");
    assert_eq!(mesh.cache.len(), 1);
    drop(events);
    tokio::time::sleep(seconds(121)).await;
    assert_eq!((mesh.cache.len(), mesh.memory.watchers()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_nobody_uses_ends() {
    let mesh = mesh(9);
    register(&mesh.registry, nse("a", &["vpn"])).await.unwrap();
    names(&mesh.client, of_service("vpn")).await;
    for _ in 0..5 {
        tokio::time::sleep(seconds(50)).await;
        names(&mesh.client, of_service("vpn")).await;
    }
    assert_eq!(mesh.cache.len(), 1);
    tokio::time::sleep(seconds(61)).await;
    assert!(mesh.cache.is_empty());
    assert_eq!(mesh.memory.watchers(), 0);
}

#[tokio::test(start_paused = true)]
async fn when_the_registry_is_lost_its_copies_and_their_watches_end() {
    let mesh = mesh(9);
    register(&mesh.registry, nse("a", &["vpn"])).await.unwrap();
    let mut events = watch(&mesh.client, of_service("vpn")).await;
    assert_eq!(text(&events.next().await.unwrap().unwrap()), "a");
    let (fresh, _) = serve(&mesh.hops);
    assert!(events.next().await.is_none());
    assert!(mesh.cache.is_empty());
    register(&fresh, nse("b", &["vpn"])).await.unwrap();
    assert_eq!(names(&mesh.client, of_service("vpn")).await, ["b"]);
}

#[tokio::test(start_paused = true)]
async fn with_the_registry_out_of_reach_the_reader_learns_why() {
    let mesh = mesh(9);
    mesh.hops.stop("mem://registry");
    for watching in [false, true] {
        let query = Nse::query(of_service("vpn"), watching);
        let error = mesh.client.monitor(Watch::new(query)).await.err().unwrap();
        assert!(error.to_string().contains("nobody serves mem://registry"), "{error}");
    }
    settle().await;
    assert!(mesh.cache.is_empty());
}

#[tokio::test(start_paused = true)]
async fn there_are_only_so_many_copies() {
    let mesh = mesh(2);
    for name in ["a", "b", "c", "d"] {
        register(&mesh.registry, nse(name, &["vpn"])).await.unwrap();
        assert_eq!(names(&mesh.client, named(name)).await, [name]);
    }
    assert_eq!((mesh.cache.len(), mesh.memory.watchers()), (2, 2));
    let mut events = watch(&mesh.client, named("d")).await;
    assert_eq!(unread(&mut events), ["d"]);
}
