use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::kit::{PATIENCE, Room, TWO_NODES, indexes, netns, ping_all, printed, wire};

/// Waits until the lab looks as wanted.
async fn until(room: &Room, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + PATIENCE;
    loop {
        let view = room.view();
        if wanted(&view) {
            return view;
        }
        assert!(Instant::now() < end, "{what}: {view:#}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn all_up(view: &Value, count: usize) -> bool {
    let wires = view["wires"].as_array().unwrap();
    wires.len() == count && wires.iter().all(|wire| wire["state"] == "Up")
}

#[tokio::test]
async fn an_edit_is_applied_and_what_is_the_same_is_not_touched() {
    let room = Room::new(TWO_NODES);
    let Some(mut lab) = room.up(&["--watch"]).await else { return };
    let before = indexes(&room.view()).await;

    // One interface less, another one more, one more pod, one less.
    let text =
        TWO_NODES.replace("kernel://database/nsm-2,kernel://logs/nsm-3", "kernel://logs/nsm-3,kernel://backup/nsm-4");
    let text = text.replace("name: collector", "name: archive");
    room.write(&text);
    let view = until(&room, "the edit to be there", |view| {
        all_up(view, 6) && view["pods"].as_array().unwrap().iter().any(|pod| pod["name"] == "archive")
    })
    .await;
    let after = indexes(&view).await;
    for same in ["web/nsm-1", "web/nsm-3", "worker/nsm-1", "vault/nsm-1"] {
        assert_eq!(after[same], before[same], "{same} is another interface");
    }
    assert!(!after.contains_key("web/nsm-2") && after.contains_key("web/nsm-4"), "{after:?}");
    assert!(after.contains_key("archive/nsm-1") && !after.contains_key("collector/nsm-1"), "{after:?}");
    assert_eq!(ping_all(&view).await, 2 * 7);
    lab.until("changed     pod web on node-1, asks for 1 connection, 2 connections untouched", "!").await;
    lab.until("removed     pod collector, nothing left of it", "!").await;

    // A mistake changes nothing, and the next edit is applied all the same.
    room.edit("kernel://backup/nsm-4", "kernel://bakcup/nsm-4");
    lab.until("did you mean backup?", "!").await;
    assert_eq!(indexes(&room.view()).await, after);
    room.write(&text.replace(",kernel://backup/nsm-4", ""));
    let view = until(&room, "one connection less", |view| all_up(view, 5)).await;
    assert_eq!(indexes(&view).await["web/nsm-1"], before["web/nsm-1"]);
    lab.end().await;
}

#[tokio::test]
async fn an_edit_of_a_network_service_moves_a_live_connection_and_no_other() {
    let room = Room::new(TWO_NODES);
    let Some(lab) = room.up(&[]).await else { return };
    let before = indexes(&room.view()).await;
    // By hand, as without --watch.
    room.edit("app: first-endpoint\n---", "app: second-endpoint\n---");
    let second = "  name: nse-second\n  labels:\n    app: second-endpoint\nspec:\n  nodeName: node-1\n  type: icmp-responder\n  \
                  services: [ns-first]\n  cidrPrefixes: [172.16.9.0/24]\n---\n";
    let endpoint = "apiVersion: nsm/v1\nkind: Endpoint\nmetadata:\n";
    room.edit(endpoint, &format!("{endpoint}{second}{endpoint}"));
    let said = printed(room.of_file("up", &[]).output().unwrap());
    assert!(said.contains("added endpoint nse-second") && said.contains("changed network service ns-first"), "{said}");
    let view = until(&room, "web to be moved", |view| {
        all_up(view, 6) && wire(view, "web", "nsm-1")["endpoint"] == "nse-second"
    })
    .await;
    let after = indexes(&view).await;
    for same in ["web/nsm-2", "web/nsm-3", "worker/nsm-1", "vault/nsm-1", "collector/nsm-1"] {
        assert_eq!(after[same], before[same], "{same} is another interface");
    }
    assert_eq!(wire(&view, "web", "nsm-1")["kind"], "veth");
    ping_all(&view).await;
    lab.end().await;
}

#[tokio::test]
async fn a_node_comes_and_goes_while_the_others_stay() {
    let room = Room::new(TWO_NODES);
    let Some(lab) = room.up(&[]).await else { return };
    let before = indexes(&room.view()).await;
    // vault moves to a new node.
    let third = "apiVersion: v1\nkind: Node\nmetadata:\n  name: node-3\n---\n";
    let (others, vault) = TWO_NODES.split_at(TWO_NODES.find("  name: vault").unwrap());
    room.write(&format!("{third}{others}{}", vault.replace("node-1", "node-3")));
    let said = printed(room.of_file("up", &[]).output().unwrap());
    assert!(said.contains("added node node-3") && said.contains("changed pod vault"), "{said}");
    let view = until(&room, "all to be connected", |view| all_up(view, 6)).await;
    assert_eq!(view["nodes"][2]["address"], "192.0.2.3");
    assert_eq!(ping_all(&view).await, 2 * 7);

    // node-1 goes, with what is on it; what is on others stays.
    let text = std::fs::read_to_string(room.file()).unwrap();
    let text = text.replacen("apiVersion: v1\nkind: Node\nmetadata:\n  name: node-1\n---\n", "", 1);
    room.write(&text.replace("nodeName: node-1", "nodeName: node-2"));
    let said = printed(room.of_file("up", &[]).output().unwrap());
    assert!(said.contains("removed node node-1"), "{said}");
    let view = until(&room, "all to be connected", |view| all_up(view, 6)).await;
    assert_eq!(view["nodes"].as_array().unwrap().len(), 2);
    assert_eq!(ping_all(&view).await, 2 * 7);
    let after = indexes(&view).await;
    for same in ["worker/nsm-1", "collector/nsm-1"] {
        assert_eq!(after[same], before[same], "{same} is another interface");
    }
    lab.end().await;
}

#[tokio::test]
async fn what_cannot_be_connected_is_said_and_comes_up_when_it_can() {
    let unfit = TWO_NODES.replace("tier: data\nspec:", "tier: none\nspec:");
    let room = Room::new(&unfit);
    let Some(mut lab) = room.up(&["--watch", "--timeout", "3"]).await else { return };
    assert!(lab.story().contains("failed at   kernel://database/nsm-"), "{}", lab.story());
    let waiting = |view: &Value, pod, interface| wire(view, pod, interface)["state"]["Waiting"].is_string();
    // vault's service has no rules: any endpoint will do.
    let view = until(&room, "all others to be connected", |view| {
        view["wires"].as_array().unwrap().iter().filter(|wire| wire["state"] == "Up").count() == 4
    })
    .await;
    assert!(waiting(&view, "web", "nsm-2") && waiting(&view, "worker", "nsm-1"), "{view:#}");
    room.write(TWO_NODES);
    until(&room, "all to be connected", |view| all_up(view, 6)).await;
    lab.until("changed     endpoint nse-database", "!").await;
    lab.end().await;
}

#[tokio::test]
async fn a_pod_that_moves_keeps_its_namespace_and_gets_its_connections_from_there() {
    let room = Room::new(TWO_NODES);
    let Some(lab) = room.up(&[]).await else { return };
    let web = netns(&room.view(), "web");
    let from = TWO_NODES.rfind("nodeName: node-1\n---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: worker").unwrap();
    room.write(&format!("{}nodeName: node-2{}", &TWO_NODES[..from], &TWO_NODES[from + "nodeName: node-1".len()..]));
    let said = printed(room.of_file("up", &[]).output().unwrap());
    assert!(said.contains("13 documents as they are") && said.contains("changed pod web"), "{said}");
    let view = until(&room, "web to be on the other node", |view| {
        all_up(view, 6) && wire(view, "web", "nsm-3")["endpoint"] == "nse-logs-2"
    })
    .await;
    assert_eq!(netns(&view, "web"), web);
    assert_eq!(wire(&view, "web", "nsm-1")["kind"], "veth", "its endpoint is on that node");
    assert_eq!(ping_all(&view).await, 2 * 7);
    lab.end().await;
}
