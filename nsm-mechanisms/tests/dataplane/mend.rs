use std::process::Command;

use nsm_mechanisms::{Dataplane, Linux, Mended, Reach, Reconciled};

use super::*;

/// Runs `ip` in the namespace.
async fn ip(netns: &Netns, arguments: &str) {
    let words: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
    let done = netns.run(move || Command::new("ip").args(words).output()).await.unwrap();
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

async fn drifted(linux: &Linux) -> Vec<Arc<str>> {
    linux.census(Reach::Wires).await.drifted
}

#[tokio::test]
async fn whatever_somebody_does_to_a_wire_is_found_and_mended() {
    let Some(ns) = workloads().await else { return };
    let before = census(&ns).await;
    let linux = Linux::new("fwd").unwrap();
    let mut wire = wire("1", kernel(&ns[0], "nsm-1"), kernel(&ns[1], "nse-1"), 1);
    wire.context.mtu = 1400;
    let ip_context = wire.context.ip_context.as_mut().unwrap();
    ip_context.policies = vec![nsm_api::connectioncontext::PolicyRoute {
        proto: "17".into(),
        dst_port: "6666".into(),
        ..Default::default()
    }];
    ip_context.ip_neighbors = vec![nsm_api::connectioncontext::IpNeighbor {
        ip: "10.1.0.77".into(),
        hardware_address: "02:00:00:00:00:77".into(),
    }];
    linux.connect(&wire).await.unwrap();
    assert_eq!(drifted(&linux).await, []);
    assert_eq!(linux.mend("1").await.unwrap(), Mended::Whole);

    for (end, damage) in [
        (0, "link set nsm-1 down"),
        (1, "link set nse-1 down"),
        (0, "address del 10.1.0.1/32 dev nsm-1"),
        (0, "address del fd01::1/128 dev nsm-1"),
        (1, "route del 10.1.0.1/32 dev nse-1"),
        (1, "-6 route del fd01::1/128 dev nse-1"),
        (0, "neigh flush nud permanent dev nsm-1"),
        (0, "link set nsm-1 mtu 1280"),
        (1, "link set nse-1 address 02:00:00:00:00:99"),
        (0, "rule del pref 32000"),
        (0, "link del nsm-1"),
        (1, "link del nse-1"),
    ] {
        ip(&ns[end], damage).await;
        assert_eq!(drifted(&linux).await, [Arc::from("1")], "{damage}");
        let mended = linux.mend("1").await.unwrap();
        let gone = damage.starts_with("link del");
        assert!(
            matches!(mended, Mended::Remade) == gone && (gone || matches!(mended, Mended::Changed { writes: 1.. })),
            "{damage}: {mended:?}"
        );
        assert_eq!(drifted(&linux).await, [], "{damage}");
        assert_packets_both_ways(&ns, 1).await;
    }
    // What is there beyond is somebody else's.
    ip(&ns[0], "address add 10.9.9.9/32 dev nsm-1").await;
    assert_eq!(linux.mend("1").await.unwrap(), Mended::Whole);

    linux.disconnect("1").await.unwrap();
    assert_eq!(linux.mend("1").await.unwrap(), Mended::Unknown);
    assert_nothing_left(&before, &ns).await;
}
