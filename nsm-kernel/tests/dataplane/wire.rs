use futures::FutureExt;
use nsm_kernel::{Census, Error, Item, Netns, PeerNeighbours, VethWire, delete_link, links_with_mark};

use crate::{common::*, needs_net_admin};

#[tokio::test]
async fn a_wire_carries_packets_both_ways_and_leaves_nothing() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let before = Before::of(&[&a, &b]).await;
    let wire = wire(&a, &b).await;
    for (from, to) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        datagram_and_back(&a, from, &b, to, 1000).await;
        datagram_and_back(&b, to, &a, from, 1000).await;
        // Larger than the MTU: fragments pass too.
        datagram_and_back(&a, from, &b, to, 4000).await;
    }
    assert_eq!((mtu(&a, "nsm-1").await, mtu(&b, "nsm-2").await), (1400, 1400));
    let marked = links_with_mark(&a, "nsm:").await.unwrap();
    assert_eq!(marked.len(), 1);
    assert_eq!((marked[0].name.as_str(), marked[0].kind.as_deref()), ("nsm-1", Some("veth")));
    assert_eq!(links_with_mark(&a, "other:").await.unwrap(), []);

    assert!(wire.delete().await.unwrap());
    before.assert_nothing_changed().await;
    assert!(!wire.delete().await.unwrap(), "deleting again finds nothing");
}

#[tokio::test]
async fn hardware_addresses_are_those_asked_for_and_known_to_the_peer() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let (near, far) = ends("nsm:test");
    let mac = [2, 0, 0, 0, 0, 1];
    let wire = VethWire::create((&a, &near.with_mac(mac)), (&b, &far), PeerNeighbours::Permanent).await.unwrap();
    assert_eq!(wire.a().mac(), mac);
    assert_ne!(wire.b().mac(), [0; 6]);
    let known = &wire.b().spec().neighbours;
    assert!(known.iter().all(|n| n.mac == mac) && known.len() == 2, "{known:?}");
    let census = Census::take(&a).await.unwrap();
    let neighbours = census.items.iter().filter(|item| matches!(item, Item::Neighbour { .. }));
    assert_eq!(neighbours.count(), 2);
}

#[tokio::test]
async fn a_name_taken_at_the_second_end_is_told_and_nothing_remains() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let foreign = VethWire::create(
        (&b, &spec("nsm-2", "somebody else")),
        (&Netns::create().await.unwrap(), &spec("x", "")),
        PeerNeighbours::Learned,
    )
    .await
    .unwrap();
    let before = Before::of(&[&a, &b]).await;
    let (near, far) = ends("nsm:test");
    let error = VethWire::create((&a, &near), (&b, &far), PeerNeighbours::Learned).await.unwrap_err();
    let Error::NameTaken { name, netns, alias } = error else { panic!("{error}") };
    assert_eq!((name.as_str(), netns, alias.as_deref()), ("nsm-2", b.id(), Some("somebody else")));
    before.assert_nothing_changed().await;

    assert!(!delete_link(&b, "nsm-2", "nsm:test").await.unwrap(), "a foreign interface is left alone");
    before.assert_nothing_changed().await;
    assert!(delete_link(&b, "nsm-2", "somebody else").await.unwrap());
    drop(foreign);
}

#[tokio::test]
async fn what_the_kernel_refuses_half_way_is_undone() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let before = Before::of(&[&a, &b]).await;
    let (near, far) = ends("nsm:test");
    // A gateway that is the interface's own address is refused, after link and addresses were made.
    let near = near.with_route("10.9.0.0/16".parse().unwrap(), Some(ip("10.0.0.1")));
    let error = VethWire::create((&a, &near), (&b, &far), PeerNeighbours::Permanent).await.unwrap_err();
    assert!(error.to_string().contains("add route 10.9.0.0/16 via 10.0.0.1"), "{error}");
    before.assert_nothing_changed().await;
}

#[tokio::test]
async fn a_caller_who_gives_up_leaves_nothing() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let before = Before::of(&[&a, &b]).await;
    let (near, far) = ends("nsm:test");
    let mut given_up = 0;
    for _ in 0..20 {
        // Given up after the first poll, when the work has been handed over.
        match VethWire::create((&a, &near), (&b, &far), PeerNeighbours::Permanent).now_or_never() {
            None => given_up += 1,
            // On a busy machine the other threads may answer before the first poll ends, and what was given up before
            // this may still have its names.
            Some(Ok(wire)) => assert!(wire.delete().await.unwrap()),
            Some(Err(Error::NameTaken { .. })) => {}
            Some(Err(error)) => panic!("{error}"),
        }
    }
    assert!(given_up > 0, "every wire was made within one poll");
    tokio::time::timeout(PATIENCE, async {
        while !before.is_unchanged().await {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("everything is taken back");
    // Whatever was still queued has seen that nobody waits.
    let wire = wire(&a, &b).await;
    assert!(wire.delete().await.unwrap());
}

#[tokio::test]
async fn many_wires_of_one_namespace_are_made_and_removed_at_once() {
    needs_net_admin!();
    let hub = Netns::create().await.unwrap();
    let mut leaves = Vec::new();
    for _ in 0..8 {
        leaves.push(Netns::create().await.unwrap());
    }
    let before = Before::of(&[&hub]).await;
    let making = (0..64usize).map(|n| {
        let (hub, leaf) = (hub.clone(), leaves[n % leaves.len()].clone());
        tokio::spawn(async move {
            let near = spec(&format!("hub-{n}"), "nsm:many");
            let far = spec(&format!("leaf-{n}"), "nsm:many");
            VethWire::create((&hub, &near), (&leaf, &far), PeerNeighbours::Learned).await
        })
    });
    let mut wires = Vec::new();
    for wire in making.collect::<Vec<_>>() {
        wires.push(wire.await.unwrap().unwrap());
    }
    assert_eq!(links_with_mark(&hub, "nsm:many").await.unwrap().len(), 64);
    let removing = wires.into_iter().map(|wire| tokio::spawn(async move { wire.delete().await }));
    for removed in removing.collect::<Vec<_>>() {
        assert!(removed.await.unwrap().unwrap());
    }
    before.assert_nothing_changed().await;
}

#[tokio::test]
async fn a_wire_whose_other_namespace_ended_is_deleted_without_error() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let before = Before::of(&[&a]).await;
    let (near, far) = ends("nsm:test");
    let wire = VethWire::create((&a, &near), (&b, &far), PeerNeighbours::Learned).await.unwrap();
    assert!(delete_link(&b, "nsm-2", "nsm:test").await.unwrap());
    assert!(!wire.delete().await.unwrap());
    before.assert_nothing_changed().await;
}

#[tokio::test]
async fn the_very_first_packet_over_a_new_wire_is_answered() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let pinger = nsm_kernel::Pinger::new(&a).await.unwrap();
    for _ in 0..20 {
        let wire = wire(&a, &b).await;
        // Not repeated: a packet that is lost fails the test.
        pinger.ping(ip("10.0.0.1"), ip("10.0.0.2"), PATIENCE).await.unwrap();
        pinger.ping(ip("fd00::1"), ip("fd00::2"), PATIENCE).await.unwrap();
        wire.delete().await.unwrap();
    }
}
