//! Watchers are told of their own, and that suffices for healing.

use std::time::Duration;

use nsm_api::connection::monitor_connection_client::MonitorConnectionClient;
use nsm_api::connection::{ConnectionEventType, MonitorScopeSelector, PathSegment};
use nsm_sdk::identity::{Policies, Policy, PolicySet};
use nsm_sdk::roles::{ManagerRole, Running, client};
use nsm_sdk::transport::Link;
use tonic::Code;

use crate::kit::{HERE, Mesh, SOON, ask, on_this_node, until};

fn through(name: &str, id: &str) -> MonitorScopeSelector {
    let segment = PathSegment { name: name.into(), id: id.into(), ..Default::default() };
    MonitorScopeSelector { path_segments: vec![segment], network_services: Vec::new() }
}

fn link(mesh: &Mesh, who: &str, role: &Running) -> MonitorConnectionClient<Link> {
    MonitorConnectionClient::new(mesh.site(who).channels().link(&role.addresses()[0]))
}

/// The first segments' ids in the first message.
async fn first(mesh: &Mesh, who: &str, role: &Running, selector: MonitorScopeSelector) -> Vec<String> {
    let mut events = link(mesh, who, role).monitor_connections(selector).await.unwrap().into_inner();
    let event = tokio::time::timeout(SOON, events.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(event.r#type(), ConnectionEventType::InitialStateTransfer);
    let first = |connection: &nsm_api::Connection| connection.path.as_ref().unwrap().path_segments[0].id.clone();
    let mut ids: Vec<_> = event.connections.values().map(first).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn each_identity_is_told_of_what_it_asked_for_at_every_hop() {
    let mesh = Mesh::start().await;
    let endpoint = mesh.endpoint("nse-1", Vec::new()).await;
    let (alice, bob) = (mesh.client("alice"), mesh.client("bob"));
    ask(&alice, "a").await;
    let bobs = ask(&bob, "b").await;
    let none = [""; 0];
    let any = MonitorScopeSelector::default;
    for (who, role, selector, told) in [
        ("alice", &mesh.manager, any(), &["a"][..]),
        ("alice", &mesh.manager, through("alice", ""), &["a"]),
        ("alice", &mesh.manager, through("bob", ""), &none),
        ("alice", &mesh.manager, through("", "b"), &none),
        ("bob", &mesh.manager, through("", "b"), &["b"]),
        ("eve", &mesh.manager, any(), &none),
        ("alice", &mesh.forwarder, any(), &none),
        ("nsmgr", &mesh.forwarder, any(), &["a", "b"]),
        ("nsmgr", &endpoint, any(), &none),
        ("forwarder", &endpoint, any(), &["a", "b"]),
    ] {
        assert_eq!(first(&mesh, who, role, selector.clone()).await, told, "{who} at {role}: {selector:?}");
    }

    // Nor later.
    let mut eve = link(&mesh, "eve", &mesh.manager).monitor_connections(through("", "b")).await.unwrap().into_inner();
    let mut own = link(&mesh, "bob", &mesh.manager).monitor_connections(any()).await.unwrap().into_inner();
    for stream in [&mut eve, &mut own] {
        assert_eq!(stream.message().await.unwrap().unwrap().r#type(), ConnectionEventType::InitialStateTransfer);
    }
    bob.close(bobs, SOON).await.unwrap();
    assert_eq!(own.message().await.unwrap().unwrap().r#type(), ConnectionEventType::Delete);
    assert!(tokio::time::timeout(Duration::from_millis(200), eve.message()).await.is_err());
    alice.shutdown(SOON).await.unwrap();
}

#[tokio::test]
async fn a_client_is_told_and_healed_also_after_every_certificate_was_rotated() {
    let mesh = Mesh::start().await;
    let first_endpoint = mesh.endpoint("nse-1", Vec::new()).await;
    let client = mesh.client("nsc");
    ask(&client, "c").await;
    mesh.authority.rotate().unwrap();
    let refreshed = ask(&client, "c").await;
    assert_eq!(refreshed.network_service_endpoint_name, "nse-1");
    let second_endpoint = mesh.endpoint("nse-2", Vec::new()).await;
    // As a crash: the forwarder's stream breaks, it tells the manager, that tells the client, each its own.
    drop(first_endpoint);
    until("the other endpoint", || second_endpoint.connections() == 1).await;
    let handles = client.connections().handles();
    until("a healed client", || handles[0].peek().is_some_and(|now| now.network_service_endpoint_name == "nse-2"))
        .await;
    // And does not heal what is well.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(second_endpoint.connections(), 1);
    client.shutdown(SOON).await.unwrap();
}

/// The reference's policy, where an operator wants it: no watch without an id of one's own. Our hops then watch one by one.
#[tokio::test]
async fn under_the_monitor_policy_watchers_must_name_their_own_and_healing_still_works() {
    let mesh = Mesh::start().await;
    let monitor = PolicySet::of([Policy::ServiceConnection]);
    let strict = mesh.site("strict").with_policies(Policies { monitor, ..Policies::stock() });
    let manager =
        ManagerRole::new("strict", strict).listen_on(HERE).registry(mesh.registry.url()).serve().await.unwrap();
    let wire = nsm_chain::elements![nsm_mechanisms::CrossConnect::new(
        nsm_mechanisms::memory::Fabric::new().forwarder("forwarder-2", None)
    )];
    let forwarder = nsm_sdk::roles::ForwarderRole::new("forwarder-2", mesh.site("forwarder-2"), manager.url(), wire);
    let _forwarder = forwarder.listen_on(HERE).serve().await.unwrap();
    let kernel = || {
        let kernel = nsm_mechanisms::Mechanisms::new();
        nsm_chain::elements![kernel.with(nsm_api::mechanism::KERNEL, nsm_mechanisms::KernelAccept::new()).unwrap()]
    };
    let endpoint = async |name: &str| {
        let endpoint = nsm_sdk::roles::EndpointRole::new(name, mesh.site(name)).listen_on(on_this_node()).serves("vpn");
        endpoint.registers_at(manager.url()).with(kernel()).serve().await.unwrap()
    };
    let first_endpoint = endpoint("nse-1").await;
    let client = client("nsc", &mesh.site("nsc"), &manager.url()).build().unwrap();
    ask(&client, "c").await;
    for (who, selector, allowed) in [
        ("nsc", MonitorScopeSelector::default(), false),
        ("nsc", through("nsc", ""), false),
        ("nsc", through("", "c"), true),
        ("eve", through("", "c"), false),
    ] {
        let answer = link(&mesh, who, &manager).monitor_connections(selector).await;
        let code = answer.map_or_else(|status| status.code(), |_| Code::Ok);
        assert_eq!(code, if allowed { Code::Ok } else { Code::PermissionDenied }, "{who}");
    }
    let second_endpoint = endpoint("nse-2").await;
    drop(first_endpoint);
    until("the other endpoint", || second_endpoint.connections() == 1).await;
    client.shutdown(SOON).await.unwrap();
}
