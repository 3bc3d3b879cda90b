//! A client and an endpoint in processes of their own, each in mount, process and network namespaces of its own, as in two pods:
//! no path of theirs means anything to the manager and the forwarder, and only descriptors lead to their namespaces and sockets.
//! Skipped, with a printed reason, where such namespaces cannot be made.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod pods;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nsm_api::NetworkService;
use nsm_chain::{Call, Element, Error, Next, Result, elements};
use nsm_mechanisms::{CrossConnect, Linux};
use nsm_sdk::identity::HmacTokens;
use nsm_sdk::registry::stacks::RegistryClient;
use nsm_sdk::roles::{ForwarderRole, ManagerRole, Site};
use nsm_sdk::transport::Transport;

use pods::Pod;

/// Where everybody listens whom all can reach.
fn socket(directory: &Path, name: &str) -> String {
    format!("unix://{}/{name}.sock", directory.display())
}

/// Without TLS: the processes share no authority.
fn site(name: &str) -> Site {
    let id = format!("spiffe://example.org/{name}").parse().unwrap();
    Site::over(Transport::insecure(Arc::new(HmacTokens::new(&id))))
}

/// A forwarder that takes no connection.
struct Refuses;

impl Element for Refuses {
    async fn request(&self, _call: Call, _next: Next<'_>) -> Result<Call> {
        Err(Error::unavailable("this forwarder takes nothing"))
    }
}

/// The descriptors of namespaces that this process was sent: opened with `O_PATH`, unlike those that a data plane opens to work in.
fn namespaces() -> usize {
    let is_path_only = |number: &str| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or_default();
        u32::from_str_radix(flags.trim(), 8).is_ok_and(|flags| flags & 0o10_000_000 != 0)
    };
    let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    files
        .filter(|file| std::fs::read_link(file.path()).is_ok_and(|to| to.to_string_lossy().starts_with("net:")))
        .filter(|file| is_path_only(&file.file_name().to_string_lossy()))
        .count()
}

/// Waits for what another task of ours, or the peer, has still to do.
async fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..400 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("never came: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_flow_between_pods_that_only_descriptors_lead_to() {
    if let Err(reason) = Pod::possible() {
        eprintln!("skipped: {reason}");
        return;
    }
    let directory = pods::Directory::new();
    let url = |name: &str| socket(directory.path(), name);
    let manager = ManagerRole::new("nsmgr", site("nsmgr")).listen_on(url("nsmgr")).serve().await.unwrap();
    let forwarder =
        |name: &str, wire| ForwarderRole::new(name, site(name), url("nsmgr"), wire).listen_on(url(name)).serve();
    // One of them is asked first; whichever it is, the other one must find the descriptors too.
    let refusing = forwarder("forwarder-0", elements![Refuses]).await.unwrap();
    let linux = Linux::new(&format!("forwarder-{}", std::process::id())).unwrap();
    let working = forwarder("forwarder-1", elements![CrossConnect::new(linux.clone())]).await.unwrap();
    let registry =
        RegistryClient::builder("operator").connect(site("operator").channels(), url("nsmgr")).build().unwrap();
    let vpn = NetworkService { name: "vpn".into(), payload: nsm_api::payload::IP.into(), ..Default::default() };
    registry.services.request(Call::new(vpn)).await.unwrap();

    let mut endpoint = Pod::start("endpoint", directory.path());
    assert_eq!(endpoint.says().await, "registered");
    let seen = registry.finder().endpoint("nse").await.unwrap();
    assert!(seen.url.starts_with("inode://"), "{}", seen.url);
    assert!(!directory.path().join("endpoint/nse.sock").exists());

    for round in 0..2 {
        let mut client = Pod::start("client", directory.path());
        // Asked for, pinged, refreshed, pinged.
        assert_eq!(client.says().await, "connected", "round {round}");
        assert_eq!((linux.wires(), working.connections()), (1, 1));
        assert!(namespaces() > 0);
        client.tell("close").await;
        assert_eq!(client.says().await, "closed");
        client.ends().await;
        until("every descriptor of the connection is closed", || namespaces() == 0).await;
        assert_eq!(linux.wires(), 0);
    }

    endpoint.tell("close").await;
    assert_eq!(endpoint.says().await, "closed");
    endpoint.ends().await;
    assert!(registry.finder().endpoint("nse").await.is_err());
    for role in [refusing, working, manager] {
        role.shutdown().await.unwrap();
    }
}

/// What a pod runs, when this program is started as one.
#[test]
#[ignore = "runs in a pod of the other test"]
fn pod() {
    let Some((role, directory)) = pods::am() else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match &*role {
        "endpoint" => runtime.block_on(pods::endpoint(&directory)),
        "client" => runtime.block_on(pods::client(&directory)),
        other => panic!("no role {other}"),
    }
}
