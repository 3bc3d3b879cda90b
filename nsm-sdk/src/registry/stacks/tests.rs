//! The stacks with each other: clients, managers and registries, on a paused clock.

use std::sync::Arc;

use futures::StreamExt;
use nsm_api::SpiffeId;
use nsm_api::registry::NetworkService;
use nsm_chain::{Call, Chain, Code, Node, Peer, RegistryPath, Timers, Tokens, time};

use super::*;
use crate::connect::{Connect, InProcess};
use crate::identity::{HmacTokens, Policy, PolicySet};
use crate::registry::testing::{
    Nse, find, named, names, nse, of_service, register, seconds, service, settle, text, watch,
};
use crate::registry::{ClientInfo, Endpoints, Services};

/// Hops of both protocols in one process.
#[derive(Clone, Default)]
struct Hops {
    services: InProcess<Services>,
    endpoints: InProcess<Endpoints>,
}

impl Hops {
    fn serve(&self, url: &str, services: &Chain<Services>, endpoints: &Chain<Endpoints>) {
        self.services.serve(url, services.clone());
        self.endpoints.serve(url, endpoints.clone());
    }

    fn stop(&self, url: &str) {
        self.services.stop(url);
        self.endpoints.stop(url);
    }

    /// The way to a hop, for somebody with tokens.
    fn to(&self, url: &str, who: &str) -> (Node<Services>, Node<Endpoints>) {
        let peer = Arc::new(Peer { id: id(who), certificate: Arc::from([]), not_after: time::now() + seconds(86_400) });
        let services = self.services.seen_by(Some(Arc::clone(&peer)), tokens(who)).links();
        let endpoints = self.endpoints.seen_by(Some(peer), tokens(who)).links();
        (Node::new(Connect::new(services).to(url)), Node::new(Connect::new(endpoints).to(url)))
    }

    fn registry(&self) -> MemoryRegistry {
        let registry = MemoryRegistry::builder("registry", admission("registry")).build().unwrap();
        self.serve("mem://registry", &registry.services, &registry.endpoints);
        registry
    }

    fn manager(&self, name: &str) -> ManagerRegistry {
        let (services, endpoints) = self.to("mem://registry", name);
        let labels = [("nodeName".to_owned(), format!("node-of-{name}"))].into();
        let manager = ManagerRegistry::builder(name, format!("mem://{name}"), admission(name))
            .ending_in(services, endpoints)
            .client_info(ClientInfo::new(labels))
            .build()
            .unwrap();
        self.serve(&format!("mem://{name}"), &manager.services, &manager.endpoints);
        manager
    }

    fn client(&self, name: &str, url: &str) -> RegistryClient {
        let (services, endpoints) = self.to(url, name);
        RegistryClient::builder(name).ending_in(services, endpoints).seeded(1).build().unwrap()
    }
}

pub(super) fn id(name: &str) -> SpiffeId {
    format!("spiffe://mesh/{name}").parse().unwrap()
}

pub(super) fn tokens(name: &str) -> Arc<dyn Tokens> {
    Arc::new(HmacTokens::new(&id(name)))
}

pub(super) fn admission(name: &str) -> Admission {
    Admission::by(tokens(name)).policies(PolicySet::of([
        Policy::TokensValid,
        Policy::TokensExpired,
        Policy::ClientAllowed,
    ]))
}

pub(super) fn asking(nse: Nse) -> Call<Endpoints> {
    let mut call = Call::new(nse);
    *call.extra_mut() = Some(RegistryPath::default());
    call
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_registers_through_its_manager_and_is_reached_through_it() {
    let hops = Hops::default();
    let registry = hops.registry();
    let (here, there) = (hops.manager("nsmgr-1"), hops.manager("nsmgr-2"));
    let client = hops.client("nse-1", "mem://nsmgr-1");
    let mut vpn = nse("nse-1", &["vpn"]);
    vpn.network_service_labels.insert("vpn".into(), Default::default());
    let registered = client.endpoints.request(asking(vpn)).await.unwrap();
    assert_eq!(registered.body().url, "unix:///nse-1");
    let stored = &find(&registry.endpoints, named("nse-1")).await[0];
    assert_eq!(stored.url, "mem://nsmgr-1");
    assert_eq!(stored.path_ids, ["nse-1", "nsmgr-1", "registry"].map(|name| id(name).to_string()));
    assert_eq!(stored.network_service_labels["vpn"].labels["nodeName"], "node-of-nsmgr-1");
    assert!(stored.initial_registration_time.is_some() && stored.expiration_time.is_some());
    assert_eq!(here.finder.endpoint("nse-1").await.unwrap().url, "unix:///nse-1");
    assert_eq!(there.finder.endpoint("nse-1").await.unwrap().url, "mem://nsmgr-1");
    assert_eq!(here.finder.forwarders("vpn", "mem://nsmgr-1").await.unwrap().len(), 1);
    assert!(there.finder.forwarders("vpn", "mem://nsmgr-2").await.unwrap().is_empty());
    client.unregister_all().await.unwrap();
    assert!(names(&registry.endpoints, named("")).await.is_empty());
    settle().await;
    assert_eq!(there.finder.endpoint("nse-1").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_restarts_is_filled_again_through_the_managers() {
    let hops = Hops::default();
    hops.registry();
    let (_one, two) = (hops.manager("nsmgr-1"), hops.manager("nsmgr-2"));
    let clients: Vec<_> = (0..10)
        .map(|number| hops.client(&format!("nse-{number}"), if number < 5 { "mem://nsmgr-1" } else { "mem://nsmgr-2" }))
        .collect();
    for (number, client) in clients.iter().enumerate() {
        let mut vpn = Call::new(service("vpn"));
        *vpn.extra_mut() = Some(RegistryPath::default());
        if number == 0 {
            client.services.request(vpn).await.unwrap();
        }
        client.endpoints.request(asking(nse(&format!("nse-{number}"), &["vpn"]))).await.unwrap();
    }
    assert_eq!(two.finder.endpoints_of("vpn").await.unwrap().len(), 10);
    hops.stop("mem://registry");
    tokio::time::sleep(seconds(20)).await;
    let fresh = hops.registry();
    tokio::time::sleep(seconds(15)).await;
    assert_eq!(names(&fresh.endpoints, of_service("vpn")).await.len(), 10);
    assert_eq!(two.finder.endpoints_of("vpn").await.unwrap().len(), 10);
    assert_eq!(two.finder.service("vpn", "IP").await.unwrap().name, "vpn");
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_restarts_learns_its_endpoints_again() {
    let hops = Hops::default();
    let registry = hops.registry();
    hops.manager("nsmgr-1");
    let client = hops.client("nse-1", "mem://nsmgr-1");
    client.endpoints.request(asking(nse("nse-1", &["vpn"]))).await.unwrap();
    settle().await;
    hops.stop("mem://nsmgr-1");
    tokio::time::sleep(seconds(5)).await;
    let fresh = hops.manager("nsmgr-1");
    // Left over from the earlier life: nobody could be reached by it.
    assert_eq!(fresh.finder.endpoint("nse-1").await.unwrap_err().code(), Code::NotFound);
    tokio::time::sleep(seconds(10)).await;
    assert_eq!(fresh.finder.endpoint("nse-1").await.unwrap().url, "unix:///nse-1");
    assert_eq!(names(&registry.endpoints, named("")).await, ["nse-1"]);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_dies_expires_everywhere() {
    let hops = Hops::default();
    let registry = hops.registry();
    let manager = hops.manager("nsmgr-1");
    let (_, direct) = hops.to("mem://nsmgr-1", "nse-1");
    let dying = Chain::new("nse-1", vec![direct]).unwrap();
    dying.request(asking(nse("nse-1", &["vpn"]))).await.unwrap();
    assert_eq!(manager.finder.endpoints_of("vpn").await.unwrap().len(), 1);
    tokio::time::sleep(seconds(61)).await;
    assert!(names(&registry.endpoints, named("")).await.is_empty());
    assert!(manager.finder.endpoints_of("vpn").await.unwrap().is_empty());
    // Its name is still its own.
    let (_, other) = hops.to("mem://nsmgr-1", "somebody-else");
    let other = Chain::new("other", vec![other]).unwrap();
    assert_eq!(other.request(asking(nse("nse-1", &[]))).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test(start_paused = true)]
async fn a_client_waits_for_its_registry_until_its_time_is_over() {
    let hops = Hops::default();
    let client = hops.client("nse-1", "mem://registry");
    let error = client.endpoints.request(asking(nse("nse-1", &[])).within(seconds(5))).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.to_string().contains("nobody serves mem://registry"), "{error}");
    let late =
        tokio::spawn(async move { client.endpoints.request(asking(nse("nse-1", &[])).within(seconds(60))).await });
    tokio::time::sleep(seconds(20)).await;
    let registry = hops.registry();
    late.await.unwrap().unwrap();
    assert_eq!(names(&registry.endpoints, named("")).await, ["nse-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_manager_without_a_registry_keeps_the_records_itself() {
    let timers = Timers::default();
    let manager =
        ManagerRegistry::builder("nsmgr", "unix:///nsmgr", Admission::open()).timers(timers.clone()).build().unwrap();
    register(&manager.services, service("vpn")).await.unwrap();
    register(&manager.endpoints, nse("fwd", &["forwarder"])).await.unwrap();
    assert_eq!(manager.finder.service("vpn", "").await.unwrap().payload, "IP");
    assert_eq!(manager.finder.forwarders("forwarder", "unix:///nsmgr").await.unwrap()[0].url, "unix:///fwd");
    assert_eq!(timers.armed(), 1);
    tokio::time::sleep(seconds(61)).await;
    assert!(manager.finder.endpoints_of("forwarder").await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_managers_watch_of_a_service_survives_the_registry() {
    let hops = Hops::default();
    let registry = hops.registry();
    let manager = hops.manager("nsmgr-1");
    let ethernet = NetworkService { payload: "ETHERNET".into(), ..service("vpn") };
    register_service(&registry, service("vpn")).await;
    let mut changes = manager.finder.watch_service("vpn").await.unwrap();
    assert_eq!(changes.next().await.unwrap().unwrap().record.payload, "IP");
    let fresh = hops.registry();
    register_service(&fresh, ethernet).await;
    loop {
        let change = changes.next().await.unwrap().unwrap();
        if !change.deleted {
            assert_eq!(change.record.payload, "ETHERNET");
            break;
        }
    }
}

async fn register_service(registry: &MemoryRegistry, service: NetworkService) {
    let token = tokens("admin").token(None).unwrap();
    let mut call = Call::new(service).from_peer(None, Some(token));
    *call.extra_mut() = Some(RegistryPath::default());
    registry.services.request(call).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_watch_through_a_client_stack_goes_on_after_a_restart() {
    let hops = Hops::default();
    hops.registry();
    let client = hops.client("nsc", "mem://registry");
    client.endpoints.request(asking(nse("nse-1", &["vpn"]))).await.unwrap();
    let mut events = client.finder().watch_endpoints(of_service("vpn")).await.unwrap();
    assert_eq!(text(&events.next().await.unwrap().unwrap()), "nse-1");
    hops.stop("mem://registry");
    tokio::time::sleep(seconds(10)).await;
    let fresh = hops.registry();
    tokio::time::sleep(seconds(15)).await;
    assert_eq!(names(&fresh.endpoints, named("")).await, ["nse-1"]);
    // Gone with the old registry, or the same again: either way the last word is that it is there.
    let mut last = String::new();
    while let Ok(Some(change)) = tokio::time::timeout(seconds(1), events.next()).await {
        last = text(&change.unwrap());
    }
    assert_eq!(last, "nse-1");
}

#[test]
fn stacks_read_in_the_order_in_which_calls_run() {
    let registry = MemoryRegistry::builder("registry", admission("registry")).build().unwrap();
    let order: Vec<_> = registry.endpoints.names().collect();
    assert_eq!(
        order,
        ["UpdateRegistryPath", "AuthorizeRegistry", "Begin", "RegistrationTime", "Expire", "Interdomain", "Memory"]
    );
    let order: Vec<_> = registry.services.names().collect();
    assert_eq!(order, ["UpdateRegistryPath", "AuthorizeRegistry", "DefaultPayload", "Interdomain", "Memory"]);
}

/// The reference's managers stop answering at a hundred.
#[tokio::test(start_paused = true)]
async fn a_find_has_as_many_results_as_there_are_on_every_way_through_a_manager() {
    const MANY: usize = 1000;
    let hops = Hops::default();
    let registry = hops.registry();
    let manager = hops.manager("nsmgr-1");
    let client = hops.client("nse", "mem://nsmgr-1");
    for number in 0..MANY {
        client.endpoints.request(asking(nse(&format!("nse-{number}"), &["vpn"]))).await.unwrap();
    }
    assert_eq!(names(&registry.endpoints, of_service("vpn")).await.len(), MANY);
    assert_eq!(manager.finder.endpoints_of("vpn").await.unwrap().len(), MANY);
    assert_eq!(manager.finder.forwarders("vpn", "mem://nsmgr-1").await.unwrap().len(), MANY);
    assert_eq!(client.finder().endpoints_of("vpn").await.unwrap().len(), MANY);
    let watched = client.finder().watch_endpoints(of_service("vpn")).await.unwrap();
    assert_eq!(watched.take(MANY).count().await, MANY);

    let alone = ManagerRegistry::builder("nsmgr", "unix:///nsmgr", Admission::open()).build().unwrap();
    for number in 0..MANY {
        register(&alone.endpoints, nse(&format!("nse-{number}"), &["vpn"])).await.unwrap();
    }
    assert_eq!(alone.finder.endpoints_of("vpn").await.unwrap().len(), MANY);
    assert_eq!(alone.finder.forwarders("vpn", "unix:///nsmgr").await.unwrap().len(), MANY);
}

#[tokio::test(start_paused = true)]
async fn an_empty_registry_learns_all_again_at_once_and_is_asked_no_more_than_once_for_each() {
    const MANY: usize = 1000;
    let hops = Hops::default();
    hops.registry();
    let client = hops.client("nse", "mem://registry");
    for number in 0..MANY {
        client.endpoints.request(asking(nse(&format!("nse-{number}"), &["vpn"]))).await.unwrap();
    }
    settle().await;
    let fresh = hops.registry();
    let mut told = watch(&fresh.endpoints, named("")).await;
    let mut count = 0;
    while let Ok(Some(change)) = tokio::time::timeout(seconds(15), told.next()).await {
        assert!(!change.unwrap().deleted);
        count += 1;
    }
    assert_eq!((count, names(&fresh.endpoints, named("")).await.len()), (MANY, MANY));
}
