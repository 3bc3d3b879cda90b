//! What is not refreshed ends everywhere, and what is refreshed does not.

use std::time::Duration;

use nsm_chain::elements;

use nsm_sdk::testing::Mesh;

use crate::kit::{Census, Count, SOON, ask, ask_within, mesh_of, mesh_with_token_life, nothing_left, pass, with_nodes};

const LIFE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_refreshing_is_closed_at_every_hop_when_its_token_ends() {
    for remote in [0, 1] {
        let (mesh, nodes) = mesh_with_token_life(LIFE, 2).await;
        let count = Count::default();
        let endpoint = nodes[remote].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
        let client = nodes[0].client("nsc").without_refresh().without_heal().build().unwrap();
        ask_within(&client, "vpn", "c", Duration::from_secs(1)).await.unwrap();
        pass(LIFE / 2).await;
        assert_eq!(endpoint.connections().handles().len(), 1);
        pass(LIFE / 2).await;
        assert_eq!(count.both(), (1, 1));
        nothing_left(&mesh, &[]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanishes_leaves_nothing_after_its_token() {
    let (mesh, nodes) = mesh_with_token_life(LIFE, 2).await;
    nodes[1].endpoint("nse", "vpn", elements![]).await.unwrap();
    pass(Duration::from_secs(300)).await;
    let census = Census::begin();
    let client = nodes[0].client("nsc").build().unwrap();
    ask(&client, "vpn", "c").await.unwrap();
    drop(client);
    pass(LIFE + LIFE).await;
    census.is_the_same(&mesh, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn refreshing_keeps_a_connection_alive_for_many_lives_of_a_token() {
    for remote in [0, 1] {
        let (mesh, nodes) = mesh_with_token_life(LIFE, 2).await;
        let count = Count::default();
        nodes[remote].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
        let client = nodes[0].client("nsc").build().unwrap();
        let connection = ask(&client, "vpn", "c").await.unwrap();
        let wired = mesh.wires().writes();
        pass(100 * LIFE).await;
        let (requests, closes) = count.both();
        assert_eq!((closes, mesh.wires().writes()), (0, wired), "no refresh touched a wire");
        assert!((200..1200).contains(&requests), "{requests} refreshes");
        client.close(connection, SOON).await.unwrap();
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn refreshes_that_fail_are_tried_again_in_time() {
    let (mesh, nodes) = mesh_with_token_life(LIFE, 1).await;
    let count = Count::default();
    nodes[0].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
    let client = nodes[0].client("nsc").without_heal().build().unwrap();
    let connection = ask(&client, "vpn", "c").await.unwrap();
    for _ in 0..20 {
        count.fail(3);
        pass(LIFE).await;
    }
    assert_eq!(count.closes(), 0);
    client.close(connection, SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn a_refresh_at_the_last_moment_wins_against_the_end() {
    let (mesh, nodes) = mesh_with_token_life(LIFE, 1).await;
    let count = Count::default();
    let endpoint = nodes[0].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
    let client = nodes[0].client("nsc").without_refresh().without_heal().build().unwrap();
    let within = Duration::from_secs(1);
    let connection = ask_within(&client, "vpn", "c", within).await.unwrap();
    for _ in 0..20 {
        // The end comes when the token does, less the second that a Request may take.
        pass(LIFE - within - Duration::from_millis(1100)).await;
        ask_within(&client, "vpn", "c", within).await.unwrap();
    }
    assert_eq!((count.closes(), endpoint.connections().handles().len()), (0, 1));
    client.close(connection, SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn an_absent_authority_cuts_nothing_before_certificates_end_and_all_is_healed_when_it_is_back() {
    let mesh = Mesh::builder().token_life(LIFE).certificate_life(2 * LIFE).build().unwrap();
    let (mesh, nodes) = with_nodes(mesh, 2).await;
    let count = Count::default();
    nodes[1].endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    let connection = ask(&client, "vpn", "c").await.unwrap();
    let wired = mesh.wires().writes();
    // Certificates are two lives of a token old at most, and are renewed when they are one life old.
    mesh.stop_authority();
    pass(2 * LIFE - SOON - Duration::from_secs(2)).await;
    assert_eq!((count.closes(), mesh.wires().writes()), (0, wired), "nothing was cut while a certificate was good");
    pass(SOON + Duration::from_secs(4)).await;
    assert!(mesh.wires().wires().is_empty(), "nobody has a certificate any more");
    assert!((1..5).contains(&count.closes()), "{} Closes", count.closes());
    pass(LIFE).await;
    assert!(client.request_url(&"kernel://vpn/nsm-1".parse().unwrap(), "d", Duration::from_secs(1)).await.is_err());

    mesh.start_authority();
    pass(Duration::from_secs(1)).await;
    assert_eq!(mesh.wires().wires().len(), 2);
    client.close(connection, SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_gone_disappears_from_the_registry() {
    let (mesh, nodes) = mesh_of(2).await;
    let dead = nodes[1].endpoint("dead", "vpn", elements![]).await.unwrap();
    pass(Duration::from_secs(3600)).await;
    let client = nodes[0].client("nsc").build().unwrap();
    let connection = ask(&client, "vpn", "c").await.unwrap();
    client.close(connection, SOON).await.unwrap();
    dead.kill();
    pass(Duration::from_secs(61)).await;
    let error = ask_within(&client, "vpn", "c", Duration::from_secs(1)).await.unwrap_err();
    assert!(error.to_string().contains("none of the 0 endpoints of vpn"), "{error}");
    nothing_left(&mesh, &[&client]).await;
}
