//! The local wire, with real packets.

use nsm_kernel::*;
use std::time::Duration;

#[tokio::test]
async fn a_wire_carries_packets_both_ways_and_leaves_nothing() {
    let (client, endpoint) = (
        Netns::create().await.unwrap(),
        Netns::create().await.unwrap(),
    );
    let near = InterfaceSpec::new("nsm-1", "nsm:42")
        .unwrap()
        .with_mtu(1400)
        .with_address("10.0.0.1/32".parse().unwrap())
        .with_address("fd00::1/128".parse().unwrap())
        .with_route("10.0.0.0/32".parse().unwrap(), None)
        .with_route("fd00::/128".parse().unwrap(), None);
    let far = InterfaceSpec::new("nsm-42", "nsm:42")
        .unwrap()
        .with_mtu(1400)
        .with_address("10.0.0.0/32".parse().unwrap())
        .with_address("fd00::/128".parse().unwrap())
        .with_route("10.0.0.1/32".parse().unwrap(), None)
        .with_route("fd00::1/128".parse().unwrap(), None);
    let wire = VethWire::create(
        (&client, &near),
        (&endpoint, &far),
        PeerNeighbours::Permanent,
    )
    .await
    .unwrap();
    let pinger = Pinger::new(&client).await.unwrap();
    let rtt = pinger
        .ping(
            "10.0.0.1".parse().unwrap(),
            "10.0.0.0".parse().unwrap(),
            Duration::from_secs(1),
        )
        .await
        .unwrap();
    println!("{rtt:?}");
    let rtt = pinger
        .ping(
            "fd00::1".parse().unwrap(),
            "fd00::".parse().unwrap(),
            Duration::from_secs(1),
        )
        .await
        .unwrap();
    println!("{rtt:?}");
    assert!(wire.delete().await.unwrap());
    assert!(!wire.delete().await.unwrap());
}
