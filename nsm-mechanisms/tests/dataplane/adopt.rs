use nsm_kernel::{InterfaceSpec, PeerNeighbours, VethWire};
use nsm_mechanisms::{Census, Dataplane, Linux, Programmed, Reach, Reconciled};

use super::*;

#[tokio::test]
async fn a_restarted_forwarder_takes_up_its_wire_without_cutting_it() {
    let Some(ns) = workloads().await else { return };
    let before = census(&ns).await;
    let first = wire("1", kernel(&ns[0], "nsm-1"), kernel(&ns[1], "nse-1"), 1);
    Linux::new("fwd").unwrap().connect(&first).await.unwrap();
    let indexes = (index(&ns[0], "nsm-1").await, index(&ns[1], "nse-1").await);
    assert!(indexes.0.is_some() && indexes.1.is_some());

    let restarted = Linux::new("fwd").unwrap();
    assert_eq!(restarted.connect(&first).await.unwrap(), Programmed::Adopted);
    assert_eq!((index(&ns[0], "nsm-1").await, index(&ns[1], "nse-1").await), indexes);
    assert_packets_both_ways(&ns, 1).await;

    // One that comes back with other addresses converges.
    let restarted = Linux::new("fwd").unwrap();
    restarted.connect(&wire("1", kernel(&ns[0], "nsm-1"), kernel(&ns[1], "nse-1"), 2)).await.unwrap();
    assert_eq!((index(&ns[0], "nsm-1").await, index(&ns[1], "nse-1").await), indexes);
    assert_packets_both_ways(&ns, 2).await;
    restarted.disconnect("1").await.unwrap();
    assert_nothing_left(&before, &ns).await;
}

#[tokio::test]
async fn half_of_a_former_wire_gives_way_to_a_new_one() {
    let Some(ns) = workloads().await else { return };
    let Some(former) = netns().await else { return };
    let before = census(&ns).await;
    Linux::new("fwd").unwrap().connect(&wire("1", kernel(&ns[0], "nsm-1"), kernel(&former, "nse-1"), 1)).await.unwrap();
    let restarted = Linux::new("fwd").unwrap();
    restarted.connect(&wire("1", kernel(&ns[0], "nsm-1"), kernel(&ns[1], "nse-1"), 1)).await.unwrap();
    assert_packets_both_ways(&ns, 1).await;
    // So does one of a connection that nobody asks for any more.
    let restarted = Linux::new("fwd").unwrap();
    restarted.connect(&wire("2", kernel(&ns[0], "nsm-1"), kernel(&ns[1], "nse-1"), 2)).await.unwrap();
    assert_packets_both_ways(&ns, 2).await;
    restarted.disconnect("2").await.unwrap();
    assert_nothing_left(&before, &ns).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_claims_is_removed_and_nothing_else() {
    let Some(ns) = workloads().await else { return };
    // A workload is found by its process; here, by its name.
    let (client, endpoint) = match (
        Netns::create_named(&format!("nsm-t-{}-c", std::process::id())).await,
        Netns::create_named(&format!("nsm-t-{}-e", std::process::id())).await,
    ) {
        (Ok(client), Ok(endpoint)) => (client, endpoint),
        (Err(error), _) | (_, Err(error)) => return eprintln!("skipped: {error}"),
    };
    let named = [client.netns().clone(), endpoint.netns().clone()];
    let foreign = |name: &str, mark: &str| InterfaceSpec::new(name, mark).unwrap();
    VethWire::create(
        (&named[0], &foreign("theirs", "nsm:other-forwarder:1")),
        (&named[1], &foreign("theirs", "")),
        PeerNeighbours::Learned,
    )
    .await
    .unwrap();
    let before = census(&named).await;

    let name = format!("fwd-{}", std::process::id());
    let earlier = Linux::new(&name).unwrap();
    let kept = wire("kept", kernel(&named[0], "kept"), kernel(&named[1], "kept"), 1);
    earlier.connect(&kept).await.unwrap();
    earlier.connect(&wire("lost", kernel(&named[0], "lost"), kernel(&named[1], "lost"), 2)).await.unwrap();
    // Of this one an end is where nobody looks; it goes with the other end.
    earlier.connect(&wire("half", kernel(&named[0], "half"), kernel(&ns[1], "half"), 3)).await.unwrap();

    let restarted = Linux::new(&name).unwrap();
    let census = restarted.census(Reach::Everywhere).await;
    assert_eq!((census.strays.len(), census.drifted.len()), (5, 0));
    restarted.connect(&kept).await.unwrap();
    let mut removed = Vec::new();
    for stray in census.strays {
        if restarted.remove(&stray).await.unwrap() {
            removed.push(stray.name);
        }
    }
    removed.sort_unstable();
    assert_eq!(removed, ["half", "lost"]);
    assert_packets_both_ways(&named, 1).await;
    assert_eq!(restarted.census(Reach::Everywhere).await, Census { strays: Vec::new(), drifted: Vec::new() });
    restarted.disconnect("kept").await.unwrap();
    assert_nothing_left(&before, &named).await;
}
