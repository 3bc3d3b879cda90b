use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::kit::{Room, may_make_namespaces};
use crate::mesh::Mesh;

/// What a server says to this request line.
async fn said(address: &str, line: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{line} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    tokio::time::timeout(Duration::from_secs(30), stream.read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

fn value(page: &str, beginning: &str) -> u64 {
    let line = page.lines().find(|line| line.starts_with(beginning));
    let line = line.unwrap_or_else(|| panic!("no {beginning} in\n{page}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_forwarder_serves_what_it_counts_and_limits_what_passes() {
    if !may_make_namespaces() {
        return;
    }
    let room = Room::new();
    let identity = ("NSM_AUTHORITY", room.path("authority").display().to_string());
    let mut mesh = Mesh::empty(room, identity).await;
    mesh.start_registry().await;
    mesh.start_manager().await;
    let settings = [
        ("PROMETHEUS", "true"),
        ("NSM_PROMETHEUS_LISTEN_ON", "127.0.0.1:0"),
        ("PROMETHEUS_METRICS_PREFIX", "fwd"),
        ("NSM_RATE_LIMIT", "8Mbit"),
    ];
    mesh.start_forwarder_with(&settings).await;
    mesh.start_endpoint().await;
    mesh.start_client().await;
    mesh.packets_flow().await;

    let log = mesh.forwarder.as_ref().unwrap().said();
    let address = log.split("counters at http://").nth(1).and_then(|rest| rest.split("/metrics").next()).unwrap();
    let page = said(address, "GET /metrics").await;
    assert!(page.starts_with("HTTP/1.1 200 OK") && page.contains("text/plain; version=0.0.4"), "{page}");
    assert_eq!((value(&page, "fwd_wires "), value(&page, "fwd_requests_total{outcome=\"Ok\"}")), (1, 1));
    for name in ["server_rx_packets", "server_tx_packets", "client_rx_packets", "client_tx_bytes"] {
        assert!(value(&page, &format!("fwd_{name}_total{{")) >= 2, "{name}\n{page}");
    }
    let labels = r#"network_service="vpn",nsc="nsc-1",nsc_interface="KERNEL/nsm-1",nse_interface="KERNEL/"#;
    assert!(page.contains(labels), "{page}");
    assert!(said(address, "GET /").await.starts_with("HTTP/1.1 404"));
    assert!(said(address, "POST /metrics").await.starts_with("HTTP/1.1 405"));

    let tc = || Command::new("tc").args(["qdisc", "show", "dev", "nsm-1"]).output();
    let queue = String::from_utf8(mesh.client_netns.run(tc).await.unwrap().stdout).unwrap();
    assert!(queue.contains("tbf 4e:") && queue.contains("rate 8Mbit"), "{queue}");

    mesh.client.take().unwrap().stop().await;
    let page = said(address, "GET /metrics").await;
    assert!(value(&page, "fwd_wires ") == 0 && !page.contains("nsc-1"), "{page}");
    mesh.stop().await;
}
