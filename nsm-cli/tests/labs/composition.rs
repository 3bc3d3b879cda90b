use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use nsm_kernel::{Netns, Pinger};
use tokio::net::TcpListener;

use crate::kit::{PATIENCE, Room, netns, printed, texts, wire};

const COMPOSITION: &str = include_str!("../../../examples/labs/composition.yaml");
/// A packet that is dropped is never answered, however long one waits.
const DROPPED: Duration = Duration::from_millis(500);

/// Takes connections there.
async fn listens(netns: &Netns, address: SocketAddr) -> TcpListener {
    let made = netns.run(move || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true).map(|()| listener)
    });
    TcpListener::from_std(made.await.unwrap()).unwrap()
}

async fn connects(netns: &Netns, to: SocketAddr, within: Duration) -> bool {
    matches!(tokio::time::timeout(within, netns.tcp_connect(to)).await, Ok(Ok(_)))
}

#[tokio::test]
async fn packets_of_a_client_pass_a_firewall_and_passthroughs_to_the_gateway_as_far_as_the_filter_lets_them() {
    let room = Room::new(COMPOSITION);
    let Some(lab) = room.up(&[]).await else { return };
    let through = "client goes through firewall, passthrough-1, passthrough-2 to gateway";
    assert!(lab.story().contains(through), "{}", lab.story());
    let drawn = printed(room.of_file("graph", &[]).output().unwrap());
    assert!(drawn.contains(through) && drawn.contains("serves nse-composition, as firewall"), "{drawn}");

    let view = room.view();
    let wire = wire(&view, "client", "nsm-1");
    assert_eq!(
        (&wire["endpoint"], texts(&wire["onward"])),
        (&"firewall".into(), vec!["passthrough-1", "passthrough-2", "gateway"])
    );
    let (client, gateway) = (netns(&view, "client"), netns(&view, "gateway"));
    let ip = |net: &str| net.split('/').next().unwrap().parse::<IpAddr>().unwrap();
    for (own, peer) in texts(&wire["addresses"]).into_iter().zip(texts(&wire["peers"])) {
        let (own, peer) = (ip(own), ip(peer));
        Pinger::new(&client).await.unwrap().ping(own, peer, PATIENCE).await.unwrap();
        let (open, blocked) = (SocketAddr::new(peer, 8080), SocketAddr::new(peer, 80));
        let _listening = [listens(&gateway, open).await, listens(&gateway, blocked).await];
        assert!(connects(&client, open, PATIENCE).await, "{open}");
        assert!(!connects(&client, blocked, DROPPED).await, "{blocked}");
    }

    // The filter is the file's.
    room.edit("allow tcp 8080", "allow tcp 80");
    assert!(room.of_file("up", &[]).status().unwrap().success());
    let (open, blocked) = ((gateway_of(&room), 80).into(), (gateway_of(&room), 8080).into());
    let _listening = [listens(&gateway, open).await, listens(&gateway, blocked).await];
    assert!(connects(&client, open, PATIENCE).await && !connects(&client, blocked, DROPPED).await);
    drop((_listening, client, gateway));
    lab.end().await;
}

/// The address behind the chain now.
fn gateway_of(room: &Room) -> Ipv4Addr {
    let view = room.view();
    texts(&wire(&view, "client", "nsm-1")["peers"])[0].split('/').next().unwrap().parse().unwrap()
}
