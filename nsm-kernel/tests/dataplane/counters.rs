use nsm_kernel::Counters;

use crate::{common::*, needs_net_admin};

#[tokio::test]
async fn what_one_end_sends_the_other_receives() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let wire = wire(&a, &b).await;
    let ends = [wire.a().clone(), wire.b().clone()];
    let before = Counters::of(&ends).await.unwrap();
    for _ in 0..10 {
        datagram_and_back(&a, "10.0.0.1", &b, "10.0.0.2", 1000).await;
    }
    let after = Counters::of(&ends).await.unwrap();
    let sent = |at: usize| after[at].unwrap().sent.packets - before[at].unwrap().sent.packets;
    let octets = |at: usize| after[at].unwrap().sent.bytes - before[at].unwrap().sent.bytes;
    // Ten datagrams of 1000 octets with UDP, IPv4 and Ethernet headers; neighbours may be looked for besides.
    assert!(sent(0) >= 10 && octets(0) >= 10 * 1042, "{before:?} {after:?}");
    assert!(octets(0) < 10 * 1042 + 2000, "{before:?} {after:?}");
    let now = Counters::of(&ends).await.unwrap();
    let [near, far] = [now[0].unwrap(), now[1].unwrap()];
    assert!(near.received.bytes <= far.sent.bytes && far.received.bytes >= octets(0), "{near:?} {far:?}");
    assert_eq!((near.sent.drops, near.received.errors), (0, 0));

    let all = Counters::all(&a).await.unwrap();
    assert!(all[&wire.a().index()].sent.bytes >= near.sent.bytes && all.contains_key(&1), "{all:?}");
    wire.delete().await.unwrap();
    assert_eq!(Counters::of(&ends).await.unwrap(), [None, None]);
}
