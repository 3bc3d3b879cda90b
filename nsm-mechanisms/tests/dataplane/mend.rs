use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};

use nsm_mechanisms::{Dataplane, Linux, Mended, Pace, Programmed, Reach, Reconcile, Reconciled};

use super::*;

/// Runs `ip` in the namespace.
pub(super) async fn ip(netns: &Netns, arguments: &str) {
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

#[tokio::test]
async fn a_wire_that_could_not_be_removed_is_nobodys_until_it_can() {
    let Some(ns) = workloads().await else { return };
    ip(&ns[0], "link set lo alias x").await;
    let before = census(&ns).await;
    let linux = Linux::new("fwd").unwrap();
    let wire = |name: &str| wire("1", kernel(&ns[0], name), kernel(&ns[1], "nse-1"), 1);
    linux.connect(&wire("nsm-1")).await.unwrap();
    // The kernel removes no loopback interface, whatever its name is.
    for step in ["link del nsm-1", "link set lo down", "link set lo name nsm-1", "link set nsm-1 alias nsm:fwd:1"] {
        ip(&ns[0], step).await;
    }
    assert!(linux.disconnect("1").await.is_err());
    // It is tried again at once, and by each census.
    assert_eq!((linux.wires(), linux.disturbed().await), (0, vec![Arc::from("1")]));
    assert!(linux.mend("1").await.is_err());
    assert_eq!(drifted(&linux).await, [Arc::from("1")]);
    // Whoever asks for the connection again is not held up by it.
    assert_eq!(linux.connect(&wire("nsm-2")).await.unwrap(), Programmed::Moved);
    assert_packets_both_ways(&ns, 1).await;
    linux.disconnect("1").await.unwrap();

    linux.connect(&wire("nsm-2")).await.unwrap();
    for step in ["link del nsm-2", "link set nsm-1 name nsm-2"] {
        ip(&ns[0], step).await;
    }
    assert!(linux.disconnect("1").await.is_err());
    for step in ["link set nsm-2 alias x", "link set nsm-2 name lo", "link set lo up"] {
        ip(&ns[0], step).await;
    }
    assert_eq!(linux.mend("1").await.unwrap(), Mended::Gone);
    assert_eq!((linux.mend("1").await.unwrap(), drifted(&linux).await), (Mended::Unknown, Vec::new()));
    assert_nothing_left(&before, &ns).await;
}

/// Waits until it holds.
pub(super) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

/// Looks once at the start and then only when it is told to.
pub(super) const NEVER: Pace =
    Pace { every: Duration::from_secs(100_000), everywhere: 1, grace: Duration::from_secs(100_000) };

#[tokio::test]
async fn what_somebody_does_to_a_wire_is_heard_and_mended_at_once() {
    let Some(ns) = workloads().await else { return };
    let linux = Linux::new("fwd").unwrap();
    let _reconcile = Reconcile::start(linux.clone(), NEVER).await;
    // Heard also of wires that are there before anybody listens.
    linux.connect(&wire("1", kernel(&ns[0], "nsm-1"), kernel(&ns[1], "nse-1"), 1)).await.unwrap();
    for (end, damage) in [
        (1, "link del nse-1"),
        (0, "link set nsm-1 down"),
        (0, "link del nsm-1"),
        (0, "address del 10.1.0.1/32 dev nsm-1"),
        (1, "route del 10.1.0.1/32 dev nse-1"),
    ] {
        // One that was mended has its peace for a second.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        ip(&ns[end], damage).await;
        let [client, endpoint] = [1, 0].map(|host| addresses(1, host));
        until(damage, async || {
            answers(&ns[0], client[0], endpoint[0]).await
                && answers(&ns[0], client[1], endpoint[1]).await
                && drifted(&linux).await.is_empty()
        })
        .await;
        assert_packets_both_ways(&ns, 1).await;
    }
    linux.disconnect("1").await.unwrap();
}

/// A process in a namespace of its own, which only it keeps; and a path to it.
async fn process() -> Option<(Child, Mechanism)> {
    let netns = netns().await?;
    let child = netns.run(|| Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn()).await.unwrap();
    let mut mechanism = Mechanism::kernel();
    let path = format!("/proc/{}/ns/net", child.id()).into();
    mechanism.as_kernel_mut().unwrap().set_interface_name("nsm-1").unwrap().set_netns(&FileUrl::Path(path));
    Some((child, mechanism))
}

#[tokio::test]
async fn a_workload_that_ends_takes_its_wire_along_though_we_hold_its_namespace() {
    let Some((mut child, caller)) = process().await else { return };
    let Some(endpoint) = netns().await else { return };
    let before = census(std::slice::from_ref(&endpoint)).await;
    let linux = Linux::new("fwd").unwrap();
    let wire = wire("1", caller, kernel(&endpoint, "nse-1"), 1);
    let others = Reconcile::start(linux.clone(), NEVER).await;
    linux.connect(&wire).await.unwrap();
    drop(others);
    let mut disturbed = std::pin::pin!(linux.disturbed());
    // In this namespace nobody was ever seen, so it is nobody's loss; in the other one there is a process.
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut disturbed).await.is_err());
    assert_eq!(linux.mend("1").await.unwrap(), Mended::Whole);

    let id = Netns::open(format!("/proc/{}/ns/net", child.id())).unwrap().id();
    child.kill().unwrap();
    child.wait().unwrap();
    let told = tokio::time::timeout(Duration::from_secs(10), disturbed).await.unwrap();
    assert_eq!(told, [Arc::from("1")]);
    assert_eq!(linux.mend("1").await.unwrap(), Mended::Gone);
    linux.disconnect("1").await.unwrap();
    assert_nothing_left(&before, &[endpoint]).await;
    assert!(!descriptors().contains(&id.ino), "its namespace is still held");
}

#[tokio::test]
async fn who_listens_for_changes_holds_no_namespace() {
    let Some((mut child, caller)) = process().await else { return };
    let Some(endpoint) = netns().await else { return };
    let linux = Linux::new("fwd").unwrap();
    linux.connect(&wire("1", caller, kernel(&endpoint, "nse-1"), 1)).await.unwrap();
    let id = Netns::open(format!("/proc/{}/ns/net", child.id())).unwrap().id();
    let mut disturbed = std::pin::pin!(linux.disturbed());
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut disturbed).await.is_err());
    assert!(descriptors().contains(&id.ino));
    linux.disconnect("1").await.unwrap();
    assert!(!descriptors().contains(&id.ino), "its namespace is still held");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Inode numbers of what this process has open.
fn descriptors() -> Vec<u64> {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    open.filter_map(|entry| std::fs::metadata(entry.path()).ok()).map(|file| file.ino()).collect()
}

#[tokio::test]
async fn a_name_that_is_deleted_ends_a_workload_unless_a_process_is_in_it() {
    let name = format!("nsm-t-{}-n", std::process::id());
    let named = match Netns::create_named(&name).await {
        Ok(named) => named,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let Some(endpoint) = netns().await else { return };
    let linux = Linux::new("fwd").unwrap();
    let mut caller = Mechanism::kernel();
    let path = FileUrl::Path(named.path().into());
    caller.as_kernel_mut().unwrap().set_interface_name("nsm-1").unwrap().set_netns(&path);
    linux.connect(&wire("1", caller, kernel(&endpoint, "nse-1"), 1)).await.unwrap();
    let mut disturbed = std::pin::pin!(linux.disturbed());
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut disturbed).await.is_err());
    let inside = named.netns().clone();
    let mut child = inside.run(|| Command::new("sleep").arg("1000").spawn()).await.unwrap();
    drop((inside, named));
    // It lives on with its process.
    let early = tokio::time::timeout(Duration::from_millis(300), &mut disturbed).await.is_ok();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!early);
    let told = tokio::time::timeout(Duration::from_secs(10), disturbed).await.unwrap();
    assert_eq!(told, [Arc::from("1")]);
    assert_eq!(linux.mend("1").await.unwrap(), Mended::Gone);
    linux.disconnect("1").await.unwrap();
}
