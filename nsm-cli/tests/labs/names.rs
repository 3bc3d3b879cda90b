use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use nsm_dns::Place;
use nsm_dns::testing::{Records, Server};
use tokio::time::{Instant, sleep};

use crate::kit::{PATIENCE, Room, netns, printed};
use crate::unprivileged::ordinary;

/// An endpoint whose clients ask it for names, and a pod.
const MESH: &str = "\
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata: {name: vpn}
spec: {payload: IP}
---
apiVersion: nsm/v1
kind: Endpoint
metadata: {name: nse}
spec:
  type: icmp-responder
  services: [vpn]
  cidrPrefixes: [172.16.1.0/24]
  dnsConfigs:
    - nameservers: [172.16.1.0]
      searches: [my.domain]
---
apiVersion: v1
kind: Pod
metadata:
  name: web
  annotations: {networkservicemesh.io: kernel://vpn/nsm-1}
";

fn settings(room: &Room) -> PathBuf {
    PathBuf::from(format!("/etc/netns/nsm-{}.web/resolv.conf", room.lab))
}

/// A DNS server at the endpoint; programs that `nsm exec` starts in the pod get its answers.
async fn names_are_there(room: &Room, as_whom: fn(Command) -> Command) {
    let there = Place::In(netns(&room.view(), "nse"));
    let inside = Server::listen(&there, "0.0.0.0:53".parse().unwrap()).await.unwrap();
    inside.set("db.my.domain.", Records::new().address("10.20.30.40".parse().unwrap()));
    let begun = Instant::now();
    loop {
        let mut getent = as_whom(room.nsm("exec", &["web", "--", "getent", "hosts", "db.my.domain"]));
        let output = tokio::task::spawn_blocking(move || getent.output().unwrap()).await.unwrap();
        if output.status.success() {
            assert!(printed(output).starts_with("10.20.30.40"));
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{output:?}");
        sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn names_of_an_endpoint_are_there_in_a_lab_and_gone_with_it() {
    if nsm_kernel::privileges().in_user_namespace || nsm_kernel::privileges().obstacle.is_some() {
        return println!("SKIPPED: names are for root");
    }
    let room = Room::new(MESH);
    let Some(mut lab) = room.up(&[]).await else { return };
    names_are_there(&room, |as_we_are| as_we_are).await;
    lab.signal(Signal::SIGKILL);
    assert_eq!(lab.ended().await, None, "killed");
    assert!(settings(&room).exists(), "it was left");
    let lab = room.up(&[]).await.unwrap();
    assert!(lab.story().contains("resolv.conf"), "{}", lab.story());
    assert!(settings(&room).exists());
    lab.end().await;
    assert!(!settings(&room).parent().unwrap().exists());
}

#[tokio::test]
async fn an_ordinary_user_has_names_in_a_lab_and_nothing_of_them_is_left() {
    let room = Room::new(MESH);
    if let Err(error) = ordinary(room.nsm("graph", &["--help"])).stdout(Stdio::null()).status() {
        return println!("SKIPPED: an ordinary user may not start nsm: {error}");
    }
    let Some(mut lab) = room.start(ordinary(room.of_file("up", &[]))).await else { return };
    names_are_there(&room, ordinary).await;
    assert!(!settings(&room).exists(), "that is for root");
    lab.signal(Signal::SIGKILL);
    assert_eq!(lab.ended().await, None, "killed");
    let lab = room.start(ordinary(room.of_file("up", &[]))).await.unwrap();
    names_are_there(&room, ordinary).await;
    lab.end().await;
}
