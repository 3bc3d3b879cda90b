//! How long wires take, in microseconds, beside the asynchronous `rtnetlink` crate doing a part of the work:
//! `cargo run --release -p nsm-kernel --example wire_timing` (root, or `unshare -Urn`).

use std::{net::IpAddr, os::fd::AsRawFd, time::Duration};

use nsm_kernel::{
    Counters, InterfaceSpec, Netns, PeerNeighbours, Pinger, Result, Snapshot, Underlay, VethWire, VxlanTunnel,
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};
use tokio::time::Instant;

const ROUNDS: usize = 200;

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    println!("{:44} {:>8} {:>8} {:>8}", "", "p50", "p90", "p99");
    let (a, b) = (Netns::create().await?, Netns::create().await?);
    handover(&a).await?;
    veth(&a, &b).await?;
    vxlan(&a, &b).await?;
    compare_with_rtnetlink(&a, &b).await
}

async fn handover(netns: &Netns) -> Result<()> {
    measure("run an empty closure in a namespace", async || {
        let start = Instant::now();
        netns.run(|| std::io::Result::Ok(())).await?;
        Ok(start.elapsed())
    })
    .await
}

async fn veth(a: &Netns, b: &Netns) -> Result<()> {
    let (near, far) = (spec("nsm-1", 1, 2)?, spec("nsm-2", 2, 1)?);
    measure("veth wire, both ends complete", async || {
        let start = Instant::now();
        let wire = VethWire::create((a, &near), (b, &far), PeerNeighbours::Permanent).await?;
        let took = start.elapsed();
        wire.delete().await?;
        Ok(took)
    })
    .await?;
    let pinger = Pinger::new(a).await?;
    measure("veth wire until the first ping is answered", async || {
        let start = Instant::now();
        let wire = VethWire::create((a, &near), (b, &far), PeerNeighbours::Permanent).await?;
        pinger.ping(ip(1), ip(2), Duration::from_secs(1)).await?;
        let took = start.elapsed();
        wire.delete().await?;
        Ok(took)
    })
    .await?;
    measure("veth wire, removal", async || {
        let wire = VethWire::create((a, &near), (b, &far), PeerNeighbours::Permanent).await?;
        let start = Instant::now();
        wire.delete().await?;
        Ok(start.elapsed())
    })
    .await?;
    let mut wire = VethWire::create((a, &near), (b, &far), PeerNeighbours::Permanent).await?;
    measure("veth wire, update without a change", async || {
        let start = Instant::now();
        wire.update(&near, &far).await?;
        Ok(start.elapsed())
    })
    .await?;
    let ends = [wire.a().clone(), wire.b().clone()];
    measure("veth wire, counters of both ends", async || {
        let start = Instant::now();
        Counters::of(&ends).await?;
        Ok(start.elapsed())
    })
    .await?;
    measure("state of a namespace, as a census reads it", async || {
        let start = Instant::now();
        Snapshot::take(a).await?;
        Ok(start.elapsed())
    })
    .await?;
    wire.delete().await?;
    Ok(())
}

async fn vxlan(a: &Netns, b: &Netns) -> Result<()> {
    let prefix = ipnet::Ipv4Net::new_assert([192, 168, 7, 0].into(), 24);
    let underlay = Underlay::create(2, prefix.into()).await?;
    let [one, two] = underlay.nodes() else {
        return Ok(());
    };
    let (local, remote) = (one.ip(), two.ip());
    let tunnel = VxlanTunnel { vni: 7, local, remote, port: 4789, remote_port: 4789, ttl: None };
    let back = VxlanTunnel { local: two.ip(), remote: one.ip(), ..tunnel };
    let (near, far) = (spec("nsm-1", 1, 2)?, spec("nsm-2", 2, 1)?);
    measure("VXLAN wire, one end complete", async || {
        let start = Instant::now();
        let end = tunnel.create(&one.netns, (a, &near)).await?;
        let took = start.elapsed();
        end.delete().await?;
        Ok(took)
    })
    .await?;
    let pinger = Pinger::new(a).await?;
    measure("VXLAN wire, both ends until the first ping", async || {
        let start = Instant::now();
        let end = tunnel.create(&one.netns, (a, &near)).await?;
        let other = back.create(&two.netns, (b, &far)).await?;
        pinger.ping(ip(1), ip(2), Duration::from_secs(1)).await?;
        let took = start.elapsed();
        end.delete().await?;
        other.delete().await?;
        Ok(took)
    })
    .await
}

/// Link, names, MTU, up and one address at each end: no routes, neighbours, marks or undo.
async fn compare_with_rtnetlink(a: &Netns, b: &Netns) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let (near, far) = (connect(a).await?, connect(b).await?);
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        near.link().add(LinkVeth::new("nsm-1", "peer").mtu(1400).build()).execute().await?;
        let there = std::os::fd::AsFd::as_fd(b).as_raw_fd();
        let moved = LinkMessageBuilder::<LinkUnspec>::new().name("peer".to_owned()).setns_by_fd(there);
        near.link().set(moved.build()).execute().await?;
        for (handle, old, new, address) in [(&near, "nsm-1", "nsm-1", 1), (&far, "peer", "nsm-2", 2)] {
            let index = index_of(handle, old).await?;
            let up = LinkUnspec::new_with_index(index).name(new.to_owned()).mtu(1400).up();
            handle.link().set(up.build()).execute().await?;
            handle.address().add(index, ip(address), 32).execute().await?;
        }
        times.push(start.elapsed());
        let index = index_of(&near, "nsm-1").await?;
        near.link().del(index).execute().await?;
    }
    report("rtnetlink crate: veth, moved, one address", times);
    Ok(())
}

async fn connect(netns: &Netns) -> std::result::Result<rtnetlink::Handle, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Handle::current();
    let (connection, handle, _) = netns
        .run(move || {
            let _reactor = runtime.enter();
            rtnetlink::new_connection()
        })
        .await?;
    tokio::spawn(connection);
    Ok(handle)
}

async fn index_of(handle: &rtnetlink::Handle, name: &str) -> std::result::Result<u32, Box<dyn std::error::Error>> {
    use futures::TryStreamExt;
    let mut found = handle.link().get().match_name(name.to_owned()).execute();
    let link = found.try_next().await?.ok_or("the link is gone")?;
    Ok(link.header.index)
}

fn spec(name: &str, own: u8, peer: u8) -> Result<InterfaceSpec> {
    let host = |n: u8| ipnet::IpNet::from(ip(n));
    Ok(InterfaceSpec::new(name, "nsm:timing")?.with_mtu(1400).with_address(host(own)).with_route(host(peer), None))
}

fn ip(n: u8) -> IpAddr {
    [10, 0, 0, n].into()
}

async fn measure(what: &str, mut round: impl AsyncFnMut() -> Result<Duration>) -> Result<()> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        times.push(round().await?);
    }
    report(what, times);
    Ok(())
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).map_or(0.0, |t| t.as_nanos() as f64 / 1000.0);
    println!("{what:44} {:8.1} {:8.1} {:8.1}", at(50), at(90), at(99));
}
