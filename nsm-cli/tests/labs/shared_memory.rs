use std::path::Path;

use crate::echo;
use crate::kit::{Room, texts, wire};

const MESH: &str = "\
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata:
  name: vpn
spec:
  payload: IP
---
apiVersion: nsm/v1
kind: Endpoint
metadata:
  name: nse-vpn
spec:
  type: icmp-responder
  services: [vpn]
  cidrPrefixes: [172.16.1.0/24]
---
apiVersion: v1
kind: Pod
metadata:
  name: fast
  annotations:
    networkservicemesh.io: memif://vpn/mem-1,kernel://vpn/nsm-1
spec: {}
";

#[tokio::test]
async fn a_program_of_a_pod_finds_its_shared_memory_and_the_endpoint_answers_there() {
    let room = Room::new(MESH);
    let Some(lab) = room.up(&[]).await else { return };
    let view = room.view();
    assert_eq!(wire(&view, "fast", "nsm-1")["kind"], "veth");
    let shared = wire(&view, "fast", "mem-1");
    assert_eq!((&shared["kind"], &shared["state"]), (&"memif".into(), &"Up".into()));
    let socket = shared["socket"].as_str().unwrap();
    assert!(lab.story().contains(&format!("fast reaches mem-1 as a memif client at {socket}")), "{}", lab.story());

    let ends = ["addresses", "peers"].map(|end| texts(&shared[end])[0].split('/').next().unwrap().parse().unwrap());
    echo::answers(Path::new(socket), ends).await;
    lab.end().await;
}
