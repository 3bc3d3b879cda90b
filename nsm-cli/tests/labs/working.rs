use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use crate::kit::{PATIENCE, Room, TWO_NODES, indexes, ping_all, printed, texts, wire};

#[tokio::test]
async fn four_services_on_two_nodes_carry_packets_and_leave_nothing() {
    let room = Room::new(TWO_NODES);
    let Some(lab) = room.up(&[]).await else { return };
    let view = room.view();
    assert_eq!(view["services"].as_object().unwrap().len(), 4);
    let leads_to = |pod, interface| (&wire(&view, pod, interface)["endpoint"], &wire(&view, pod, interface)["kind"]);
    assert_eq!(leads_to("web", "nsm-1"), (&"nse-first".into(), &"VXLAN".into()));
    assert_eq!(leads_to("web", "nsm-2"), (&"nse-database".into(), &"VXLAN".into()));
    assert_eq!(leads_to("web", "nsm-3"), (&"nse-logs-1".into(), &"veth".into()));
    assert_eq!(leads_to("collector", "nsm-1"), (&"nse-logs-2".into(), &"veth".into()));
    assert_eq!(leads_to("worker", "nsm-1"), (&"nse-database".into(), &"veth".into()));
    assert_eq!(leads_to("vault", "nsm-1"), (&"nse-database".into(), &"VXLAN".into()));
    assert_eq!(texts(&wire(&view, "web", "nsm-1")["addresses"]).len(), 2);
    // One pair of addresses each, two where there is IPv6 too.
    assert_eq!(ping_all(&view).await, 2 * 7);
    lab.end().await;
}

#[tokio::test]
async fn a_command_runs_in_the_namespace_of_a_workload() {
    let room = Room::new(TWO_NODES);
    let Some(lab) = room.up(&[]).await else { return };
    let devices = |name: &str| printed(room.nsm("exec", &[name, "--", "cat", "/proc/self/net/dev"]).output().unwrap());
    for (name, interface) in [("web", "nsm-3:"), ("vault", "nsm-1:"), ("node-1", "uplink:"), ("nse-first", "ns-first")]
    {
        assert!(devices(name).contains(interface), "{name}: {}", devices(name));
    }
    assert!(!devices("vault").contains("nsm-3:"));
    let code = room.nsm("exec", &["web", "--", "sh", "-c", "exit 7"]).status().unwrap().code();
    assert_eq!(code, Some(7));
    let output = room.nsm("exec", &["wbe", "--", "true"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("did you mean web?") && said.contains("collector"), "{said}");
    let named = [
        "collector",
        "node-1",
        "node-2",
        "nse-database",
        "nse-first",
        "nse-logs-1",
        "nse-logs-2",
        "vault",
        "web",
        "worker",
    ];
    if !nsm_kernel::privileges().in_user_namespace {
        assert_eq!(room.names(), named);
    }
    lab.end().await;
}

#[tokio::test]
async fn brought_up_twice_it_says_what_is_there_and_changes_nothing() {
    let room = Room::new(TWO_NODES);
    let Some(lab) = room.up(&[]).await else { return };
    let before = indexes(&room.view()).await;
    let said = printed(room.of_file("up", &[]).output().unwrap());
    assert!(said.contains("is up already") && said.contains("14 documents as they are, nothing to change"), "{said}");
    assert!(said.contains("6 connections up"), "{said}");
    assert_eq!(indexes(&room.view()).await, before);
    lab.end().await;
}

#[tokio::test]
async fn in_the_background_it_is_up_when_the_command_ends_and_goes_down_by_another() {
    let room = Room::new(TWO_NODES);
    let output = room.of_file("up", &["--detach"]).output().unwrap();
    let story = String::from_utf8(output.stdout).unwrap();
    if story.contains("privileges") {
        return println!("SKIPPED: {story}");
    }
    assert!(output.status.success() && story.contains("6 of 6 connections"), "{story}");
    assert_eq!(ping_all(&room.view()).await, 2 * 7);
    let said = printed(room.nsm("down", &[]).output().unwrap());
    assert!(said.contains("6 connections, 9 roles, 11 network namespaces") && said.contains("nothing left"), "{said}");
    room.assert_gone();
    for arguments in [&[][..], &["--name", &room.lab]] {
        let said = printed(room.nsm("down", arguments).output().unwrap());
        assert!(said.contains("left"), "{said}");
    }
}

#[tokio::test]
async fn down_ends_a_lab_also_while_it_comes_up() {
    let room = Room::new(TWO_NODES);
    let Some(lab) = room.up(&[]).await else { return };
    lab.end().await;
    let mut child = room.of_file("up", &[]).stdout(std::process::Stdio::null()).spawn().unwrap();
    let end = Instant::now() + PATIENCE;
    while !room.listens() {
        assert!(Instant::now() < end && child.try_wait().unwrap().is_none(), "it does not come up");
        sleep(Duration::from_millis(1)).await;
    }
    let said = printed(room.of_file("down", &[]).output().unwrap());
    assert!(said.contains("nothing left"), "{said}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    room.assert_gone();
}

#[tokio::test]
async fn two_labs_do_not_disturb_each_other() {
    let rooms = [Room::new(TWO_NODES), Room::new(TWO_NODES)];
    let Some(one) = rooms[0].up(&[]).await else { return };
    let other = rooms[1].up(&[]).await.unwrap();
    assert_eq!(ping_all(&rooms[0].view()).await, ping_all(&rooms[1].view()).await);
    one.signal(Signal::SIGTERM);
    one.end_by_itself().await;
    assert_eq!(ping_all(&rooms[1].view()).await, 2 * 7);
    other.end().await;
}
