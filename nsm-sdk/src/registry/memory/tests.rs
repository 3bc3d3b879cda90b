use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use nsm_api::registry::{NetworkService, NetworkServiceEndpoint, NetworkServiceEndpointQuery, NetworkServiceLabels};
use nsm_chain::{Call, Chain, Change, EventStream, Watch, elements};
use proptest::prelude::*;

use super::*;
use crate::registry::Endpoints;

type Nse = NetworkServiceEndpoint;

fn nse(name: &str, services: &[&str]) -> Nse {
    Nse {
        name: name.into(),
        network_service_names: services.iter().map(|service| (*service).into()).collect(),
        ..Default::default()
    }
}

fn labelled(mut nse: Nse, service: &str, key: &str, value: &str) -> Nse {
    let labels = BTreeMap::from([(key.to_owned(), value.to_owned())]);
    nse.network_service_labels.insert(service.into(), NetworkServiceLabels { labels });
    nse
}

struct Registry {
    chain: Chain<Endpoints>,
    memory: Arc<Memory<Nse>>,
}

fn registry() -> Registry {
    let memory = Arc::new(Memory::default());
    Registry { chain: Chain::new("registry", elements![Arc::clone(&memory)]).unwrap(), memory }
}

impl Registry {
    async fn register(&self, nse: Nse) {
        self.chain.request(Call::new(nse)).await.unwrap();
    }

    async fn unregister(&self, name: &str) -> Closed {
        self.chain.close(Call::new(nse(name, &[]))).await.unwrap().closed()
    }

    async fn watch(&self, pattern: Nse) -> EventStream<Endpoints> {
        self.chain.monitor(Watch::new(Nse::query(pattern, true))).await.unwrap()
    }

    async fn find(&self, pattern: Nse) -> Vec<String> {
        let found = self.chain.monitor(Watch::new(Nse::query(pattern, false))).await.unwrap();
        found.map(|change| change.unwrap().record.name.clone()).collect().await
    }
}

/// What a watcher has to read right now: `name` or `-name`.
fn unread(events: &mut EventStream<Endpoints>) -> Vec<String> {
    std::iter::from_fn(|| events.next().now_or_never())
        .map_while(|event| event.map(|event| text(&event.unwrap())))
        .collect()
}

fn text(change: &Change<Nse>) -> String {
    format!("{}{}", if change.deleted { "-" } else { "" }, change.record.name)
}

#[tokio::test]
async fn a_registered_endpoint_is_found_by_name_service_and_label() {
    let registry = registry();
    registry.register(labelled(nse("nse-1", &["vpn", "fw"]), "vpn", "color", "red")).await;
    registry.register(nse("nse-2", &["vpn"])).await;
    assert_eq!(registry.find(nse("nse-1", &[])).await, ["nse-1"]);
    assert_eq!(registry.find(nse("", &["vpn"])).await, ["nse-1", "nse-2"]);
    assert_eq!(registry.find(nse("", &["vpn", "fw"])).await, ["nse-1"]);
    assert_eq!(registry.find(nse("nse-2", &["fw"])).await, [""; 0]);
    assert_eq!(registry.find(labelled(nse("", &[]), "vpn", "color", "red")).await, ["nse-1"]);
    assert_eq!(registry.find(nse("", &["nobody"])).await, [""; 0]);
}

#[tokio::test]
async fn a_query_without_a_record_inside_finds_everything() {
    let registry = registry();
    registry.register(nse("b", &[])).await;
    registry.register(nse("a", &["x"])).await;
    let query = NetworkServiceEndpointQuery { network_service_endpoint: None, watch: false };
    let found = registry.chain.monitor(Watch::new(query)).await.unwrap();
    assert_eq!(found.map(|change| text(&change.unwrap())).collect::<Vec<_>>().await, ["a", "b"]);
}

#[tokio::test]
async fn services_are_found_by_name_and_by_payload() {
    let chain = Chain::new("registry", elements![Memory::<NetworkService>::default()]).unwrap();
    for (name, payload) in [("a", "IP"), ("b", "ETHERNET")] {
        let service = NetworkService { name: name.into(), payload: payload.into(), ..Default::default() };
        chain.request(Call::new(service)).await.unwrap();
    }
    for pattern in [
        NetworkService { name: "b".into(), ..Default::default() },
        NetworkService { payload: "ETHERNET".into(), ..Default::default() },
    ] {
        let found = chain.monitor(Watch::new(NetworkService::query(pattern, false))).await.unwrap();
        let names: Vec<_> = found.map(|change| change.unwrap().record.name.clone()).collect().await;
        assert_eq!(names, ["b"]);
    }
}

#[tokio::test]
async fn a_record_without_a_name_is_refused() {
    let error = registry().chain.request(Call::new(nse("", &["vpn"]))).await.unwrap_err();
    assert_eq!(error.code(), nsm_chain::Code::InvalidArgument);
}

#[tokio::test]
async fn unregistering_tells_whether_there_was_anything() {
    let registry = registry();
    registry.register(nse("nse-1", &["vpn"])).await;
    assert_eq!(registry.unregister("nse-1").await, Closed::Done);
    assert_eq!(registry.unregister("nse-1").await, Closed::Unknown);
    assert!(registry.memory.is_empty());
    assert_eq!(registry.find(nse("", &["vpn"])).await, [""; 0]);
}

#[tokio::test]
async fn a_watch_begins_with_what_is_there_and_goes_on_with_changes() {
    let registry = registry();
    registry.register(nse("a", &["vpn"])).await;
    let mut events = registry.watch(nse("", &["vpn"])).await;
    registry.register(nse("b", &["vpn"])).await;
    registry.register(nse("c", &["other"])).await;
    assert_eq!(unread(&mut events), ["a", "b"]);
    // A refresh that changes nothing is an update too.
    registry.register(nse("a", &["vpn"])).await;
    registry.unregister("b").await;
    assert_eq!(unread(&mut events), ["a", "-b"]);
}

#[tokio::test]
async fn a_deletion_carries_the_last_state() {
    let registry = registry();
    registry.register(nse("a", &["vpn"])).await;
    let mut events = registry.watch(nse("a", &[])).await;
    assert_eq!(unread(&mut events), ["a"]);
    registry.unregister("a").await;
    let change = events.next().await.unwrap().unwrap();
    assert!(change.deleted);
    assert_eq!(*change.record, nse("a", &["vpn"]));
}

#[tokio::test]
async fn a_record_that_no_longer_matches_is_gone_for_that_watcher() {
    let registry = registry();
    registry.register(nse("a", &["vpn", "fw"])).await;
    let mut vpn = registry.watch(nse("", &["vpn"])).await;
    let mut fw = registry.watch(nse("", &["fw"])).await;
    let mut named = registry.watch(nse("a", &[])).await;
    assert_eq!(
        (unread(&mut vpn), unread(&mut fw), unread(&mut named)),
        (vec!["a".into()], vec!["a".into()], vec!["a".into()])
    );
    registry.register(nse("a", &["fw"])).await;
    assert_eq!(unread(&mut vpn), ["-a"]);
    assert_eq!(unread(&mut fw), ["a"]);
    assert_eq!(unread(&mut named), ["a"]);
    registry.register(nse("a", &["vpn"])).await;
    assert_eq!(unread(&mut vpn), ["a"]);
    assert_eq!(unread(&mut fw), ["-a"]);
}

#[tokio::test]
async fn a_slow_watcher_misses_states_in_between_but_never_the_last() {
    let registry = registry();
    registry.register(nse("old", &["vpn"])).await;
    let mut events = registry.watch(nse("", &["vpn"])).await;
    assert_eq!(unread(&mut events), ["old"]);
    for round in 0..1000 {
        registry.register(labelled(nse("busy", &["vpn"]), "vpn", "round", &round.to_string())).await;
        // Comes and goes unread: leaves no trace, and takes no room.
        registry.register(nse(&format!("gone-{round}"), &["vpn"])).await;
        registry.unregister(&format!("gone-{round}")).await;
    }
    registry.unregister("old").await;
    let last = events.next().await.unwrap().unwrap();
    assert_eq!(last.record.network_service_labels["vpn"].labels["round"], "999");
    assert_eq!(unread(&mut events), ["-old"]);
}

#[tokio::test]
async fn an_unread_deletion_followed_by_a_registration_reads_as_an_update() {
    let registry = registry();
    registry.register(nse("a", &["vpn"])).await;
    let mut events = registry.watch(nse("", &["vpn"])).await;
    assert_eq!(unread(&mut events), ["a"]);
    registry.unregister("a").await;
    registry.register(nse("a", &["vpn"])).await;
    assert_eq!(unread(&mut events), ["a"]);
    registry.unregister("a").await;
    assert_eq!(unread(&mut events), ["-a"]);
}

#[tokio::test]
async fn ten_watchers_each_read_fifty_events_in_order_and_share_the_records() {
    let registry = registry();
    let mut watchers = Vec::new();
    for _ in 0..10 {
        let events = registry.watch(nse("", &["vpn"])).await;
        watchers.push(tokio::spawn(events.take(50).map(|event| event.unwrap().record).collect::<Vec<_>>()));
    }
    for number in 0..50 {
        registry.register(nse(&format!("nse-{number:02}"), &["vpn"])).await;
    }
    let stored = registry.memory.store.find(&NetworkServiceEndpointQuery::default());
    for watcher in watchers {
        let read = watcher.await.unwrap();
        assert!(read.iter().zip(&stored).all(|(read, stored)| Arc::ptr_eq(read, stored)));
        assert_eq!(read.len(), 50);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_that_come_while_others_register_miss_nothing() {
    let registry = Arc::new(registry());
    let mut tasks = Vec::new();
    for number in 0..50 {
        let (watching, registering) = (Arc::clone(&registry), Arc::clone(&registry));
        tasks.push(tokio::spawn(async move {
            let name = format!("nse-{number}");
            let found = watching.watch(nse(&name, &[])).await.next().await.unwrap().unwrap();
            assert_eq!(found.record.name, name);
        }));
        tasks.push(tokio::spawn(async move {
            registering.register(nse(&format!("nse-{number}"), &["vpn"])).await;
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(registry.memory.watchers(), 0);
}

#[tokio::test]
async fn a_watch_that_is_dropped_leaves_nothing_and_a_dropped_store_ends_its_watches() {
    let registry = registry();
    let mut kept = registry.watch(nse("a", &[])).await;
    for pattern in [nse("a", &[]), nse("", &["vpn"]), nse("", &[])] {
        let events = registry.watch(pattern).await;
        assert_eq!(registry.memory.watchers(), 2);
        drop(events);
        assert_eq!(registry.memory.watchers(), 1);
    }
    registry.register(nse("a", &[])).await;
    drop(registry);
    assert_eq!(kept.next().await.map(|event| text(&event.unwrap())), Some("a".into()));
    assert!(kept.next().await.is_none());
}

fn some_nse() -> impl Strategy<Value = Nse> {
    let service = prop::sample::select(vec!["s1", "s2", "s3"]);
    let name = prop::sample::select(vec!["a", "b", "c", "d", "e"]);
    (name, prop::collection::vec(service, 0..4), prop::bool::ANY, prop::sample::select(vec!["", "u1", "u2"])).prop_map(
        |(name, services, label, url)| {
            let mut nse = nse(name, &services);
            url.clone_into(&mut nse.url);
            if label { labelled(nse, "s1", "k", "v") } else { nse }
        },
    )
}

fn some_pattern() -> impl Strategy<Value = Nse> {
    (some_nse(), prop::bool::ANY).prop_map(|(mut pattern, named)| {
        if !named {
            pattern.name.clear();
        }
        pattern
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The index answers as a scan of everything would; and a watcher who reads now and then, by applying
    /// what it reads, knows at the end what a Find would tell.
    #[test]
    fn the_index_and_its_watchers_agree_with_a_scan(
        steps in prop::collection::vec((some_nse(), 0_u8..4, prop::bool::ANY), 1..40),
        patterns in prop::collection::vec(some_pattern(), 1..6),
    ) {
        let store = Store::<Nse>::default();
        let mut model = BTreeMap::<String, Nse>::new();
        let mut watchers: Vec<_> = patterns
            .iter()
            .map(|pattern| (store.watch(Nse::query(pattern.clone(), true)), BTreeMap::<String, Nse>::new()))
            .collect();
        let read = |(watching, known): &mut (store::Watching<Nse>, BTreeMap<String, Nse>)| {
            while let Some(Some(Ok(change))) = watching.next().now_or_never() {
                let record = (*change.record).clone();
                if change.deleted {
                    assert!(known.remove(&record.name).is_some(), "told of the end of what it did not know");
                } else {
                    known.insert(record.name.clone(), record);
                }
            }
        };
        for (nse, kind, now) in steps {
            if kind == 0 {
                prop_assert_eq!(store.remove(&nse.name).is_some(), model.remove(&nse.name).is_some());
            } else {
                model.insert(nse.name.clone(), nse.clone());
                store.put(Arc::new(nse));
            }
            if now {
                watchers.iter_mut().for_each(read);
            }
        }
        watchers.iter_mut().for_each(read);
        for (pattern, (_, known)) in patterns.into_iter().zip(&watchers) {
            let query = Nse::query(pattern, false);
            let scanned: Vec<_> = model.values().filter(|nse| nse.answers(&query)).cloned().collect();
            let found: Vec<_> = store.find(&query).iter().map(|nse| (**nse).clone()).collect();
            prop_assert_eq!(&found, &scanned);
            prop_assert_eq!(known.values().cloned().collect::<Vec<_>>(), scanned);
        }
    }
}
