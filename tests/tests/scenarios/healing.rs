//! What breaks is made again: endpoints, forwarders, managers, the registry.

use std::sync::Arc;
use std::time::Duration;

use nsm_api::Connection;
use nsm_api::networkservice::NetworkServiceRequest;
use nsm_chain::elements;
use nsm_sdk::ipam::{PointToPoint, Pool};
use nsm_sdk::stacks::Client;

use crate::kit::{
    Census, Count, EVERY, Match, Packets, SOON, ask, ask_within, mesh_of, names, nothing_left, pass, service, until,
};

/// The connection as the client has it now.
fn now(client: &Client) -> Arc<Connection> {
    let handles = client.connections().handles();
    assert_eq!(handles.len(), 1);
    handles[0].peek().unwrap_or_default()
}

/// Waits until the client's connection has this endpoint.
async fn at(client: &Client, endpoint: &str) {
    until(endpoint, || now(client).network_service_endpoint_name == endpoint).await;
}

#[tokio::test(start_paused = true)]
async fn when_an_endpoint_dies_its_clients_move_to_another() {
    for remote in [0, 1] {
        let (mesh, nodes) = mesh_of(2).await;
        let (one, two) = (Count::default(), Count::default());
        let first = nodes[remote].endpoint("nse-1", "vpn", elements![one.clone()]).await.unwrap();
        let client = nodes[0].client("nsc").build().unwrap();
        let connection = ask(&client, "vpn", "c").await.unwrap();
        assert_eq!(connection.network_service_endpoint_name, "nse-1");

        first.kill();
        nodes[remote].endpoint("nse-2", "vpn", elements![two.clone()]).await.unwrap();
        at(&client, "nse-2").await;
        assert_eq!(two.both(), (1, 0), "a new endpoint sees no Close");

        // The connection as it was before the heal still is the name of what there is now: asking with it does not go
        // back to the dead.
        let old = NetworkServiceRequest { connection: Some(connection.clone()), ..Default::default() };
        let again = client.request(old, SOON).await.unwrap();
        assert_eq!(again.network_service_endpoint_name, "nse-2");
        client.close(connection, SOON).await.unwrap();
        assert_eq!((one.both(), two.both()), ((1, 0), (2, 1)));
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_dies_before_its_answer_is_here_is_not_taken_for_alive() {
    // The answer is one to a first Request, or to a refresh.
    for before in [&["other"][..], &["other", "c"]] {
        let (mesh, nodes) = mesh_of(2).await;
        let first = nodes[1].endpoint("nse-1", "vpn", elements![]).await.unwrap();
        let client = nodes[0].client("nsc").build().unwrap();
        // The stream by which one node hears of the other is open from now on.
        for id in before {
            ask(&client, "vpn", id).await.unwrap();
        }
        mesh.network().cut_one_way("nsmgr-2", "forwarder-1");
        let asking = {
            let client = client.clone();
            tokio::spawn(async move { ask(&client, "vpn", "c").await })
        };
        pass(Duration::from_millis(100)).await;
        first.kill();
        nodes[1].endpoint("nse-2", "vpn", elements![]).await.unwrap();
        // The answer that it is there, and the news that it is not, arrive at one moment.
        mesh.network().mend();
        assert_eq!(asking.await.unwrap().unwrap().network_service_endpoint_name, "nse-1");
        pass(Duration::from_secs(1)).await;
        for id in ["c", "other"] {
            assert_eq!(client.session(id).unwrap().interface().endpoint(), "nse-2", "{id} of {before:?}");
        }
        client.shutdown(SOON).await.unwrap();
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_in_the_middle_of_a_healing_and_fails_does_not_end_it() {
    let (mesh, nodes) = mesh_of(1).await;
    let first = nodes[0].endpoint("nse-1", "vpn", elements![]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    ask(&client, "vpn", "c").await.unwrap();
    first.kill();
    // Long enough that the healing looks while the other Request is under way.
    mesh.network().slow("nsc", "*", Duration::from_secs(1)..Duration::from_secs(1));
    for _ in 0..3 {
        let again = client.request_url(&"kernel://vpn/nsm-1".parse().unwrap(), "c", Duration::from_secs(3)).await;
        assert!(again.is_err());
    }
    mesh.network().mend();
    nodes[0].endpoint("nse-2", "vpn", elements![]).await.unwrap();
    at(&client, "nse-2").await;
}

#[tokio::test(start_paused = true)]
async fn a_move_that_was_done_after_its_client_gave_up_is_heard_of_at_once() {
    let (mesh, nodes) = mesh_of(1).await;
    let one = nodes[0].endpoint("nse-1", "vpn", elements![]).await.unwrap();
    nodes[0].endpoint("nse-2", "vpn", elements![]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    ask_within(&client, "vpn", "c", Duration::from_millis(80)).await.unwrap();
    at(&client, "nse-1").await;
    // The wire is there when nobody waits for it any more.
    mesh.wires().takes(Duration::from_millis(100));
    one.crash();
    pass(Duration::from_secs(1)).await;
    assert_eq!(now(&client).network_service_endpoint_name, "nse-2");
    mesh.wires().takes(Duration::ZERO);
    client.shutdown(SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_manager_answered_before_it_restarted_is_asked_for_again_though_the_stream_opened_after_it() {
    let (mesh, nodes) = mesh_of(1).await;
    nodes[0].endpoint("nse", "vpn", elements![]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    let way = Duration::from_millis(40)..Duration::from_millis(41);
    mesh.network().slow("nsc", "nsmgr-1", way.clone());
    mesh.network().slow("nsmgr-1", "nsc", way);
    let both = async {
        let second = async {
            pass(Duration::from_millis(30)).await;
            ask(&client, "vpn", "b").await
        };
        futures::join!(ask(&client, "vpn", "a"), second)
    };
    // The first answer is here, so the stream is on its way; the second one is on its way as well.
    let restart = async {
        pass(Duration::from_millis(90)).await;
        nodes[0].restart_manager().unwrap();
    };
    let ((one, two), ()) = futures::join!(both, restart);
    one.unwrap();
    two.unwrap();
    mesh.network().mend();
    pass(Duration::from_secs(1)).await;
    let kept = mesh.kept();
    let manager = kept.iter().find(|kept| kept.hop == "nsmgr-1").unwrap();
    assert_eq!(manager.connections, 2);
    client.shutdown(SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn who_closes_while_everything_is_chosen_afresh_and_asks_again_is_healed_again() {
    let (mesh, nodes) = mesh_of(1).await;
    let endpoint = nodes[0].endpoint("nse-1", "vpn", elements![]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    let connection = ask(&client, "vpn", "c").await.unwrap();
    endpoint.crash();
    // By now it has closed what there was, and finds nothing.
    pass(Duration::from_secs(10)).await;
    client.close(connection, SOON).await.unwrap();
    endpoint.restart().await.unwrap();
    ask(&client, "vpn", "c").await.unwrap();
    endpoint.crash();
    pass(Duration::from_millis(500)).await;
    endpoint.restart().await.unwrap();
    pass(Duration::from_secs(1)).await;
    assert_eq!(endpoint.connections().handles().len(), 1, "it is asked again");
    client.shutdown(SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn where_an_answer_was_of_no_use_further_out_the_next_request_goes_on_from_it() {
    let (mesh, nodes) = mesh_of(2).await;
    let pool = |prefix: &str| elements![PointToPoint::new(Pool::new([prefix.parse().unwrap()]).unwrap())];
    let first = nodes[1].endpoint("nse-1", "vpn", pool("10.0.0.0/24")).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    let connection = ask(&client, "vpn", "c").await.unwrap();
    nodes[1].endpoint("nse-2", "vpn", pool("10.1.0.0/24")).await.unwrap();
    // The far forwarder turns its wire to the other endpoint three times, and nobody hears of it.
    mesh.wires().fail_next_of("forwarder-1", 3);
    first.kill();
    at(&client, "nse-2").await;
    assert_eq!(mesh.wires().wires().len(), 2);
    client.close(connection, SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_restarts_gets_its_clients_back() {
    for remote in [0, 1] {
        let (mesh, nodes) = mesh_of(2).await;
        let count = Count::default();
        let endpoint = nodes[remote].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
        let client = nodes[0].client("nsc").build().unwrap();
        let connection = ask(&client, "vpn", "c").await.unwrap();
        for life in 2..5 {
            endpoint.restart().await.unwrap();
            until("the client to be back", || count.requests() == life).await;
        }
        pass(Duration::from_secs(60)).await;
        assert_eq!((count.both(), endpoint.connections().handles().len()), ((4, 0), 1));
        client.close(connection, SOON).await.unwrap();
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_restarts_while_a_wire_to_it_is_made_is_asked_again() {
    let (mesh, nodes) = mesh_of(1).await;
    let endpoint = nodes[0].endpoint("nse", "vpn", elements![]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    let other = ask(&client, "vpn", "other").await.unwrap();
    mesh.wires().takes(Duration::from_millis(50));
    let asking = {
        let client = client.clone();
        tokio::spawn(async move { ask(&client, "vpn", "c").await })
    };
    pass(Duration::from_millis(10)).await;
    // The other connection is there again, and listened to, before this one's wire is done.
    endpoint.restart().await.unwrap();
    let connection = asking.await.unwrap().unwrap();
    pass(Duration::from_secs(1)).await;
    assert_eq!(endpoint.connections().handles().len(), 2);
    for connection in [other, connection] {
        client.close(connection, SOON).await.unwrap();
    }
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn packets_that_stop_move_a_client_though_every_hop_is_healthy() {
    for remote in [0, 1] {
        let (mesh, nodes) = mesh_of(2).await;
        let (one, two) = (Count::default(), Count::default());
        nodes[remote].endpoint("nse-1", "vpn", elements![one.clone()]).await.unwrap();
        let packets = Packets::flowing();
        let client = nodes[0].client("nsc").liveness(Arc::new(packets.clone()), EVERY, EVERY).build().unwrap();
        let connection = ask(&client, "vpn", "c").await.unwrap();
        pass(Duration::from_secs(60)).await;
        assert_eq!(one.both(), (1, 0));

        nodes[remote].endpoint("nse-2", "vpn", elements![two.clone()]).await.unwrap();
        one.fail(usize::MAX);
        packets.stop();
        at(&client, "nse-2").await;
        packets.flow();
        assert_eq!(one.closes(), 1, "the old endpoint is told once");
        client.close(connection, SOON).await.unwrap();
        assert_eq!(two.closes(), 1);
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_corpse_that_still_answers_pings_does_not_keep_its_clients() {
    for remote in [0, 1] {
        let (mesh, nodes) = mesh_of(2).await;
        let first = nodes[remote].endpoint("nse-1", "vpn", elements![]).await.unwrap();
        let client = nodes[0].client("nsc").liveness(Arc::new(Packets::flowing()), EVERY, EVERY).build().unwrap();
        let connection = ask(&client, "vpn", "c").await.unwrap();
        first.kill();
        nodes[remote].endpoint("nse-2", "vpn", elements![]).await.unwrap();
        at(&client, "nse-2").await;
        client.close(connection, SOON).await.unwrap();
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_packets_flow_keeps_its_endpoint_when_the_managers_restart() {
    let (mesh, nodes) = mesh_of(2).await;
    let (one, two) = (Count::default(), Count::default());
    nodes[1].endpoint("nse-1", "vpn", elements![one.clone()]).await.unwrap();
    let client = nodes[0].client("nsc").liveness(Arc::new(Packets::flowing()), EVERY, EVERY).build().unwrap();
    let connection = ask(&client, "vpn", "c").await.unwrap();
    nodes[1].endpoint("nse-2", "vpn", elements![two.clone()]).await.unwrap();
    for node in [0, 1] {
        nodes[node].restart_manager().unwrap();
        pass(Duration::from_secs(120)).await;
        assert_eq!(now(&client).network_service_endpoint_name, "nse-1");
    }
    assert_eq!((one.closes(), two.both()), (0, (0, 0)));
    client.close(connection, SOON).await.unwrap();
    assert_eq!(one.closes(), 1);
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn when_a_forwarder_dies_another_one_carries_on() {
    for remote in [0, 1] {
        for dies in 0..=remote {
            let (mesh, nodes) = mesh_of(2).await;
            let count = Count::default();
            let endpoint = nodes[remote].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
            let client = nodes[0].client("nsc").build().unwrap();
            let connection = ask(&client, "vpn", "c").await.unwrap();

            let forwarder = mesh.running(&format!("forwarder-{}", dies + 1)).unwrap();
            forwarder.kill();
            nodes[dies].forwarder("forwarder-new").await.unwrap();
            until("the connection through the new forwarder", || names(&now(&client)).contains(&"forwarder-new")).await;
            assert_eq!((count.requests(), endpoint.connections().handles().len()), (2, 1));
            ask(&client, "vpn", "c").await.unwrap();
            assert_eq!(count.requests(), 3);

            client.close(connection, SOON).await.unwrap();
            nothing_left(&mesh, &[&client]).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_forwarder_that_restarts_gets_no_close_and_the_other_one_gets_one() {
    let (mesh, nodes) = mesh_of(2).await;
    let count = Count::default();
    let endpoint = nodes[1].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    let connection = ask(&client, "vpn", "c").await.unwrap();
    let far = mesh.running("forwarder-2").unwrap();
    mesh.running("forwarder-1").unwrap().restart().await.unwrap();
    until("the connection to be made again", || count.requests() == 2).await;
    pass(Duration::from_secs(1)).await;
    assert_eq!((far.connections().handles().len(), endpoint.connections().handles().len()), (1, 1));
    client.close(connection, SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_restarts_finds_the_same_forwarder_and_endpoint() {
    for remote in [0, 1] {
        for restarts in 0..=remote {
            let (mesh, nodes) = mesh_of(2).await;
            let count = Count::default();
            let endpoint = nodes[remote].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
            let client = nodes[0].client("nsc").build().unwrap();
            let connection = ask(&client, "vpn", "c").await.unwrap();
            nodes[restarts].restart_manager().unwrap();
            until("the connection to be made again", || count.requests() == 2).await;
            pass(Duration::from_secs(60)).await;
            assert_eq!((count.requests(), endpoint.connections().handles().len()), (2, 1));
            assert_eq!(names(&now(&client)), names(&connection));
            client.close(connection, SOON).await.unwrap();
            nothing_left(&mesh, &[&client]).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_manager_of_an_endpoints_node_is_lost_its_clients_move_to_another_node() {
    let (mesh, nodes) = mesh_of(3).await;
    nodes[1].endpoint("nse-1", "vpn", elements![]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    let connection = ask(&client, "vpn", "c").await.unwrap();
    nodes[2].endpoint("nse-2", "vpn", elements![]).await.unwrap();
    nodes[1].stop_manager();
    at(&client, "nse-2").await;
    client.close(connection, SOON).await.unwrap();
    // Nobody can reach the lost node: what it keeps ends with the tokens.
    pass(Duration::from_secs(3700)).await;
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_keeps_its_forwarder_over_ten_restarts_of_the_manager() {
    for remote in [0, 1] {
        let (mesh, nodes) = mesh_of(2).await;
        let count = Count::default();
        nodes[remote].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
        let client = nodes[0].client("nsc").liveness(Arc::new(Packets::flowing()), EVERY, EVERY).build().unwrap();
        let connection = ask(&client, "vpn", "c").await.unwrap();
        for restart in 0..10 {
            nodes[0].forwarder(&format!("another-{restart}")).await.unwrap();
            nodes[0].restart_manager().unwrap();
            until("the connection to be made again", || count.requests() == restart + 2).await;
            pass(Duration::from_secs(1)).await;
            assert_eq!(names(&now(&client)), names(&connection));
        }
        assert_eq!(count.closes(), 0);
        client.close(connection, SOON).await.unwrap();
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_restarts_is_filled_again() {
    for remote in [0, 1] {
        let (mesh, nodes) = mesh_of(2).await;
        let count = Count::default();
        nodes[remote].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
        let client = nodes[0].client("nsc").build().unwrap();
        let connection = ask(&client, "vpn", "c").await.unwrap();
        mesh.stop_registry();
        pass(Duration::from_secs(30)).await;
        mesh.restart_registry().unwrap();
        ask(&client, "vpn", "c").await.unwrap();
        let other = nodes[0].client("other").build().unwrap();
        let second = ask(&other, "vpn", "c").await.unwrap();
        pass(Duration::from_secs(300)).await;
        assert_eq!(count.requests(), 3);
        client.close(connection, SOON).await.unwrap();
        other.close(second, SOON).await.unwrap();
        nothing_left(&mesh, &[&client, &other]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_while_it_heals_ends_everything() {
    for remote in [0, 1] {
        for hangs in [false, true] {
            let (mesh, nodes) = mesh_of(2).await;
            let endpoint = nodes[remote].endpoint("nse", "vpn", elements![]).await.unwrap();
            let stuck = Count::default();
            pass(Duration::from_secs(300)).await;
            let census = Census::begin();
            let client = nodes[0].client("nsc").build().unwrap();
            let connection = ask(&client, "vpn", "c").await.unwrap();
            endpoint.kill();
            if hangs {
                stuck.hang(usize::MAX);
                nodes[remote].endpoint("stuck", "vpn", elements![stuck.clone()]).await.unwrap();
                until("a try to hang", || stuck.requests() > 0).await;
            } else {
                pass(Duration::from_secs(3)).await;
            }
            let before = tokio::time::Instant::now();
            client.close(connection, SOON).await.unwrap();
            assert!(before.elapsed() < Duration::from_secs(1), "it took {:?}", before.elapsed());
            pass(Duration::from_secs(1)).await;
            nothing_left(&mesh, &[&client]).await;
            let tries = stuck.requests();
            pass(Duration::from_secs(120)).await;
            assert_eq!(stuck.requests(), tries);
            if !hangs {
                census.is_the_same(&mesh, &[&client]).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_failed_leaves_it_listening() {
    for remote in [0, 1] {
        let (mesh, nodes) = mesh_of(2).await;
        let (one, two) = (Count::default(), Count::default());
        nodes[remote].endpoint("nse-1", "vpn", elements![one.clone()]).await.unwrap();
        let packets = Packets::flowing();
        let client = nodes[0].client("nsc").liveness(Arc::new(packets.clone()), EVERY, EVERY).build().unwrap();
        let connection = ask(&client, "vpn", "c").await.unwrap();
        one.fail(1);
        // It fails once; meanwhile the wire stands.
        ask(&client, "vpn", "c").await.unwrap();
        pass(Duration::from_secs(5)).await;
        assert_eq!(now(&client).network_service_endpoint_name, "nse-1");
        assert_eq!(one.closes(), 0);

        nodes[remote].endpoint("nse-2", "vpn", elements![two.clone()]).await.unwrap();
        one.fail(usize::MAX);
        packets.stop();
        at(&client, "nse-2").await;
        client.close(connection, SOON).await.unwrap();
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_forwarder_that_dies_in_the_middle_of_a_refresh_is_replaced() {
    let (mesh, nodes) = mesh_of(2).await;
    let count = Count::default();
    nodes[1].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
    let client = Arc::new(nodes[0].client("nsc").build().unwrap());
    let connection = ask(&client, "vpn", "c").await.unwrap();
    for time in 0..15 {
        let forwarder = mesh.running("forwarder-1").unwrap();
        count.hang(1);
        let asked = count.requests();
        let refresh = tokio::spawn({
            let client = Arc::clone(&client);
            async move { ask(&client, "vpn", "c").await }
        });
        until("the refresh to be at the endpoint", || count.requests() > asked).await;
        forwarder.restart().await.unwrap();
        refresh.await.unwrap().unwrap_or_else(|error| panic!("refresh {time}: {error}"));
        until("the connection to be whole", || mesh.wires().wires().len() == 2).await;
    }
    client.close(connection, SOON).await.unwrap();
    pass(Duration::from_secs(1)).await;
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_moves_turns_one_wire_round_whatever_restarted() {
    for restarted in [&[][..], &[0], &[1], &[0, 1]] {
        let (mesh, nodes) = mesh_of(2).await;
        let (one, two) = (Count::default(), Count::default());
        let first = nodes[1].endpoint("nse-1", "vpn", elements![one.clone()]).await.unwrap();
        let client = nodes[0].client("nsc").build().unwrap();
        let connection = ask(&client, "vpn", "c").await.unwrap();
        let before = mesh.wires().writes();
        first.kill();
        for node in restarted {
            nodes[*node].restart_manager().unwrap();
        }
        nodes[1].endpoint("nse-2", "vpn", elements![two.clone()]).await.unwrap();
        at(&client, "nse-2").await;
        pass(Duration::from_secs(1)).await;
        assert_eq!(mesh.wires().wires().len(), 2, "restarted: {restarted:?}");
        assert_eq!(two.closes(), 0);
        // The forwarder beside the endpoints.
        assert_eq!(mesh.wires().writes() - before, 1, "restarted: {restarted:?}");
        client.close(connection, SOON).await.unwrap();
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_reselect_says_one_close_to_each_old_hop_whatever_restarted_and_none_to_new_ones() {
    for restarted in [&[][..], &[0], &[1], &[0, 1]] {
        let (mesh, nodes) = mesh_of(2).await;
        let (one, two) = (Count::default(), Count::default());
        let first = nodes[1].endpoint("nse-1", "vpn", elements![one.clone()]).await.unwrap();
        let packets = Packets::flowing();
        let client = nodes[0].client("nsc").liveness(Arc::new(packets.clone()), EVERY, EVERY).build().unwrap();
        let connection = ask(&client, "vpn", "c").await.unwrap();
        nodes[1].endpoint("nse-2", "vpn", elements![two.clone()]).await.unwrap();
        // It does not take the connection while what there was stands.
        two.fail(1);
        let before = mesh.wires().writes();
        packets.stop();
        first.kill();
        for node in restarted {
            nodes[*node].restart_manager().unwrap();
        }
        at(&client, "nse-2").await;
        packets.flow();
        pass(Duration::from_secs(1)).await;
        assert_eq!(mesh.wires().wires().len(), 2, "restarted: {restarted:?}");
        assert_eq!(two.closes(), 1, "it undid what it refused, and nothing else");
        // Each forwarder took its old wire down and made the new one, and nothing else.
        assert_eq!(mesh.wires().writes() - before, 4, "restarted: {restarted:?}");

        ask(&client, "vpn", "c").await.unwrap();
        assert_eq!((two.closes(), mesh.wires().writes() - before), (1, 4), "a refresh changes nothing");
        client.close(connection, SOON).await.unwrap();
        assert_eq!(two.closes(), 2);
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_reselect_changes_is_for_the_user_to_say() {
    let (mesh, nodes) = mesh_of(2).await;
    let rules =
        vec![Match::from(&[("tier", "spare")]).to(&[("tier", "spare")]), Match::from(&[]).to(&[("tier", "main")])];
    mesh.apply(service("tiers", rules)).await.unwrap();
    let main = nodes[1].endpoint_with("main", "tiers", [("tier", "main")], elements![]).await.unwrap();
    nodes[1].endpoint_with("spare", "tiers", [("tier", "spare")], elements![]).await.unwrap();
    let to_spare = |connection: &mut Connection| drop(connection.labels.insert("tier".into(), "spare".into()));
    let client = nodes[0].client("nsc").reselecting_by(to_spare).build().unwrap();
    let connection = ask(&client, "tiers", "c").await.unwrap();
    assert_eq!(connection.network_service_endpoint_name, "main");
    main.kill();
    at(&client, "spare").await;
    assert_eq!(now(&client).labels["tier"], "spare");
    client.close(connection, SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}
