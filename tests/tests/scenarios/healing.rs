use nsm_chain::elements;
use nsm_sdk::testing::Mesh;

use crate::kit::{Count, SOON, ask, until};

#[tokio::test(start_paused = true)]
async fn when_an_endpoint_dies_its_clients_move_to_another() {
    for remote in [false, true] {
        let mesh = Mesh::new().unwrap();
        mesh.network_service("vpn").await.unwrap();
        let near = mesh.node("1").await.unwrap();
        let far = if remote { mesh.node("2").await.unwrap() } else { near.clone() };
        let (one, two) = (Count::default(), Count::default());
        let first = far.endpoint("nse-1", "vpn", elements![one.clone()]).await.unwrap();
        let client = near.client("nsc").build().unwrap();
        let connection = ask(&client, "vpn", "c").await.unwrap();
        assert_eq!(connection.network_service_endpoint_name, "nse-1");

        first.unregister().await.unwrap();
        first.stop();
        let second = far.endpoint("nse-2", "vpn", elements![two.clone()]).await.unwrap();
        until("the client at nse-2", || second.connections().handles().len() == 1).await;

        // The connection as it was before the heal still is the name of what there is now.
        let again = ask(&client, "vpn", "c").await.unwrap();
        assert_eq!(again.network_service_endpoint_name, "nse-2", "remote: {remote}");
        client.close(connection, SOON).await.unwrap();
        assert_eq!((two.closes(), second.connections().handles().len()), (1, 0));
    }
}
