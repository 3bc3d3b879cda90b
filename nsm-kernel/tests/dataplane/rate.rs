use std::time::Duration;

use nsm_kernel::{Counters, InterfaceSpec, Netns, PeerNeighbours, Rate, Snapshot, VethWire, apply, reconcile};
use tokio::time::Instant;

use crate::{common::*, needs_net_admin};

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

/// Sends this many datagrams of 1000 octets as fast as it can; says how many octets arrived, with the headers of Ethernet, IP
/// and UDP, and how long it took until no more came.
async fn flood(a: &Netns, b: &Netns, datagrams: usize) -> (u64, Duration) {
    let server = b.udp_socket((ip("10.0.0.2"), 0).into()).await.unwrap();
    let client = a.udp_socket((ip("10.0.0.1"), 0).into()).await.unwrap();
    // Without the runtime, which would look for packets only now and then: what is not read in time finds no room.
    let (server, client) = (server.into_std().unwrap(), client.into_std().unwrap());
    let (begun, mut buffer, mut arrived) = (Instant::now(), [0; 2000], 0);
    for _ in 0..datagrams {
        // The queue may be full: that is what is tested.
        let _dropped = client.send_to(&[7; 1000], server.local_addr().unwrap());
        while server.recv(&mut buffer).is_ok() {
            arrived += 1042;
        }
    }
    server.set_nonblocking(false).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    while server.recv(&mut buffer).is_ok() {
        arrived += 1042;
    }
    (arrived, begun.elapsed())
}

async fn queues(netns: &Netns, interface: &str) -> String {
    let interface = interface.to_owned();
    let show = move || std::process::Command::new("tc").args(["qdisc", "show", "dev", &interface]).output();
    String::from_utf8(netns.run(show).await.unwrap().stdout).unwrap()
}

#[tokio::test]
async fn no_more_passes_than_the_limit_lets_and_all_of_that() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let (near, far) = ends("nsm:test");
    // 100 kB a second; after a pause 14180 octets at once (ten packets of the MTU).
    let limited = near.clone().with_rate(rate("800kbit"));
    let mut wire = VethWire::create((&a, &limited), (&b, &far), PeerNeighbours::Permanent).await.unwrap();
    let (arrived, took) = flood(&a, &b, 200).await;
    // However busy the machine is: the bucket holds its burst, and gets no more than the rate for the time that it took. What
    // waits in the queue, which is 28360 octets, comes too: half of what was sent finds no room.
    let most = 14_180 + took.as_millis() as u64 * 100 + 2000;
    assert!(arrived <= most, "{arrived} octets in {took:?}, at most {most}");
    assert!(arrived >= 28_000, "{arrived} octets in {took:?}");
    let ends = [wire.a().clone(), wire.b().clone()];
    let counted = Counters::of(&ends).await.unwrap();
    let lost = 200 - arrived / 1042;
    assert!(counted[0].unwrap().limited >= lost.min(1), "{counted:?}, {lost} lost");
    assert_eq!(Counters::all(&a).await.unwrap()[&ends[0].index()].limited, counted[0].unwrap().limited);

    // The other direction has none, and neither has this one when it is lifted.
    assert!(!queues(&b, "nsm-2").await.contains("tbf"), "{}", queues(&b, "nsm-2").await);
    assert_eq!(wire.update(&near, &far).await.unwrap().writes, 1);
    assert!(!queues(&a, "nsm-1").await.contains("tbf"), "{}", queues(&a, "nsm-1").await);
    assert_eq!(flood(&a, &b, 100).await.0, 100 * 1042);
}

#[tokio::test]
async fn a_limit_is_changed_in_place_read_again_and_put_right() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let (near, far) = ends("nsm:test");
    let mut wire = VethWire::create((&a, &near), (&b, &far), PeerNeighbours::Permanent).await.unwrap();
    for text in ["10Mbit", "11Mbit", "100Gbit", "8bit", "400Gbit"] {
        let limited = near.clone().with_rate(rate(text));
        assert_eq!(wire.update(&limited, &far).await.unwrap().writes, 1, "{text}");
        assert_eq!(reconcile(&a, wire.a().spec()).await.unwrap().writes, 0, "{text}: {}", queues(&a, "nsm-1").await);
        assert!(Snapshot::take(&a).await.unwrap().shows(wire.a().spec()));
    }
    let limited = wire.a().spec().clone();
    // Somebody else's queue in its place, or none.
    for command in
        [&["qdisc", "del", "dev", "nsm-1", "root"][..], &["qdisc", "replace", "dev", "nsm-1", "root", "pfifo"]]
    {
        let tc = move || std::process::Command::new("tc").args(command).status();
        assert!(a.run(tc).await.unwrap().success());
        assert!(!Snapshot::take(&a).await.unwrap().shows(&limited));
        assert_eq!(reconcile(&a, &limited).await.unwrap().writes, 1);
        assert!(Snapshot::take(&a).await.unwrap().shows(&limited));
    }
    let unlimited = InterfaceSpec { rate: None, ..limited.clone() };
    assert!(!Snapshot::take(&a).await.unwrap().shows(&unlimited));
    apply(&a, &unlimited, Some(&limited)).await.unwrap();
    assert!(Snapshot::take(&a).await.unwrap().shows(&unlimited));
}
