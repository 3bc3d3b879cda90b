//! What watchers of a hop are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use nsm_api::ServiceUrl;
use nsm_api::connection::{ConnectionEvent, ConnectionEventType, MonitorScopeSelector, Path, PathSegment, State};
use nsm_chain::{Call, EventStream, OwnedNext, Peer, Service, Watch, elements, from_fn};
use nsm_sdk::connect::InProcess;
use nsm_sdk::identity::{HmacTokens, PolicySet};
use nsm_sdk::lifetime::UpstreamRefresh;
use nsm_sdk::stacks::{Client, Endpoint, Hop};
use nsm_sdk::testing::Node;

use crate::kit::{Count, Match, SOON, ask, mesh_of, nothing_left, pass, service};

fn any() -> MonitorScopeSelector {
    MonitorScopeSelector::default()
}

fn through(segments: &[(&str, &str)]) -> MonitorScopeSelector {
    let segment =
        |(name, id): &(&str, &str)| PathSegment { name: (*name).into(), id: (*id).into(), ..Default::default() };
    MonitorScopeSelector { path_segments: segments.iter().map(segment).collect(), network_services: Vec::new() }
}

fn of_services(names: &[&str]) -> MonitorScopeSelector {
    MonitorScopeSelector {
        path_segments: Vec::new(),
        network_services: names.iter().map(|name| (*name).into()).collect(),
    }
}

/// Watches the hop at this URL.
async fn watch(node: &Node, url: &str, selector: MonitorScopeSelector) -> EventStream<Service> {
    let link = node.links("watcher").unwrap();
    link.link(url).await.unwrap().monitor(Watch::new(selector)).await.unwrap()
}

async fn next(events: &mut EventStream<Service>) -> Arc<ConnectionEvent> {
    tokio::time::timeout(SOON, events.next()).await.expect("an event").unwrap().unwrap()
}

/// What has come by now: the kind, and the state of each connection by the id of its first path segment.
fn come(events: &mut EventStream<Service>) -> Vec<(ConnectionEventType, BTreeMap<String, State>)> {
    let mut all = Vec::new();
    while let Some(Some(event)) = events.next().now_or_never() {
        all.push(told(&event.unwrap()));
    }
    all
}

fn told(event: &ConnectionEvent) -> (ConnectionEventType, BTreeMap<String, State>) {
    let first = |connection: &nsm_api::Connection| connection.path.as_ref().unwrap().path_segments[0].id.clone();
    let states = event.connections.values().map(|connection| (first(connection), connection.state()));
    (event.r#type(), states.collect())
}

fn is(kind: ConnectionEventType, states: &[(&str, State)]) -> (ConnectionEventType, BTreeMap<String, State>) {
    (kind, states.iter().map(|(id, state)| ((*id).to_owned(), *state)).collect())
}

use ConnectionEventType::{Delete, InitialStateTransfer, Update};

#[tokio::test(start_paused = true)]
async fn a_watcher_gets_one_initial_transfer_then_updates_then_the_deletion() {
    let (_mesh, nodes) = mesh_of(1).await;
    nodes[0].endpoint("nse", "vpn", elements![]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    for url in [nodes[0].manager_url(), "mem://forwarder-1", "mem://nse"] {
        let mut empty = watch(&nodes[0], url, any()).await;
        assert_eq!(come(&mut empty), [is(InitialStateTransfer, &[])]);
        let connection = ask(&client, "vpn", "c").await.unwrap();
        let mut full = watch(&nodes[0], url, any()).await;
        assert_eq!(come(&mut full), [is(InitialStateTransfer, &[("c", State::Up)])], "{url}");
        assert_eq!(come(&mut empty), [is(Update, &[("c", State::Up)])], "{url}");

        let again = ask(&client, "vpn", "c").await.unwrap();
        assert_eq!(come(&mut full), [is(Update, &[("c", State::Up)])], "{url}");
        client.close(again, SOON).await.unwrap();
        assert_eq!(come(&mut full), [is(Delete, &[("c", State::Up)])], "{url}");
        drop(connection);
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_shows_the_connection_as_that_hop_has_it() {
    let (_mesh, nodes) = mesh_of(2).await;
    nodes[1].endpoint("nse", "vpn", elements![]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    let connection = ask(&client, "vpn", "c").await.unwrap();
    let segments = &connection.path.as_ref().unwrap().path_segments;
    for (index, url) in
        [nodes[0].manager_url(), "mem://forwarder-1", nodes[1].manager_url(), "mem://forwarder-2", "mem://nse"]
            .iter()
            .enumerate()
    {
        let event = next(&mut watch(&nodes[0], url, any()).await).await;
        let (key, seen) = event.connections.first_key_value().unwrap();
        let path = seen.path.as_ref().unwrap();
        assert_eq!((path.index as usize, &seen.id, key), (index + 1, &segments[index + 1].id, &seen.id));
        let ids: Vec<_> = path.path_segments.iter().map(|segment| &segment.id).collect();
        assert_eq!(ids, segments.iter().map(|segment| &segment.id).collect::<Vec<_>>(), "the whole path, at {url}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_selector_is_a_run_of_the_path_or_a_list_of_services() {
    let (mesh, nodes) = mesh_of(1).await;
    mesh.network_service("other").await.unwrap();
    nodes[0].endpoint("nse", "vpn", elements![]).await.unwrap();
    nodes[0].endpoint("nse-other", "other", elements![]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    let second = nodes[0].client("nsc-2").build().unwrap();
    ask(&client, "vpn", "a").await.unwrap();
    ask(&client, "other", "b").await.unwrap();
    ask(&second, "vpn", "x").await.unwrap();
    let seen = async |selector| {
        let event = next(&mut watch(&nodes[0], nodes[0].manager_url(), selector).await).await;
        told(&event).1.into_keys().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(seen(any()).await, "a b x");
    assert_eq!(seen(through(&[("nsc", "")])).await, "a b");
    assert_eq!(seen(through(&[("", "x")])).await, "x");
    assert_eq!(seen(through(&[("nsc", "x")])).await, "");
    assert_eq!(seen(through(&[("nsc", ""), ("nsmgr-1", "")])).await, "a b");
    assert_eq!(seen(through(&[("nsc", ""), ("forwarder-1", "")])).await, "", "not a run");
    assert_eq!(seen(through(&[("nse", "")])).await, "a x", "further on counts too");
    assert_eq!(seen(of_services(&["vpn"])).await, "a x");
    assert_eq!(seen(of_services(&["vpn", "other"])).await, "a b x");
    assert_eq!(seen(of_services(&["vp"])).await, "");
    let both = MonitorScopeSelector { network_services: vec!["other".into()], ..through(&[("nsc", "")]) };
    assert_eq!(seen(both).await, "b");
}

#[tokio::test(start_paused = true)]
async fn what_a_hop_deletes_its_callers_see_as_down_hop_by_hop() {
    let (_mesh, nodes) = mesh_of(2).await;
    let endpoint = nodes[1].endpoint("nse", "vpn", elements![]).await.unwrap();
    let client = nodes[0].client("nsc").without_heal().build().unwrap();
    ask(&client, "vpn", "c").await.unwrap();
    let urls = ["mem://nse", "mem://forwarder-2", nodes[1].manager_url(), "mem://forwarder-1", nodes[0].manager_url()];
    let mut watches = Vec::new();
    for url in urls {
        let mut events = watch(&nodes[0], url, any()).await;
        next(&mut events).await;
        watches.push(events);
    }
    endpoint.connections().handles()[0].close().await.unwrap();
    pass(Duration::from_secs(1)).await;
    let told: Vec<_> = watches.iter_mut().map(come).collect();
    assert_eq!(told[0], [is(Delete, &[("c", State::Up)])]);
    for told in &told[1..] {
        assert_eq!(*told, [is(Update, &[("c", State::Down)])]);
    }
    // Made again, it is up again everywhere.
    ask(&client, "vpn", "c").await.unwrap();
    pass(Duration::from_secs(1)).await;
    for events in &mut watches {
        assert_eq!(come(events).last(), Some(&is(Update, &[("c", State::Up)])));
    }
}

#[tokio::test(start_paused = true)]
async fn a_next_hop_that_is_lost_is_down() {
    let (mesh, nodes) = mesh_of(2).await;
    let endpoint = nodes[1].endpoint("nse", "vpn", elements![]).await.unwrap();
    let client = nodes[0].client("nsc").without_heal().build().unwrap();
    ask(&client, "vpn", "a").await.unwrap();
    ask(&client, "vpn", "b").await.unwrap();
    let mut events = watch(&nodes[0], nodes[0].manager_url(), any()).await;
    next(&mut events).await;
    endpoint.kill();
    pass(Duration::from_secs(1)).await;
    let down: BTreeMap<_, _> = come(&mut events).into_iter().flat_map(|(_, states)| states).collect();
    assert_eq!(down, is(Update, &[("a", State::Down), ("b", State::Down)]).1);
    assert_eq!(mesh.kept().len(), 4, "nothing was closed: that is for the initiator to do");
}

#[tokio::test(start_paused = true)]
async fn what_a_lost_answer_left_at_the_next_hop_ends_without_news_of_what_stands() {
    let (mesh, nodes) = mesh_of(1).await;
    let count = Count::default();
    nodes[0].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    ask(&client, "vpn", "c").await.unwrap();
    // The same asked for once more by somebody who never heard of the first answer, and does not hear of this one.
    let segment = PathSegment { name: "nsc".into(), id: "c".into(), ..Default::default() };
    let path = Some(Path { index: 0, path_segments: vec![segment] });
    let url: ServiceUrl = "kernel://vpn/nsm-2".parse().unwrap();
    let mut lost = url.to_request("c");
    lost.connection.as_mut().unwrap().path = path;
    let lost = Call::request(lost.connection.unwrap(), lost.mechanism_preferences);
    let manager = nodes[0].links("nsc").unwrap().link(nodes[0].manager_url()).await.unwrap();
    let left = manager.request(lost.within(SOON)).await.unwrap();
    assert_eq!(count.requests(), 2);
    manager.close(Call::new(left.into_body()).within(SOON)).await.unwrap();
    pass(Duration::from_secs(1)).await;
    assert_eq!(count.both(), (2, 1), "nothing was healed");
    assert_eq!(mesh.kept().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_changes_further_on_arrives_with_its_context() {
    let (_mesh, nodes) = mesh_of(2).await;
    let mtu = Arc::new(std::sync::atomic::AtomicU32::new(1400));
    let now = Arc::clone(&mtu);
    let sets = from_fn(move |mut call: Call, next: OwnedNext| {
        let mtu = now.load(Ordering::SeqCst);
        call.body_mut().context.get_or_insert_default().mtu = mtu;
        async move { next.request(call).await }
    });
    let endpoint = nodes[1].endpoint("nse", "vpn", elements![sets]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    ask(&client, "vpn", "c").await.unwrap();
    let mut events = watch(&nodes[0], nodes[0].manager_url(), any()).await;
    next(&mut events).await;
    mtu.store(1300, Ordering::SeqCst);
    // As an endpoint does that has news for its clients.
    endpoint.connections().handles()[0].request(nsm_chain::Why::Refresh).await.unwrap();
    let event = next(&mut events).await;
    let connection = event.connections.values().next().unwrap();
    assert_eq!((connection.context.as_ref().unwrap().mtu, connection.state()), (1300, State::Up));
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_does_not_read_blocks_nobody_and_finds_the_latest_of_each() {
    let (mesh, nodes) = mesh_of(1).await;
    let count = Count::default();
    nodes[0].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    let mut slow = watch(&nodes[0], nodes[0].manager_url(), any()).await;
    let mut quick = watch(&nodes[0], nodes[0].manager_url(), any()).await;
    for _ in 0..500 {
        ask(&client, "vpn", "a").await.unwrap();
        ask(&client, "vpn", "b").await.unwrap();
        assert!(!come(&mut quick).is_empty());
    }
    client.shutdown(SOON).await.unwrap();
    let told = come(&mut slow);
    assert_eq!(told, [is(InitialStateTransfer, &[]), is(Delete, &[("a", State::Up), ("b", State::Up)])]);
    assert_eq!(count.requests(), 1000);
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn one_stream_between_two_hops_serves_all_their_connections() {
    let (mesh, nodes) = mesh_of(1).await;
    nodes[0].endpoint("nse", "vpn", elements![]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    for id in 0..100 {
        ask(&client, "vpn", &id.to_string()).await.unwrap();
    }
    for kept in mesh.kept() {
        assert_eq!((kept.connections, kept.watchers), (100, 1), "{kept:?}");
    }
    client.shutdown(SOON).await.unwrap();
    pass(Duration::from_secs(10)).await;
    nothing_left(&mesh, &[&client]).await;
}

fn peer(name: &str) -> Arc<Peer> {
    let id = format!("spiffe://example.org/{name}").parse().unwrap();
    Arc::new(Peer { id, certificate: Arc::from([]), not_after: nsm_chain::time::now() + Duration::from_secs(86_400) })
}

#[tokio::test(start_paused = true)]
async fn a_watcher_sees_only_what_its_own_identity_asked_for() {
    let hops = InProcess::<Service>::default();
    let tokens = |name: &str| Arc::new(HmacTokens::new(&peer(name).id));
    let hop = Hop::new("nse", tokens("nse")).with_policies(PolicySet::allow_all());
    hops.serve("mem://nse", Endpoint::new(&hop, elements![]).unwrap().chain);
    let seen_by = |name: &str| hops.seen_by(Some(peer(name)), tokens(name)).links();
    let mut clients = Vec::new();
    for name in ["alice", "bob"] {
        let client =
            Client::builder(name, "mem://nse", seen_by(name)).policies(PolicySet::allow_all()).build().unwrap();
        ask(&client, "vpn", name).await.unwrap();
        clients.push(client);
    }
    for name in ["alice", "bob", "eve"] {
        let link = seen_by(name).link("mem://nse").await.unwrap();
        for selector in [any(), through(&[("", "bob")]), through(&[("bob", "")])] {
            let mine = name == "alice" && selector == any() || name == "bob";
            let mut events = link.monitor(Watch::new(selector)).await.unwrap();
            let expected: &[_] = if mine { &[(name, State::Up)] } else { &[] };
            assert_eq!(come(&mut events), [is(InitialStateTransfer, expected)], "{name}");
        }
    }
}

/// Lets only watchers in who name the connection they want.
struct OnlyById;

impl nsm_chain::Element for OnlyById {
    async fn monitor(&self, watch: Watch, next: nsm_chain::Next<'_>) -> nsm_chain::Result<EventStream<Service>> {
        if watch.query.path_segments.iter().any(|segment| !segment.id.is_empty()) {
            next.monitor(watch).await
        } else {
            Err(nsm_chain::Error::denied("which connection?"))
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_next_hop_that_wants_one_stream_a_connection_is_heard_for_each() {
    let hops = InProcess::<Service>::default();
    let tokens = |name: &str| Arc::new(HmacTokens::new(&peer(name).id));
    let serve = |count: &Count| {
        let hop = Hop::new("nse", tokens("nse")).with_policies(PolicySet::allow_all());
        let endpoint = Endpoint::new(&hop, elements![count.clone()]).unwrap();
        let chain = nsm_chain::Chain::new("nse", elements![OnlyById, endpoint.chain.clone()]).unwrap();
        hops.serve("mem://nse", chain);
        endpoint
    };
    let count = Count::default();
    let endpoint = serve(&count);
    let links = hops.seen_by(None, tokens("nsc")).links();
    let client = Client::builder("nsc", "mem://nse", links).policies(PolicySet::allow_all()).build().unwrap();
    for id in ["a", "b", "c"] {
        ask(&client, "vpn", id).await.unwrap();
        pass(Duration::from_secs(1)).await;
    }
    assert_eq!((count.requests(), endpoint.monitor.counts()), (3, (3, 3)));
    // Each of them is heard when it is closed there, and made again.
    for (closed, handle) in endpoint.connections.handles().into_iter().enumerate() {
        handle.close().await.unwrap();
        pass(Duration::from_secs(1)).await;
        assert_eq!((count.requests(), endpoint.monitor.counts()), (4 + closed, (3, 3)));
    }
    // All of them when the hop is lost, and from then on again.
    drop(endpoint);
    let endpoint = serve(&count);
    pass(Duration::from_secs(10)).await;
    assert_eq!((count.requests(), endpoint.monitor.counts()), (9, (3, 3)));
    endpoint.connections.handles()[0].close().await.unwrap();
    pass(Duration::from_secs(1)).await;
    assert_eq!((count.requests(), endpoint.monitor.counts()), (10, (3, 3)));
    client.shutdown(SOON).await.unwrap();
    pass(Duration::from_secs(10)).await;
    assert_eq!(endpoint.monitor.counts(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_comes_through_a_hop_twice_is_told_apart() {
    let (mesh, nodes) = mesh_of(1).await;
    let rules = vec![Match::from(&[("app", "1")]).to(&[("app", "2")]), Match::from(&[]).to(&[("app", "1")])];
    mesh.apply(service("chain", rules)).await.unwrap();
    nodes[0].passthrough("nse-1", "chain", [("app", "1")], elements![]).await.unwrap();
    nodes[0].endpoint_with("nse-2", "chain", [("app", "2")], elements![]).await.unwrap();
    let client = nodes[0].client("nsc").without_heal().build().unwrap();
    let connection = ask(&client, "chain", "c").await.unwrap();
    // What the forwarder reports of the second pass is no news of the first: else it would go round for ever.
    let handles = mesh.running("forwarder-1").unwrap().connections().handles();
    let second = handles.iter().find(|handle| handle.peek().unwrap().path.as_ref().unwrap().index == 5).unwrap();
    second.request(nsm_chain::Why::Refresh).await.unwrap();
    pass(Duration::from_secs(1)).await;
    let event = next(&mut watch(&nodes[0], nodes[0].manager_url(), any()).await).await;
    let mut passes: Vec<_> =
        event.connections.values().map(|seen| (seen.path.as_ref().unwrap().index, seen.state())).collect();
    passes.sort_by_key(|(index, _)| *index);
    assert_eq!(passes, [(1, State::Up), (4, State::Up)]);
    client.close(connection, SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_wants_to_be_asked_again_is_asked_again_once() {
    let (mesh, nodes) = mesh_of(1).await;
    mesh.network_service("vpn").await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let unsettled = from_fn(move |call: Call, next: OwnedNext| {
        let count = Arc::clone(&count);
        async move {
            let mut call = next.request(call).await?;
            if count.fetch_add(1, Ordering::Relaxed) == 0 {
                call.connection_mut().set_state(State::RefreshRequested);
            }
            Ok(call)
        }
    });
    nodes[0].endpoint("nse", "vpn", elements![unsettled]).await.unwrap();
    let client = nodes[0].client("nsc").with(elements![UpstreamRefresh::default()]).build().unwrap();
    let connection = ask(&client, "vpn", "c").await.unwrap();
    pass(Duration::from_secs(10)).await;
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    client.close(connection, SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

/// Lets nobody watch.
struct NoWatching;

impl nsm_chain::Element for NoWatching {
    async fn monitor(&self, _: Watch, _: nsm_chain::Next<'_>) -> nsm_chain::Result<EventStream<Service>> {
        Err(nsm_chain::Error::denied("nobody may watch here"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_next_hop_that_lets_nobody_watch_is_not_healed_for_ever() {
    let hops = InProcess::<Service>::default();
    let tokens = |name: &str| Arc::new(HmacTokens::new(&peer(name).id));
    let count = Count::default();
    let hop = Hop::new("nse", tokens("nse")).with_policies(PolicySet::allow_all());
    let endpoint = Endpoint::new(&hop, elements![count.clone()]).unwrap();
    hops.serve("mem://nse", nsm_chain::Chain::new("nse", elements![NoWatching, endpoint.chain.clone()]).unwrap());
    let links = hops.seen_by(None, tokens("nsc")).links();
    let client = Client::builder("nsc", "mem://nse", links).policies(PolicySet::allow_all()).build().unwrap();
    ask(&client, "vpn", "c").await.unwrap();
    pass(Duration::from_secs(60)).await;
    assert_eq!(count.both(), (1, 0));
    // It is refreshed all the same.
    pass(Duration::from_secs(3600)).await;
    assert!((3..20).contains(&count.requests()), "{} requests in an hour", count.requests());
    client.shutdown(SOON).await.unwrap();
}
