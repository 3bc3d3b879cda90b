//! One client, one endpoint, one or two nodes.

use std::time::Duration;

use nsm_chain::{Call, Closed, Code, OwnedNext, elements, from_fn};

use crate::kit::{Census, Count, SOON, ask, ask_within, mesh_of, names, nothing_left, pass, until};

#[tokio::test(start_paused = true)]
async fn a_local_connection_passes_four_hops_refreshes_and_closes() {
    let (mesh, nodes) = mesh_of(1).await;
    let count = Count::default();
    let endpoint = nodes[0].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();

    let connection = ask(&client, "vpn", "c").await.unwrap();
    assert_eq!(names(&connection), ["nsc", "nsmgr-1", "forwarder-1", "nse"]);
    assert_eq!((connection.id.as_str(), connection.payload.as_str()), ("c", "IP"));

    let again = ask(&client, "vpn", "c").await.unwrap();
    let id = |at: usize| again.path.as_ref().unwrap().path_segments[at].id.clone();
    assert_eq!(id(3), connection.path.as_ref().unwrap().path_segments[3].id);
    assert_eq!(count.requests(), 2);

    assert_eq!(client.close(again.clone(), SOON).await.unwrap(), Closed::Done);
    assert_eq!(client.close(again, SOON).await.unwrap(), Closed::Unknown);
    assert_eq!((count.closes(), endpoint.connections().handles().len()), (1, 0));
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn a_remote_connection_passes_six_hops_and_two_wires() {
    let (mesh, nodes) = mesh_of(2).await;
    let count = Count::default();
    nodes[1].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();

    let connection = ask(&client, "vpn", "c").await.unwrap();
    assert_eq!(names(&connection), ["nsc", "nsmgr-1", "forwarder-1", "nsmgr-2", "forwarder-2", "nse"]);
    let wires = mesh.wires().wires();
    let sides: Vec<_> =
        wires.iter().map(|(_, wire)| (wire.caller.r#type.as_str(), wire.next.r#type.as_str())).collect();
    assert_eq!(sides, [("KERNEL", "VXLAN"), ("VXLAN", "KERNEL")]);
    assert_eq!(wires[0].1.next.parameters, wires[1].1.caller.parameters, "both ends agree about the tunnel");

    client.close(connection, SOON).await.unwrap();
    assert_eq!(count.both(), (1, 1));
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_runs_on_after_the_last_connection_is_closed() {
    let (mesh, nodes) = mesh_of(2).await;
    nodes[1].endpoint("nse", "vpn", elements![]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    // Caches of look-ups that registering filled are gone by then.
    pass(Duration::from_secs(300)).await;
    let census = Census::begin();
    for _ in 0..3 {
        let connection = ask(&client, "vpn", "c").await.unwrap();
        pass(Duration::from_secs(7200)).await;
        client.close(connection, SOON).await.unwrap();
        census.is_the_same(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_appears_while_the_client_asks_is_found() {
    let (_mesh, nodes) = mesh_of(2).await;
    let client = nodes[0].client("nsc").build().unwrap();
    let asking = tokio::spawn(async move { ask(&client, "vpn", "c").await.map(|connection| (client, connection)) });
    pass(Duration::from_millis(100)).await;
    nodes[1].endpoint("nse", "vpn", elements![]).await.unwrap();
    let (_client, connection) = asking.await.unwrap().unwrap();
    assert_eq!(connection.network_service_endpoint_name, "nse");
}

#[tokio::test(start_paused = true)]
async fn busy_endpoints_are_passed_over_for_one_that_accepts() {
    for remote in [0, 1] {
        let (mesh, nodes) = mesh_of(2).await;
        let busy = Count::default();
        busy.fail(usize::MAX);
        for number in 1..=3 {
            nodes[remote].endpoint(&format!("busy-{number}"), "vpn", elements![busy.clone()]).await.unwrap();
        }
        let good = Count::default();
        nodes[remote].endpoint("good", "vpn", elements![good.clone()]).await.unwrap();
        let client = nodes[0].client("nsc").build().unwrap();
        let connection = ask(&client, "vpn", "c").await.unwrap();
        assert_eq!(connection.network_service_endpoint_name, "good");
        client.close(connection, SOON).await.unwrap();
        assert_eq!(good.both(), (1, 1));
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_registered_before_it_listens_is_waited_for() {
    let (_mesh, nodes) = mesh_of(2).await;
    let endpoint = nodes[1].endpoint("nse", "vpn", elements![]).await.unwrap();
    endpoint.stop();
    let client = nodes[0].client("nsc").build().unwrap();
    let asking = tokio::spawn(async move { ask(&client, "vpn", "c").await.map(|connection| (client, connection)) });
    pass(Duration::from_secs(1)).await;
    assert!(!asking.is_finished());
    endpoint.start();
    asking.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_to_an_endpoint_that_hangs_fails_when_its_time_is_over_and_no_later() {
    let (mesh, nodes) = mesh_of(2).await;
    let count = Count::default();
    nodes[1].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
    let client = nodes[0].client("nsc").without_heal().build().unwrap();
    let connection = ask(&client, "vpn", "c").await.unwrap();
    count.hang(usize::MAX);
    let before = tokio::time::Instant::now();
    let error = ask_within(&client, "vpn", "c", Duration::from_secs(2)).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert_eq!(before.elapsed().as_secs(), 2);
    count.hang(0);
    assert_eq!(ask(&client, "vpn", "c").await.unwrap().id, "c", "what was established stands");
    client.close(connection, SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn fifty_clients_at_once_get_a_connection_each() {
    let (mesh, nodes) = mesh_of(2).await;
    let count = Count::default();
    let endpoint = nodes[1].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
    let asking = (0..50).map(|number| {
        let client = nodes[number % 2].client(&format!("nsc-{number}")).build().unwrap();
        tokio::spawn(async move { ask(&client, "vpn", "c").await.map(|connection| (client, connection)) })
    });
    let mut clients = Vec::new();
    for asked in asking.collect::<Vec<_>>() {
        clients.push(asked.await.unwrap().unwrap());
    }
    assert_eq!((count.requests(), endpoint.connections().handles().len()), (50, 50));
    assert_eq!(mesh.wires().wires().len(), 25 + 2 * 25);
    for (client, connection) in &clients {
        client.close(connection.clone(), SOON).await.unwrap();
    }
    assert_eq!(count.closes(), 50);
    nothing_left(&mesh, &clients.iter().map(|(client, _)| client).collect::<Vec<_>>()).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_request_leaves_nothing_at_any_hop() {
    for remote in [0, 1] {
        let (mesh, nodes) = mesh_of(2).await;
        let count = Count::default();
        count.fail(usize::MAX);
        nodes[remote].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
        let client = nodes[0].client("nsc").build().unwrap();
        let error = ask(&client, "vpn", "c").await.unwrap_err();
        assert!(error.to_string().contains("nse/Count: busy"), "{error}");
        assert!(count.requests() > 1, "it was tried again");
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_gives_up_in_the_middle_leaves_nothing_at_any_hop() {
    for remote in [0, 1] {
        let (mesh, nodes) = mesh_of(2).await;
        let count = Count::default();
        count.hang(usize::MAX);
        nodes[remote].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
        let client = nodes[0].client("nsc").build().unwrap();
        let asked = tokio::time::timeout(Duration::from_secs(1), ask(&client, "vpn", "c")).await;
        assert!(asked.is_err() && count.requests() == 1);
        until("the client to let go", || client.connections().handles().is_empty()).await;
        pass(Duration::from_secs(1)).await;
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_gives_up_while_the_answer_is_made_leaves_nothing_at_any_hop() {
    for remote in [0, 1] {
        let (mesh, nodes) = mesh_of(2).await;
        // It does not listen to whether anybody waits.
        let slow = from_fn(|call: Call, next: OwnedNext| async move {
            pass(Duration::from_secs(2)).await;
            next.request(call).await
        });
        let count = Count::default();
        let endpoint = nodes[remote].endpoint("nse", "vpn", elements![slow, count.clone()]).await.unwrap();
        let client = nodes[0].client("nsc").build().unwrap();
        let asked = tokio::time::timeout(Duration::from_secs(1), ask(&client, "vpn", "c")).await;
        assert!(asked.is_err());
        pass(Duration::from_secs(5)).await;
        assert_eq!((count.both(), endpoint.connections().handles().len()), ((1, 1), 0));
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_wire_that_cannot_be_made_fails_the_request_and_leaves_nothing() {
    let (mesh, nodes) = mesh_of(2).await;
    let count = Count::default();
    nodes[1].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
    let client = nodes[0].client("nsc").try_timeout(SOON).build().unwrap();
    // The far forwarder succeeds, the near one does not; then both do.
    mesh.wires().fail_next(1);
    let connection = ask(&client, "vpn", "c").await.unwrap();
    assert_eq!(mesh.wires().wires().len(), 2);
    client.close(connection, SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_shut_down_closes_everything() {
    let (mesh, nodes) = mesh_of(2).await;
    nodes[0].endpoint("near", "vpn", elements![]).await.unwrap();
    nodes[1].endpoint("far", "vpn", elements![]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    for id in ["a", "b", "c"] {
        ask(&client, "vpn", id).await.unwrap();
    }
    client.shutdown(SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn a_close_works_without_the_registry() {
    let (mesh, nodes) = mesh_of(2).await;
    let count = Count::default();
    nodes[1].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    let connection = ask(&client, "vpn", "c").await.unwrap();
    mesh.stop_registry();
    pass(Duration::from_secs(120)).await;
    client.close(connection, SOON).await.unwrap();
    assert_eq!(count.closes(), 1);
    nothing_left(&mesh, &[&client]).await;
}
