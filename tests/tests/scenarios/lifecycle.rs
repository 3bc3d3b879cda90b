//! What an application is told of its connection, and what an endpoint is told of its clients.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use nsm_api::networkservice::NetworkServiceRequest;
use nsm_chain::{Call, Element, Next, Result, Why, elements};
use nsm_sdk::lifecycle::{Change, Changes, Ending, Lifecycle, Part};
use nsm_sdk::lifetime::Reason;
use nsm_sdk::stacks::{Client, Session};
use tokio::time::Instant;

use crate::kit::{Count, EVERY, Match, Packets, SOON, ask, mesh_of, mesh_with_token_life, pass, service};

async fn connect(client: &Client, name: &str) -> Session {
    client.connect(&format!("kernel://{name}/nsm-1").parse().unwrap(), "c", SOON).await.unwrap()
}

/// All that is told until now.
fn told(changes: &mut Changes) -> Vec<Change> {
    std::iter::from_fn(|| changes.next().now_or_never().flatten()).collect()
}

/// The same in words: what, why, and with which endpoint.
fn words(changes: &[Change]) -> Vec<String> {
    let word = |change: &Change| {
        let endpoint = change.interface().endpoint();
        match change {
            Change::Up(_) => format!("up {endpoint}"),
            Change::Changed { what, why, .. } => {
                let what: Vec<_> = what.iter().map(|part| part.as_str()).collect();
                format!("changed {} {} {endpoint}", what.join("+"), why.map_or("-", Reason::as_str))
            }
            Change::Down { why, .. } => format!("down {} {endpoint}", why.as_str()),
            Change::Gone { how, .. } => format!("gone {} {endpoint}", how.as_str()),
        }
    };
    changes.iter().map(word).collect()
}

/// Waits for a change like this; what came before it, and it, are added to `all`.
async fn until(changes: &mut Changes, all: &mut Vec<Change>, like: impl Fn(&Change) -> bool) {
    loop {
        let change = changes.next().await.unwrap();
        let found = like(&change);
        all.push(change);
        if found {
            return;
        }
    }
}

fn is_up(change: &Change) -> bool {
    matches!(change, Change::Up(_))
}

fn is_whole(change: &Change) -> bool {
    matches!(change, Change::Changed { now, .. } if now.broken().is_none())
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_dies_is_an_outage_and_the_next_one_its_end() {
    for remote in [0, 1] {
        let (_mesh, nodes) = mesh_of(2).await;
        let first = nodes[remote].endpoint("nse-1", "vpn", elements![]).await.unwrap();
        let client = nodes[0].client("nsc").build().unwrap();
        let session = connect(&client, "vpn").await;
        let (mut changes, mut all) = (session.changes(), Vec::new());
        until(&mut changes, &mut all, is_up).await;

        nodes[remote].endpoint("nse-2", "vpn", elements![]).await.unwrap();
        first.kill();
        until(&mut changes, &mut all, is_up).await;
        // How much the reader hears of the search for the reason is a matter of when it looks.
        all.retain(|change| !matches!(change, Change::Changed { .. }));
        assert_eq!(words(&all), ["up nse-1", "down endpoint-gone nse-1", "up nse-2"]);
        assert_eq!(words(&told(&mut session.changes())), ["up nse-2"], "who comes late is told what there is");

        session.close(SOON).await.unwrap();
        assert_eq!(words(&told(&mut changes)), ["gone closed nse-2"]);
        assert!(changes.next().await.is_none() && !session.is_up());
        assert_eq!(session.interface().endpoint(), "nse-2", "as it was last");
        assert!(client.session("c").is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_day_of_refreshes_is_not_worth_a_word() {
    let (_mesh, nodes) = mesh_of(2).await;
    let count = Count::default();
    nodes[1].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    let mut changes = connect(&client, "vpn").await.changes();
    pass(Duration::from_secs(86_400)).await;
    assert!(count.requests() > 50);
    assert_eq!(words(&told(&mut changes)), ["up nse"]);
}

/// Gives an address that somebody else may change.
#[derive(Clone, Default)]
struct Renumbered(Arc<AtomicUsize>);

impl Element for Renumbered {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let address = format!("10.0.0.{}/32", self.0.load(Ordering::SeqCst));
        call.connection_mut().context.get_or_insert_default().ip_context.get_or_insert_default().src_ip_addrs =
            vec![address];
        next.request(call).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_brings_other_addresses_is_a_change_of_addresses() {
    let (_mesh, nodes) = mesh_of(1).await;
    let addresses = Renumbered::default();
    nodes[0].endpoint("nse", "vpn", elements![addresses.clone()]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    let session = connect(&client, "vpn").await;
    let mut changes = session.changes();
    assert_eq!(words(&told(&mut changes)), ["up nse"]);
    addresses.0.store(7, Ordering::SeqCst);
    let Some(Change::Changed { what, why, now }) = changes.next().await else { panic!("it is no change") };
    assert_eq!((what.into_iter().collect::<Vec<_>>(), why), (vec![Part::Addresses], None));
    assert_eq!(now.addresses().collect::<Vec<_>>(), ["10.0.0.7/32".parse().unwrap()]);
    assert_eq!(session.interface().addresses().next(), Some("10.0.0.7/32".parse().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_moves_its_clients_tells_them_why_and_takes_nothing_away() {
    for witnessed in [true, false] {
        let (mesh, nodes) = mesh_of(2).await;
        mesh.apply(service("colours", vec![Match::from(&[]).to(&[("colour", "blue")])])).await.unwrap();
        for colour in ["blue", "green"] {
            nodes[1].endpoint_with(colour, "colours", [("colour", colour)], elements![]).await.unwrap();
        }
        let mut client = nodes[0].client("nsc");
        if witnessed {
            client = client.liveness(Arc::new(Packets::flowing()), EVERY, EVERY);
        }
        let client = client.build().unwrap();
        let session = connect(&client, "colours").await;
        let (mut changes, mut all) = (session.changes(), Vec::new());
        until(&mut changes, &mut all, is_up).await;
        mesh.apply(service("colours", vec![Match::from(&[]).to(&[("colour", "green")])])).await.unwrap();
        until(&mut changes, &mut all, is_whole).await;
        let words = words(&all);
        assert!(!words.iter().any(|word| word.starts_with("down")), "{words:?}");
        assert_eq!(words.last().unwrap(), "changed endpoint+path service-changed green");
    }
}

#[tokio::test(start_paused = true)]
async fn packets_that_stop_are_an_outage_whatever_the_hops_say() {
    let (_mesh, nodes) = mesh_of(2).await;
    nodes[1].endpoint("nse", "vpn", elements![]).await.unwrap();
    let packets = Packets::flowing();
    let client = nodes[0].client("nsc").liveness(Arc::new(packets.clone()), EVERY, EVERY).build().unwrap();
    let session = connect(&client, "vpn").await;
    let (mut changes, mut all) = (session.changes(), Vec::new());
    until(&mut changes, &mut all, is_up).await;
    packets.stop();
    until(&mut changes, &mut all, |change| matches!(change, Change::Down { .. })).await;
    packets.flow();
    until(&mut changes, &mut all, is_up).await;
    assert_eq!(words(&all), ["up nse", "down packets-stopped nse", "up nse"]);
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_restarts_is_no_outage_while_packets_flow() {
    let (_mesh, nodes) = mesh_of(2).await;
    nodes[1].endpoint("nse", "vpn", elements![]).await.unwrap();
    let client = nodes[0].client("nsc").liveness(Arc::new(Packets::flowing()), EVERY, EVERY).build().unwrap();
    let session = connect(&client, "vpn").await;
    let (mut changes, mut all) = (session.changes(), Vec::new());
    until(&mut changes, &mut all, is_up).await;
    nodes[0].stop_manager();
    until(&mut changes, &mut all, |change| change.interface().broken().is_some()).await;
    assert!(session.is_up() && session.interface().broken() == Some(Reason::NextHopLost));
    pass(Duration::from_secs(30)).await;
    nodes[0].restart_manager().unwrap();
    until(&mut changes, &mut all, is_whole).await;
    assert_eq!(words(&all), ["up nse", "changed path next-hop-lost nse", "changed path next-hop-lost nse"]);
}

#[tokio::test(start_paused = true)]
async fn the_end_is_told_once_and_says_how_it_came() {
    for how in [Ending::Closed, Ending::Ended, Ending::Abandoned] {
        let (_mesh, nodes) = mesh_of(1).await;
        let endpoint = nodes[0].endpoint("nse", "vpn", elements![]).await.unwrap();
        let client = nodes[0].client("nsc").build().unwrap();
        let session = connect(&client, "vpn").await;
        let mut changes = session.changes();
        told(&mut changes);
        // Also while it is down, and no endpoint is there to take it.
        endpoint.kill();
        pass(Duration::from_secs(30)).await;
        assert!(!session.is_up());
        match how {
            Ending::Closed => drop(session.close(SOON).await),
            Ending::Ended => drop(client.shutdown(SOON).await),
            _ => drop((client, session)),
        }
        pass(Duration::from_secs(60)).await;
        let all = told(&mut changes);
        let Some(Change::Gone { how: told_how, .. }) = all.last() else { panic!("{:?}", words(&all)) };
        assert_eq!(*told_how, how, "{:?}", words(&all));
        assert_eq!(all.iter().filter(|change| matches!(change, Change::Gone { .. })).count(), 1);
        assert!(changes.next().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_never_reads_holds_nobody_up() {
    let (_mesh, nodes) = mesh_of(1).await;
    let count = Count::default();
    let endpoint = nodes[0].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    let session = connect(&client, "vpn").await;
    let mut idle = session.changes();
    assert_eq!(words(&told(&mut idle)), ["up nse"]);
    for life in 2..50 {
        endpoint.restart().await.unwrap();
        let begun = Instant::now();
        while count.requests() < life {
            assert!(begun.elapsed() < SOON);
            pass(Duration::from_millis(10)).await;
        }
    }
    pass(Duration::from_secs(5)).await;
    assert!(session.is_up());
    let all = told(&mut idle);
    assert!(all.len() <= 2, "{:?}", words(&all));
    assert!(all.last().is_none_or(|last| last.interface().broken().is_none()));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_told_of_its_clients_and_of_those_who_never_said_goodbye() {
    let life = Duration::from_secs(60);
    let (_mesh, nodes) = mesh_with_token_life(life, 2).await;
    let log: Arc<Mutex<Vec<Change>>> = Arc::default();
    let logs = Arc::clone(&log);
    let clients = Lifecycle::telling(move |_, change| logs.lock().unwrap().push(change.clone()));
    let addresses = Renumbered::default();
    nodes[1].endpoint("nse", "vpn", elements![clients.clone(), addresses.clone()]).await.unwrap();

    let client = nodes[0].client("nsc").build().unwrap();
    let session = connect(&client, "vpn").await;
    addresses.0.store(1, Ordering::SeqCst);
    let [id] = <[_; 1]>::try_from(clients.ids()).unwrap();
    assert_eq!(words(&told(&mut clients.changes(&id).unwrap())), ["up nse"]);
    pass(10 * life).await;
    session.close(SOON).await.unwrap();
    drop(session);
    let said = || words(&std::mem::take(&mut *log.lock().unwrap()));
    assert_eq!(said(), ["up nse", "changed addresses - nse", "gone closed nse"]);

    let session = connect(&client, "vpn").await;
    drop((client, session));
    pass(2 * life).await;
    assert_eq!(said(), ["up nse", "gone ended nse"], "nobody asked for it again");
    assert!(clients.ids().is_empty());
}

/// Notes why each Request is made, and whether it is the first.
#[derive(Clone, Default)]
struct Noted(Arc<Mutex<Vec<(Why, bool)>>>);

impl Noted {
    fn take(&self) -> Vec<(Why, bool)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Element for Noted {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        self.0.lock().unwrap().push((call.why(), call.is_first()));
        next.request(call).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_reads_why_it_is_asked() {
    let (mesh, nodes) = mesh_of(2).await;
    let noted = Noted::default();
    let endpoint = nodes[1].endpoint("nse", "vpn", elements![noted.clone()]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    let session = connect(&client, "vpn").await;
    assert_eq!(noted.take(), [(Why::First, true)]);
    ask(&client, "vpn", "c").await.unwrap();
    assert_eq!(noted.take(), [(Why::Refresh, false)]);

    // Another forwarder on the way.
    mesh.running("forwarder-2").unwrap().kill();
    nodes[1].forwarder("forwarder-new").await.unwrap();
    let begun = Instant::now();
    while !session.interface().hops().any(|hop| hop == "forwarder-new") {
        assert!(begun.elapsed() < SOON, "{session:?}");
        pass(Duration::from_millis(10)).await;
    }
    pass(Duration::from_secs(1)).await;
    assert_eq!(noted.take(), [(Why::Reselect, false)]);

    // It restarts and knows nothing; its client comes with what it had.
    endpoint.restart().await.unwrap();
    pass(Duration::from_secs(5)).await;
    assert_eq!(noted.take(), [(Why::Heal, true)]);

    // The application wants everything chosen afresh.
    let mut afresh = (*session.current()).clone();
    afresh.set_state(nsm_api::State::ReselectRequested);
    client.request(NetworkServiceRequest { connection: Some(afresh), ..Default::default() }, SOON).await.unwrap();
    assert_eq!(noted.take(), [(Why::Reselect, true)], "the Close before it took everything away");
}
