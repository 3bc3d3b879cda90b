use std::time::Duration;

use nsm_kernel::{Error, Liveness, Netns, PeerNeighbours, Pinger, ProbePair, VethWire};
use tokio::time::Instant;

use crate::{common::*, needs_net_admin};

fn pair(src: &str, dst: &str) -> ProbePair {
    ProbePair { src: ip(src), dst: ip(dst) }
}

#[tokio::test]
async fn a_death_is_noticed_within_its_bounds() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let wire = wire(&a, &b).await;
    let pinger = Pinger::new(&a).await.unwrap();
    let pairs = [pair("10.0.0.1", "10.0.0.2"), pair("fd00::1", "fd00::2")];
    let (interval, missed) = (Duration::from_millis(50), 3);
    let alive = pinger.probe(&pairs, Duration::from_secs(1), missed).await.unwrap();
    assert!(matches!(alive, Liveness::Alive(rtt) if rtt > Duration::ZERO), "{alive:?}");

    let watching = tokio::spawn({
        let pinger = pinger.clone();
        async move { (pinger.watch(&pairs, interval, missed).await, Instant::now()) }
    });
    tokio::time::sleep(interval * 6).await;
    assert!(!watching.is_finished(), "a living wire is not called dead");
    // From here on packets vanish: the other end is down but the addresses are still there.
    let died = Instant::now();
    wire.delete().await.unwrap();
    let deleted = died.elapsed();
    let (dead, noticed) = watching.await.unwrap();
    assert!(pairs.contains(&dead.unwrap()));
    let took = noticed - died;
    assert!(took >= interval * (missed - 1), "{took:?}");
    // A busy machine adds to it, never a whole second.
    assert!(took <= interval * (missed + 1) + deleted + Duration::from_secs(1), "{took:?}");
    assert!(matches!(pinger.probe(&pairs, Duration::from_millis(10), 2).await.unwrap(), Liveness::Dead(_)));
}

/// How many ICMP echo requests the namespace has received and not answered (`/proc/net/snmp`).
async fn unanswered(netns: &Netns) -> u64 {
    let text = netns.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).await.unwrap();
    let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("Icmp: ")).collect();
    let value = |name: &str| -> u64 {
        let at = lines[0].split(' ').position(|known| known == name).unwrap();
        lines[1].split(' ').nth(at).unwrap().parse().unwrap()
    };
    value("InEchos") - value("OutEchoReps")
}

/// What counts is told by the other end, so it is the same on a busy machine.
#[tokio::test]
async fn a_wire_is_dead_after_three_missed_probes_and_not_before() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let _wire = wire(&a, &b).await;
    let pinger = Pinger::new(&a).await.unwrap();
    let pairs = [pair("10.0.0.1", "10.0.0.2")];
    let (interval, missed) = (Duration::from_millis(20), 3);
    let watching = tokio::spawn({
        let pinger = pinger.clone();
        async move { pinger.watch(&pairs, interval, missed).await }
    });
    tokio::time::sleep(interval * 5).await;
    assert!(!watching.is_finished() && unanswered(&b).await == 0);
    let silent = Instant::now();
    b.run(|| std::fs::write("/proc/sys/net/ipv4/icmp_echo_ignore_all", "1")).await.unwrap();
    assert_eq!(watching.await.unwrap().unwrap(), pairs[0]);
    assert_eq!(unanswered(&b).await, 3);
    // The first of them may have been sent at once, and the last was waited for.
    assert!(silent.elapsed() >= interval * 2, "{:?}", silent.elapsed());
    let dead = pinger.probe(&pairs, interval, missed).await.unwrap();
    assert_eq!((dead, unanswered(&b).await), (Liveness::Dead(pairs[0]), 6));
}

#[tokio::test]
async fn the_pair_that_is_silent_is_named_and_others_are_not_held_up() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let _wire = wire(&a, &b).await;
    let pinger = Pinger::new(&a).await.unwrap();
    let silent = pair("10.0.0.1", "10.0.0.3");
    let pairs = [pair("10.0.0.1", "10.0.0.2"), silent, pair("0.0.0.0", "10.0.0.2")];
    let outcome = pinger.probe(&pairs, Duration::from_millis(30), 2).await.unwrap();
    assert_eq!(outcome, Liveness::Dead(silent));
    let error = pinger.ping(ip("10.0.0.1"), ip("fd99::1"), Duration::from_millis(30)).await.unwrap_err();
    assert!(matches!(error, Error::Kernel { .. }), "no route: {error}");
    // An address that is not ours cannot be a source.
    pinger.ping(ip("10.0.0.77"), ip("10.0.0.2"), Duration::from_millis(30)).await.unwrap_err();
}

#[tokio::test]
async fn one_socket_serves_many_targets_at_once() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let near = spec("nsm-1", "x").with_address("10.0.0.1/16".parse().unwrap());
    let mut far = spec("nsm-2", "x");
    let mut pairs = Vec::new();
    for n in 0..400u32 {
        let dst = format!("10.0.{}.{}", 1 + n / 200, 1 + n % 200);
        far = far.with_address(format!("{dst}/16").parse().unwrap());
        pairs.push(pair("10.0.0.1", &dst));
    }
    let _wire = VethWire::create((&a, &near), (&b, &far), PeerNeighbours::Permanent).await.unwrap();
    let pinger = Pinger::new(&a).await.unwrap();
    // Two at once, so that each reads answers meant for the other.
    let second = tokio::spawn({
        let (pinger, pairs) = (Pinger::new(&a).await.unwrap(), pairs.clone());
        async move { pinger.probe(&pairs, PATIENCE, 1).await }
    });
    let first = pinger.probe(&pairs, PATIENCE, 1).await.unwrap();
    assert!(matches!(first, Liveness::Alive(_)), "{first:?}");
    assert!(matches!(second.await.unwrap().unwrap(), Liveness::Alive(_)));
}

#[tokio::test]
async fn nothing_to_probe_is_alive() {
    needs_net_admin!();
    let pinger = Pinger::new(&Netns::create().await.unwrap()).await.unwrap();
    let outcome = pinger.probe(&[], Duration::from_secs(1), 3).await.unwrap();
    assert_eq!(outcome, Liveness::Alive(Duration::ZERO));
}
