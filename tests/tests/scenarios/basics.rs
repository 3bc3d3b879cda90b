use nsm_chain::{Closed, elements};
use nsm_sdk::testing::Mesh;

use crate::kit::{Count, SOON, ask, names};

#[tokio::test(start_paused = true)]
async fn a_local_connection_passes_four_hops_refreshes_and_closes() {
    let mesh = Mesh::new().unwrap();
    mesh.network_service("vpn").await.unwrap();
    let node = mesh.node("1").await.unwrap();
    let count = Count::default();
    let endpoint = node.endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
    let client = node.client("nsc").build().unwrap();

    let connection = ask(&client, "vpn", "c").await.unwrap();
    assert_eq!(names(&connection), ["nsc", "nsmgr-1", "forwarder-1", "nse"]);
    assert_eq!((connection.id.as_str(), connection.payload.as_str()), ("c", "IP"));

    let again = ask(&client, "vpn", "c").await.unwrap();
    assert_eq!(again.path.as_ref().unwrap().path_segments[3].id, connection.path.as_ref().unwrap().path_segments[3].id);
    assert_eq!(count.requests(), 2);

    assert_eq!(client.close(again.clone(), SOON).await.unwrap(), Closed::Done);
    assert_eq!(client.close(again, SOON).await.unwrap(), Closed::Unknown);
    assert_eq!((count.closes(), endpoint.connections.handles().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_remote_connection_passes_six_hops() {
    let mesh = Mesh::new().unwrap();
    mesh.network_service("vpn").await.unwrap();
    let (near, far) = (mesh.node("1").await.unwrap(), mesh.node("2").await.unwrap());
    let count = Count::default();
    far.endpoint("nse", "vpn", elements![count.clone()]).await.unwrap();
    let client = near.client("nsc").build().unwrap();

    let connection = ask(&client, "vpn", "c").await.unwrap();
    assert_eq!(names(&connection), ["nsc", "nsmgr-1", "forwarder-1", "nsmgr-2", "forwarder-2", "nse"]);
    client.close(connection, SOON).await.unwrap();
    assert_eq!((count.requests(), count.closes()), (1, 1));
}
