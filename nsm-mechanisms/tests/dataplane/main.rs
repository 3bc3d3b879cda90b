//! Wires in the kernel, in namespaces made for the test. Skipped, with a printed reason, where those cannot be made.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod across;
mod adopt;
mod changes;
mod dpdk;
mod limits;
mod local;
mod memif;
mod mend;
mod mesh;
mod relay;
mod remote;
mod trunk;
mod user_namespace;
mod vlan;
mod wireguard;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use nsm_api::mechanism::FileUrl;
use nsm_api::{ConnectionContext, IpContext, Mechanism, payload};
use nsm_kernel::{Census, CensusDiff, Netns, Pinger, links_with_mark};
use nsm_mechanisms::Wire;

/// A new namespace, or none where that is not possible: then the test is skipped.
async fn netns() -> Option<Netns> {
    match Netns::create().await {
        Ok(netns) => Some(netns),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// Two workloads.
async fn workloads() -> Option<[Netns; 2]> {
    Some([netns().await?, netns().await?])
}

fn kernel(netns: &Netns, name: &str) -> Mechanism {
    let mut mechanism = Mechanism::kernel();
    let mut kernel = mechanism.as_kernel_mut().unwrap();
    kernel.set_interface_name(name).unwrap().set_netns(&FileUrl::Path(netns.path()));
    mechanism
}

/// Point to point, dual stack: the client has .1, the endpoint .0 of `10.<number>.0.0` and `fd<number>::`.
fn context(number: u8) -> ConnectionContext {
    let net = |host: u8| vec![format!("10.{number}.0.{host}/32"), format!("fd{number:02}::{host}/128")];
    let ip = IpContext { src_ip_addrs: net(1), dst_ip_addrs: net(0), ..Default::default() };
    ConnectionContext { ip_context: Some(ip), ..Default::default() }
}

fn wire(id: &str, caller: Mechanism, next: Mechanism, number: u8) -> Wire {
    Wire { id: Arc::from(id), caller, next, context: context(number), payload: payload::IP.into(), origin: None }
}

fn addresses(number: u8, host: u8) -> [IpAddr; 2] {
    [format!("10.{number}.0.{host}").parse().unwrap(), format!("fd{number:02}::{host}").parse().unwrap()]
}

/// Pings the endpoint's addresses from the client and the client's from the endpoint, in both families.
async fn assert_packets_both_ways([client, endpoint]: &[Netns; 2], number: u8) {
    for (netns, own, other) in [(client, 1, 0), (endpoint, 0, 1)] {
        let pinger = Pinger::new(netns).await.unwrap();
        for (src, dst) in addresses(number, own).into_iter().zip(addresses(number, other)) {
            pinger
                .ping(src, dst, Duration::from_secs(2))
                .await
                .unwrap_or_else(|error| panic!("{src} to {dst}: {error}"));
        }
    }
}

async fn answers(netns: &Netns, src: IpAddr, dst: IpAddr) -> bool {
    let pinger = Pinger::new(netns).await.unwrap();
    pinger.ping(src, dst, Duration::from_millis(300)).await.is_ok()
}

async fn census(namespaces: &[Netns]) -> Vec<Census> {
    let mut all = Vec::new();
    for netns in namespaces {
        all.push(Census::take(netns).await.unwrap());
    }
    all
}

/// Everything is as it was before.
async fn assert_nothing_left(before: &[Census], namespaces: &[Netns]) {
    for (before, netns) in before.iter().zip(namespaces) {
        let diff = before.diff(&Census::take(netns).await.unwrap());
        assert_eq!(diff, CensusDiff::default(), "in {}:\n{diff}", netns.id());
    }
}

/// Number of the interface with this name that carries a mark of ours.
async fn index(netns: &Netns, name: &str) -> Option<u32> {
    let links = links_with_mark(netns, "nsm:").await.unwrap();
    links.into_iter().find(|link| link.name == name).map(|link| link.index)
}
