use crate::kit::{Room, may_make_namespaces};
use crate::mesh::Mesh;

#[tokio::test]
async fn a_role_waits_for_its_agent_and_says_so() {
    let room = Room::new();
    let (socket, listen) = (room.socket("agent"), room.socket("registry"));
    let settings = [("SPIFFE_ENDPOINT_SOCKET", socket.as_str()), ("NSM_LISTEN_ON", listen.as_str())];
    let mut waits = room.start("registry", room.nsm("registry", None, &settings));
    let said = waits.says("waiting for the agent at").await;
    assert!(said.contains(&socket) && said.contains("no such file"), "{said}");
    let mut other = room.start("other", room.nsm("registry", None, &settings));
    let agent_settings = [("NSM_LISTEN_ON", socket.as_str())];
    // One that waits can be told to end.
    other.says("waiting for the agent at").await;
    other.stop().await;
    let mut agent = room.start("agent", room.nsm("agent", None, &agent_settings));
    agent.says("agent of spiffe://development.nsm listens on unix://").await;
    waits.says("registry listens on").await;
    waits.stop().await;
    agent.stop().await;
}

#[tokio::test]
async fn programs_with_identities_of_an_agent_that_rotates_them_make_a_mesh() {
    if !may_make_namespaces() {
        return;
    }
    let room = Room::new();
    let socket = room.socket("agent");
    let settings = [("NSM_LISTEN_ON", socket.as_str()), ("NSM_CERTIFICATE_LIFETIME", "8s")];
    let mut agent = room.start("agent", room.nsm("agent", None, &settings));
    agent.says("listens on").await;
    let mut mesh = Mesh::empty(room, ("SPIFFE_ENDPOINT_SOCKET", socket)).await;
    mesh.start_registry().await;
    mesh.start_manager().await;
    mesh.start_forwarder().await;
    mesh.start_endpoint().await;
    mesh.start_client().await;
    mesh.packets_flow().await;
    // Longer than any certificate, and so any token, of the beginning lives.
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    mesh.ping("172.16.1.1", "172.16.1.0").await.unwrap();
    let said = mesh.client.as_ref().unwrap().said();
    assert!(!said.contains(" down"), "{said}");
    mesh.stop().await;
    agent.stop().await;
}

#[tokio::test]
async fn programs_of_another_authority_are_strangers() {
    if !may_make_namespaces() {
        return;
    }
    let mut mesh = Mesh::without_client().await;
    let (manager, stranger) = (mesh.room.socket("nsmgr"), mesh.room.path("stranger").display().to_string());
    let settings = [
        ("NSM_AUTHORITY", stranger.as_str()),
        ("NSM_CONNECT_TO", manager.as_str()),
        ("NSM_REQUEST_TIMEOUT", "300ms"),
        ("NSM_NETWORK_SERVICES", "kernel://vpn/nsm-1"),
    ];
    let mut client = mesh.room.start("stranger", mesh.room.nsm("client", Some(&mesh.client_netns), &settings));
    client.says("not there yet").await;
    client.stop().await;
    mesh.stop().await;
}
