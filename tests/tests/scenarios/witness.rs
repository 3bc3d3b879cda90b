//! How long a healing takes, what it touches, and what it tells, whoever witnessed the break.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nsm_api::Connection;
use nsm_chain::{Call, Element, Error, Next, Result, Why, elements};
use nsm_sdk::lifetime::Reason;
use nsm_sdk::stacks::{Client, ClientBuilder};
use tokio::time::Instant;

use crate::kit::{Count, EVERY, Match, Packets, SOON, ask, mesh_of, mesh_with_token_life, nothing_left, pass, service};

/// The connection as the client has it, unless something is happening to it.
fn now(client: &Client) -> Option<Arc<Connection>> {
    client.connections().handles().first()?.peek()
}

/// How long it takes until `done` says so of the client's connection.
async fn takes(client: &Client, mut done: impl FnMut(&Connection) -> bool) -> Duration {
    let begun = Instant::now();
    for _ in 0..60_000 {
        if now(client).is_some_and(|connection| done(&connection)) {
            return begun.elapsed();
        }
        pass(Duration::from_millis(1)).await;
    }
    panic!("never healed: {:?}", now(client));
}

async fn until_at(client: &Client, endpoint: &str) -> Duration {
    takes(client, |connection| connection.network_service_endpoint_name == endpoint).await
}

/// Notes why each Request is made.
#[derive(Clone, Default)]
struct Reasons(Arc<Mutex<Vec<Stated>>>);

/// Why a Request was made, and the reason that came with it.
type Stated = (Why, Option<Reason>);

impl Reasons {
    fn take(&self) -> Vec<Stated> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Element for Reasons {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        self.0.lock().unwrap().push((call.why(), call.fact::<Reason>().copied()));
        next.request(call).await
    }
}

/// With packets that flow whatever dies, and without anybody to say so.
fn witnesses() -> [Option<Packets>; 2] {
    [Some(Packets::flowing()), None]
}

fn seen_by(client: ClientBuilder, packets: Option<&Packets>) -> ClientBuilder {
    match packets {
        Some(packets) => client.liveness(Arc::new(packets.clone()), EVERY, EVERY),
        None => client,
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_endpoint_is_left_within_a_tenth_of_a_second_though_its_interface_answers() {
    for packets in witnesses() {
        for remote in [0, 1] {
            for restarted in [&[][..], &[0], &[1], &[0, 1]] {
                let (mesh, nodes) = mesh_of(2).await;
                let two = Count::default();
                let first = nodes[remote].endpoint("nse-1", "vpn", elements![]).await.unwrap();
                let reasons = Reasons::default();
                let client = nodes[0].client("nsc").with(elements![reasons.clone()]);
                let client = seen_by(client, packets.as_ref()).build().unwrap();
                let connection = ask(&client, "vpn", "c").await.unwrap();
                nodes[1].endpoint("nse-2", "vpn", elements![two.clone()]).await.unwrap();
                pass(Duration::from_secs(1)).await;
                let case = format!("packets: {}, remote: {remote}, restarted: {restarted:?}", packets.is_some());
                first.kill();
                for node in restarted {
                    nodes[*node].restart_manager().unwrap();
                }
                let took = until_at(&client, "nse-2").await;
                assert!(took <= Duration::from_millis(100), "{case}: {took:?}");
                assert_eq!(two.both(), (1, 0), "{case}");
                let (why, reason) = *reasons.take().last().unwrap();
                assert_eq!((why, reason), (Why::Heal, Some(Reason::EndpointGone)), "{case}");
                pass(Duration::from_secs(60)).await;
                client.close(connection, SOON).await.unwrap();
                nothing_left(&mesh, &[&client]).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn when_all_endpoints_are_dead_the_first_that_appears_is_taken_within_a_second() {
    for packets in witnesses() {
        for remote in [0, 1] {
            let (mesh, nodes) = mesh_of(2).await;
            let first = nodes[remote].endpoint("nse-1", "vpn", elements![]).await.unwrap();
            let client = seen_by(nodes[0].client("nsc"), packets.as_ref()).build().unwrap();
            let connection = ask(&client, "vpn", "c").await.unwrap();
            for dead in [1, 30, 600] {
                mesh.running(&connection.network_service_endpoint_name).unwrap().kill();
                first.kill();
                pass(Duration::from_secs(dead)).await;
                let name = format!("nse-after-{dead}");
                let next = nodes[1].endpoint(&name, "vpn", elements![]).await.unwrap();
                let took = until_at(&client, &name).await;
                assert!(took <= Duration::from_secs(1), "dead for {dead} s: {took:?}");
                if dead < 600 {
                    next.kill();
                }
            }
            client.close(connection, SOON).await.unwrap();
            nothing_left(&mesh, &[&client]).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_comes_back_is_there_again_where_no_other_is_and_its_wire_was_left_alone() {
    for remote in [0, 1] {
        let (mesh, nodes) = mesh_of(2).await;
        let count = Count::default();
        let endpoint = nodes[remote].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
        let client = seen_by(nodes[0].client("nsc"), Some(&Packets::flowing())).build().unwrap();
        let connection = ask(&client, "vpn", "c").await.unwrap();
        let wired = mesh.wires().writes();
        endpoint.kill();
        pass(Duration::from_secs(5)).await;
        endpoint.restart().await.unwrap();
        pass(Duration::from_secs(1)).await;
        assert_eq!((count.both(), endpoint.connections().handles().len()), ((2, 0), 1));
        assert_eq!(mesh.wires().writes(), wired, "the wire stands");
        client.close(connection, SOON).await.unwrap();
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_forwarder_that_restarts_asks_the_same_endpoint_again_and_nothing_is_closed() {
    for packets in witnesses() {
        for remote in [0, 1] {
            for restarts in 0..=remote {
                let (mesh, nodes) = mesh_of(2).await;
                let (one, two) = (Count::default(), Count::default());
                nodes[remote].endpoint("nse-1", "vpn", elements![one.clone()]).await.unwrap();
                let client = seen_by(nodes[0].client("nsc"), packets.as_ref()).build().unwrap();
                let connection = ask(&client, "vpn", "c").await.unwrap();
                nodes[remote].endpoint("nse-2", "vpn", elements![two.clone()]).await.unwrap();
                mesh.running(&format!("forwarder-{}", restarts + 1)).unwrap().restart().await.unwrap();
                let begun = Instant::now();
                while mesh.wires().wires().len() < remote + 1 {
                    pass(Duration::from_millis(1)).await;
                }
                assert!(begun.elapsed() <= Duration::from_millis(100), "{:?}", begun.elapsed());
                pass(Duration::from_secs(60)).await;
                assert_eq!((one.both(), two.both()), ((2, 0), (0, 0)), "remote: {remote}, restarts: {restarts}");
                client.close(connection, SOON).await.unwrap();
                nothing_left(&mesh, &[&client]).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_lost_with_all_its_packets_is_left_in_time() {
    for packets in witnesses() {
        let (mesh, nodes) = mesh_of(3).await;
        let far = nodes[1].endpoint("nse-1", "vpn", elements![]).await.unwrap();
        let client = seen_by(nodes[0].client("nsc"), packets.as_ref()).build().unwrap();
        let connection = ask(&client, "vpn", "c").await.unwrap();
        nodes[2].endpoint("nse-2", "vpn", elements![]).await.unwrap();
        pass(Duration::from_secs(1)).await;
        if let Some(packets) = &packets {
            packets.stop();
        }
        far.kill();
        mesh.running("forwarder-2").unwrap().kill();
        nodes[1].stop_manager();
        let bound = Duration::from_secs(1) + packets.as_ref().map_or(Duration::ZERO, |_| EVERY);
        let took = until_at(&client, "nse-2").await;
        assert!(took <= bound, "{took:?}");
        if let Some(packets) = &packets {
            packets.flow();
        }
        client.close(connection, SOON).await.unwrap();
        pass(Duration::from_secs(3700)).await;
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_freezes_is_left_in_time_and_nobody_waits_for_it() {
    for remote in [0, 1] {
        let (mesh, nodes) = mesh_of(2).await;
        let (one, two) = (Count::default(), Count::default());
        nodes[remote].endpoint("nse-1", "vpn", elements![one.clone()]).await.unwrap();
        let (packets, reasons) = (Packets::flowing(), Reasons::default());
        let client = seen_by(nodes[0].client("nsc").with(elements![reasons.clone()]), Some(&packets)).build().unwrap();
        let connection = ask(&client, "vpn", "c").await.unwrap();
        nodes[1].endpoint("nse-2", "vpn", elements![two.clone()]).await.unwrap();
        pass(Duration::from_secs(1)).await;
        mesh.network().freeze("nse-1");
        packets.stop();
        let took = until_at(&client, "nse-2").await;
        assert!(took <= EVERY * 2, "{took:?}");
        packets.flow();
        assert_eq!(reasons.take().last(), Some(&(Why::Heal, Some(Reason::PacketsStopped))));
        mesh.network().thaw("nse-1");
        pass(Duration::from_secs(1)).await;
        assert_eq!((one.both(), two.both()), ((1, 1), (1, 0)), "it hears its Close when it can hear again");
        client.close(connection, SOON).await.unwrap();
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_frozen_endpoint_that_answers_no_refresh_is_left_by_a_client_that_cannot_look_at_packets() {
    for remote in [0, 1] {
        let (mesh, nodes) = mesh_with_token_life(Duration::from_secs(6), 2).await;
        let two = Count::default();
        nodes[remote].endpoint("nse-1", "vpn", elements![]).await.unwrap();
        let client = nodes[0].client("nsc").try_timeout(Duration::from_millis(500)).build().unwrap();
        let connection = ask(&client, "vpn", "c").await.unwrap();
        nodes[1].endpoint("nse-2", "vpn", elements![two.clone()]).await.unwrap();
        pass(Duration::from_millis(100)).await;
        mesh.network().freeze("nse-1");
        let took = until_at(&client, "nse-2").await;
        assert!(took <= Duration::from_secs(4), "the next refresh tells: {took:?}");
        mesh.network().thaw("nse-1");
        client.close(connection, SOON).await.unwrap();
        assert_eq!(two.closes(), 1);
        pass(Duration::from_secs(10)).await;
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_forwarder_that_freezes_is_replaced_though_it_hears_no_close() {
    let (mesh, nodes) = mesh_of(2).await;
    nodes[1].endpoint("nse", "vpn", elements![]).await.unwrap();
    let packets = Packets::flowing();
    let client = seen_by(nodes[0].client("nsc"), Some(&packets)).build().unwrap();
    let connection = ask(&client, "vpn", "c").await.unwrap();
    nodes[0].forwarder("forwarder-new").await.unwrap();
    pass(Duration::from_secs(1)).await;
    mesh.network().freeze("forwarder-1");
    packets.stop();
    let by_the_new_one = |connection: &Connection| {
        connection.path.iter().flat_map(|path| &path.path_segments).any(|segment| segment.name == "forwarder-new")
    };
    let took = takes(&client, by_the_new_one).await;
    assert!(took <= Duration::from_secs(2), "{took:?}");
    packets.flow();
    mesh.network().thaw("forwarder-1");
    client.close(connection, SOON).await.unwrap();
    pass(Duration::from_secs(3700)).await;
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn a_move_that_does_not_help_is_followed_by_a_fresh_choice_and_one_that_helped_is_not() {
    let (mesh, nodes) = mesh_of(1).await;
    for name in ["nse-1", "nse-2"] {
        nodes[0].endpoint(name, "vpn", elements![]).await.unwrap();
    }
    let (packets, reasons) = (Packets::flowing(), Reasons::default());
    let client = seen_by(nodes[0].client("nsc").with(elements![reasons.clone()]), Some(&packets)).build().unwrap();
    let connection = ask(&client, "vpn", "c").await.unwrap();
    let why = || reasons.take().into_iter().map(|(why, _)| why).collect::<Vec<_>>();
    assert_eq!(why(), [Why::First]);
    for _ in 0..2 {
        packets.stop();
        pass(EVERY * 3 / 2).await;
        packets.flow();
        assert_eq!(why(), [Why::Heal], "packets flow through the other one");
        // What breaks again at once is healed more slowly.
        pass(Duration::from_secs(11)).await;
    }
    packets.stop();
    pass(EVERY * 5 / 2).await;
    packets.flow();
    assert_eq!(why(), [Why::Heal, Why::Reselect], "they do not flow through either");
    client.close(connection, SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_news_is_one_healing() {
    let (mesh, nodes) = mesh_of(2).await;
    let count = Count::default();
    let endpoint = nodes[1].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    let connection = ask(&client, "vpn", "c").await.unwrap();
    pass(Duration::from_secs(20)).await;
    // Every hop on the way loses it at one moment, and says so.
    for name in ["forwarder-1", "forwarder-2"] {
        mesh.running(name).unwrap().restart().await.unwrap();
    }
    nodes[1].restart_manager().unwrap();
    endpoint.connections().handles()[0].close().await.unwrap();
    nodes[0].restart_manager().unwrap();
    pass(Duration::from_secs(60)).await;
    assert!(count.requests() <= 3, "{} requests", count.requests());
    assert_eq!(mesh.wires().wires().len(), 2);
    client.close(connection, SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_accepts_and_hangs_up_is_asked_ever_more_slowly() {
    let (_mesh, nodes) = mesh_of(1).await;
    let count = Count::default();
    let endpoint = nodes[0].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    ask(&client, "vpn", "c").await.unwrap();
    let mut asked = 0;
    for _ in 0..60_000 {
        if count.requests() > asked {
            asked = count.requests();
            for handle in endpoint.connections().handles() {
                handle.close().await.unwrap();
            }
        }
        pass(Duration::from_millis(1)).await;
    }
    // A minute, at pauses of 0.4 s and more.
    assert!((60..170).contains(&count.requests()), "{} requests in a minute", count.requests());
}

#[tokio::test(start_paused = true)]
async fn a_refresh_while_it_heals_neither_disturbs_nor_doubles_it() {
    for remote in [0, 1] {
        let (mesh, nodes) = mesh_with_token_life(Duration::from_secs(3), 2).await;
        let (one, two) = (Count::default(), Count::default());
        let first = nodes[remote].endpoint("nse-1", "vpn", elements![one.clone()]).await.unwrap();
        let client = nodes[0].client("nsc").try_timeout(Duration::from_millis(100)).build().unwrap();
        let connection = ask(&client, "vpn", "c").await.unwrap();
        first.kill();
        // Tokens end, and refreshes are due, several times while there is nobody.
        pass(Duration::from_secs(20)).await;
        nodes[remote].endpoint("nse-2", "vpn", elements![two.clone()]).await.unwrap();
        let took = until_at(&client, "nse-2").await;
        assert!(took <= Duration::from_secs(1), "{took:?}");
        pass(Duration::from_millis(300)).await;
        assert!(two.requests() <= 2, "{}", two.requests());
        client.close(connection, SOON).await.unwrap();
        assert_eq!(two.closes(), 1);
        let asked = two.requests();
        pass(Duration::from_secs(20)).await;
        assert_eq!(two.requests(), asked, "what is closed does not come back");
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_service_moves_a_client_before_its_old_endpoint_is_let_go() {
    for packets in witnesses() {
        for remote in [0, 1] {
            let (mesh, nodes) = mesh_of(2).await;
            let (one, two) = (Count::default(), Count::default());
            let to = |app: &'static str| vec![Match::from(&[]).to(&[("app", app)])];
            mesh.apply(service("my-service", to("1"))).await.unwrap();
            nodes[remote].endpoint_with("nse-1", "my-service", [("app", "1")], elements![one.clone()]).await.unwrap();
            let before = one.clone();
            let order = nsm_chain::from_fn(move |call: Call, next: nsm_chain::OwnedNext| {
                assert_eq!(before.closes(), 0, "the old endpoint is let go after the new one has accepted");
                async move { next.request(call).await }
            });
            let second = elements![two.clone(), order];
            nodes[remote].endpoint_with("nse-2", "my-service", [("app", "2")], second).await.unwrap();
            let reasons = Reasons::default();
            let client = nodes[0].client("nsc").with(elements![reasons.clone()]);
            let client = seen_by(client, packets.as_ref()).build().unwrap();
            let connection = ask(&client, "my-service", "c").await.unwrap();
            let wired = mesh.wires().writes();

            mesh.apply(service("my-service", to("2"))).await.unwrap();
            let took = until_at(&client, "nse-2").await;
            assert!(took <= Duration::from_millis(100), "{took:?}");
            pass(Duration::from_secs(10)).await;
            assert_eq!((one.both(), two.both()), ((1, 1), (1, 0)));
            assert_eq!(mesh.wires().writes() - wired, 1, "one wire was turned round, none was missing");
            assert_eq!(reasons.take().last(), Some(&(Why::Heal, Some(Reason::ServiceChanged))));
            client.close(connection, SOON).await.unwrap();
            nothing_left(&mesh, &[&client]).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_sent_elsewhere_where_nobody_takes_it_keeps_what_it_has_as_long_as_it_may() {
    for packets in witnesses() {
        let (mesh, nodes) = mesh_of(2).await;
        let (one, two) = (Count::default(), Count::default());
        let to = |app: &'static str| vec![Match::from(&[]).to(&[("app", app)])];
        mesh.apply(service("my-service", to("1"))).await.unwrap();
        nodes[0].endpoint_with("nse-1", "my-service", [("app", "1")], elements![one.clone()]).await.unwrap();
        let full = nsm_chain::from_fn(|_: Call, _: nsm_chain::OwnedNext| async { Err(Error::exhausted("full")) });
        nodes[1].endpoint_with("nse-2", "my-service", [("app", "2")], elements![two.clone(), full]).await.unwrap();
        let client = seen_by(nodes[0].client("nsc"), packets.as_ref()).build().unwrap();
        ask(&client, "my-service", "c").await.unwrap();

        mesh.apply(service("my-service", to("2"))).await.unwrap();
        pass(Duration::from_millis(4500)).await;
        assert!(two.requests() > 3, "asked {} times", two.requests());
        assert_eq!(one.closes(), 0);
        mesh.apply(service("my-service", to("1"))).await.unwrap();
        pass(Duration::from_secs(20)).await;
        assert_eq!(one.closes(), 0, "it may stay");
        mesh.apply(service("my-service", to("2"))).await.unwrap();
        pass(Duration::from_secs(6)).await;
        assert_eq!(one.closes(), 1, "its manager closed it");
        client.shutdown(SOON).await.unwrap();
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_declines_a_refresh_keeps_its_client() {
    for packets in witnesses() {
        let (mesh, nodes) = mesh_with_token_life(Duration::from_secs(60), 1).await;
        let (count, full) = (Count::default(), Arc::new(AtomicBool::new(false)));
        let declines = Arc::clone(&full);
        let room = nsm_chain::from_fn(move |call: Call, next: nsm_chain::OwnedNext| {
            let full = declines.load(Ordering::SeqCst);
            async move { if full { Err(Error::exhausted("full")) } else { next.request(call).await } }
        });
        nodes[0].endpoint("nse", "vpn", elements![count.clone(), room]).await.unwrap();
        let client = seen_by(nodes[0].client("nsc"), packets.as_ref()).build().unwrap();
        ask(&client, "vpn", "c").await.unwrap();
        full.store(true, Ordering::SeqCst);
        // From the refresh on, 12 seconds after the Request, it heals.
        pass(Duration::from_secs(20)).await;
        assert!(count.requests() > 10, "asked {} times", count.requests());
        assert_eq!(count.closes(), 0);
        full.store(false, Ordering::SeqCst);
        pass(Duration::from_secs(100)).await;
        assert_eq!(count.closes(), 0, "it is what it was");
        client.shutdown(SOON).await.unwrap();
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_move_when_its_service_changes_is_closed_and_one_that_may_stay_again_is_not() {
    let (mesh, nodes) = mesh_of(1).await;
    let count = Count::default();
    let to = |app: &'static str| vec![Match::from(&[]).to(&[("app", app)])];
    mesh.apply(service("my-service", to("1"))).await.unwrap();
    nodes[0].endpoint_with("nse-1", "my-service", [("app", "1")], elements![count.clone()]).await.unwrap();
    let client = nodes[0].client("nsc").without_heal().build().unwrap();
    ask(&client, "my-service", "c").await.unwrap();
    mesh.apply(service("my-service", to("2"))).await.unwrap();
    pass(Duration::from_secs(1)).await;
    mesh.apply(service("my-service", to("1"))).await.unwrap();
    ask(&client, "my-service", "c").await.unwrap();
    pass(Duration::from_secs(10)).await;
    assert_eq!(count.closes(), 0);
    mesh.apply(service("my-service", to("2"))).await.unwrap();
    pass(Duration::from_secs(10)).await;
    assert_eq!(count.closes(), 1);
    client.shutdown(SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_endpoint_that_is_still_registered_holds_up_only_the_first_new_client() {
    let (mesh, nodes) = mesh_of(2).await;
    let dead = Count::default();
    nodes[1].endpoint("dead", "vpn", elements![dead.clone()]).await.unwrap();
    nodes[1].endpoint("alive", "vpn", elements![]).await.unwrap();
    // It takes calls and never answers, as a host that is gone.
    dead.hang(usize::MAX);
    let client = nodes[0].client("nsc").build().unwrap();
    let mut slow = 0;
    for id in 0..20 {
        let begun = Instant::now();
        let connection = ask(&client, "vpn", &id.to_string()).await.unwrap();
        assert_eq!(connection.network_service_endpoint_name, "alive");
        slow += usize::from(begun.elapsed() > Duration::from_millis(10));
    }
    assert!(slow <= 1, "{slow} clients waited");
    client.shutdown(SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}
