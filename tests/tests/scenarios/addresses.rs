//! Addresses: pools, exclusions of other connections, awareness groups.

use std::collections::BTreeSet;
use std::time::Duration;

use nsm_api::Connection;
use nsm_chain::{Element, Node, elements};
use nsm_sdk::context::{Collision, ExcludedPrefixes};
use nsm_sdk::ipam::{PointToPoint, Pool};

use crate::kit::{SOON, ask, ask_within, mesh_of, nothing_left, pass, until};

/// An endpoint's own pool of these addresses.
fn pool(prefix: &str) -> Vec<Node> {
    elements![PointToPoint::new(Pool::new([prefix.parse().unwrap()]).unwrap())]
}

/// Both addresses of a connection: the endpoint's, the client's.
fn addresses(connection: &Connection) -> (String, String) {
    let context = connection.context.as_ref().and_then(|context| context.ip_context.as_ref()).unwrap();
    (context.dst_ip_addrs.join(" "), context.src_ip_addrs.join(" "))
}

fn pair(dst: &str, src: &str) -> (String, String) {
    (dst.to_owned(), src.to_owned())
}

#[tokio::test(start_paused = true)]
async fn addresses_stay_through_refreshes_and_are_free_after_a_close() {
    let (mesh, nodes) = mesh_of(2).await;
    nodes[1].endpoint("nse", "vpn", pool("10.0.0.0/30")).await.unwrap();
    let client = nodes[0].client("nsc").build().unwrap();
    for _ in 0..3 {
        let one = ask(&client, "vpn", "a").await.unwrap();
        let two = ask(&client, "vpn", "b").await.unwrap();
        assert_eq!(addresses(&one), pair("10.0.0.0/32", "10.0.0.1/32"));
        assert_eq!(addresses(&two), pair("10.0.0.2/32", "10.0.0.3/32"));
        pass(Duration::from_secs(7200)).await;
        assert_eq!(addresses(&ask(&client, "vpn", "a").await.unwrap()), addresses(&one));
        let error = ask_within(&client, "vpn", "c", Duration::from_secs(1)).await.unwrap_err();
        assert!(error.to_string().contains("nse/PointToPoint"), "{error}");
        client.close(one, SOON).await.unwrap();
        client.close(two, SOON).await.unwrap();
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_service_keeps_out_of_the_addresses_of_the_first() {
    let (mesh, nodes) = mesh_of(2).await;
    mesh.network_service("other").await.unwrap();
    nodes[1].endpoint("nse-1", "vpn", pool("10.0.0.0/24")).await.unwrap();
    nodes[0].endpoint("nse-2", "other", pool("10.0.0.0/24")).await.unwrap();
    let client = nodes[0].client("nsc").with(elements![ExcludedPrefixes::new()]).build().unwrap();
    let one = ask(&client, "vpn", "a").await.unwrap();
    let two = ask(&client, "other", "b").await.unwrap();
    assert_eq!(addresses(&one), pair("10.0.0.0/32", "10.0.0.1/32"));
    assert_eq!(addresses(&two), pair("10.0.0.2/32", "10.0.0.3/32"));
    for (service, id, connection) in [("vpn", "a", &one), ("other", "b", &two)] {
        assert_eq!(
            addresses(&ask(&client, service, id).await.unwrap()),
            addresses(connection),
            "a refresh moves nothing"
        );
    }
    client.close(one, SOON).await.unwrap();
    let three = ask(&client, "other", "c").await.unwrap();
    assert_eq!(addresses(&three), pair("10.0.0.0/32", "10.0.0.1/32"), "what was closed is free again");
    client.shutdown(SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

/// Gives everybody the same addresses, whatever is excluded.
struct Stubborn;

impl Element for Stubborn {
    async fn request(
        &self,
        mut call: nsm_chain::Call,
        next: nsm_chain::Next<'_>,
    ) -> nsm_chain::Result<nsm_chain::Call> {
        let context = call.connection_mut().context.get_or_insert_default().ip_context.get_or_insert_default();
        context.dst_ip_addrs = vec!["10.0.0.0/32".into()];
        context.src_ip_addrs = vec!["10.0.0.1/32".into()];
        next.request(call).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_does_not_heed_exclusions_is_refused_and_closed() {
    let (mesh, nodes) = mesh_of(2).await;
    mesh.network_service("other").await.unwrap();
    nodes[1].endpoint("nse-1", "vpn", pool("10.0.0.0/24")).await.unwrap();
    let stubborn = nodes[1].endpoint("nse-2", "other", elements![Stubborn]).await.unwrap();
    let client = nodes[0].client("nsc").with(elements![ExcludedPrefixes::new()]).build().unwrap();
    let one = ask(&client, "vpn", "a").await.unwrap();
    let error = ask_within(&client, "other", "b", Duration::from_secs(1)).await.unwrap_err();
    assert!(error.is_caused_by::<Collision>(), "{error}");
    assert!(stubborn.connections().handles().is_empty());
    client.close(one, SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn within_an_awareness_group_addresses_may_be_the_same() {
    let (mesh, nodes) = mesh_of(2).await;
    for name in ["a", "b", "c"] {
        mesh.network_service(name).await.unwrap();
        nodes[1].endpoint(&format!("nse-{name}"), name, pool("10.0.0.0/24")).await.unwrap();
    }
    let groups = "[kernel://a,kernel://b]".parse().unwrap();
    let client = nodes[0].client("nsc").with(elements![ExcludedPrefixes::sharing_within(groups)]).build().unwrap();
    let mut all = BTreeSet::new();
    for (name, dst) in [("a", "10.0.0.0/32"), ("b", "10.0.0.0/32"), ("c", "10.0.0.2/32")] {
        let connection = ask(&client, name, name).await.unwrap();
        assert_eq!(addresses(&connection).0, dst, "service {name}");
        all.insert(addresses(&connection));
    }
    assert_eq!(all.len(), 2);
    client.shutdown(SOON).await.unwrap();
    nothing_left(&mesh, &[&client]).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_heals_keeps_its_addresses_where_the_new_endpoint_has_them() {
    for (prefix, kept) in [("10.0.0.0/24", true), ("172.16.0.0/24", false)] {
        let (mesh, nodes) = mesh_of(2).await;
        let first = nodes[1].endpoint("nse-1", "vpn", pool("10.0.0.0/24")).await.unwrap();
        let filler = nodes[1].client("filler").build().unwrap();
        ask(&filler, "vpn", "f").await.unwrap();
        let client = nodes[0].client("nsc").build().unwrap();
        let one = ask(&client, "vpn", "a").await.unwrap();
        assert_eq!(addresses(&one).0, "10.0.0.2/32");
        filler.shutdown(SOON).await.unwrap();
        first.kill();
        let strict = PointToPoint::new(Pool::new([prefix.parse().unwrap()]).unwrap()).strict();
        let second = nodes[1].endpoint("nse-2", "vpn", elements![strict]).await.unwrap();
        until("the client at nse-2", || second.connections().handles().len() == 1).await;
        let now = ask(&client, "vpn", "a").await.unwrap();
        let expected = if kept { pair("10.0.0.2/32", "10.0.0.3/32") } else { pair("172.16.0.0/32", "172.16.0.1/32") };
        assert_eq!(addresses(&now), expected, "nothing of another prefix is left");
        client.close(now, SOON).await.unwrap();
        nothing_left(&mesh, &[&client]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_endpoint_gave_is_left_behind_by_a_client_that_moves() {
    for remote in [0, 1] {
        let (mesh, nodes) = mesh_of(2).await;
        let first = nodes[0].endpoint("nse-1", "vpn", pool("10.0.1.0/24")).await.unwrap();
        let client = nodes[0].client("nsc").build().unwrap();
        let moves = ask(&client, "vpn", "moves").await.unwrap();
        assert_eq!(addresses(&moves), pair("10.0.1.0/32", "10.0.1.1/32"));
        first.kill();
        let second = nodes[remote].endpoint("nse-2", "vpn", pool("10.0.2.0/24")).await.unwrap();
        until("the client at nse-2", || second.connections().handles().len() == 1).await;
        let moved = ask(&client, "vpn", "moves").await.unwrap();
        assert_eq!(
            addresses(&moved),
            pair("10.0.2.0/32", "10.0.2.1/32"),
            "the first endpoint may give its own to others"
        );
        // One that is known again after a restart keeps what it has.
        second.restart().await.unwrap();
        until("the client back", || second.connections().handles().len() == 1).await;
        assert_eq!(addresses(&ask(&client, "vpn", "moves").await.unwrap()), addresses(&moved));
        client.close(moved, SOON).await.unwrap();
        nothing_left(&mesh, &[&client]).await;
    }
}
