//! What it takes to make a wire.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use nsm_benches::{Figures, quantile};
use nsm_kernel::Netns;
use nsm_mechanisms::{Dataplane, Linux, Programmed};

use crate::bare::{self, Rtnl};
use crate::{Counts, ETHERNET_MTU, Outcome, end, ours, rounded};

/// How long a wire takes, beside the bare messages for it; then what it takes to ask again.
pub(crate) async fn programming(counts: Counts, figures: &mut Figures) -> Outcome<()> {
    let (client, endpoint) = (Netns::create().await?, Netns::create().await?);
    let linux = Linux::new("dataplane")?;
    let ends = (&end(&client, 0, 1), &end(&endpoint, 0, 0));
    let wire = ours::local(0, ends)?;
    let (mut near, mut far) = (Rtnl::open(&client).await?, Rtnl::open(&endpoint).await?);
    let (mut wires, mut messages, mut again) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..counts.rounds + counts.rounds / 10 {
        let start = Instant::now();
        bare::veth((&mut near, &mut far), ends, ETHERNET_MTU)?;
        let bare = start.elapsed();
        bare::delete(&mut near, ends.0)?;
        let start = Instant::now();
        linux.connect(&wire).await?;
        let ours = start.elapsed();
        let start = Instant::now();
        let programmed = linux.connect(&wire).await?;
        let refresh = start.elapsed();
        if programmed != Programmed::Unchanged {
            return Err(format!("asking again was not without a change: {programmed:?}").into());
        }
        linux.disconnect(&wire.id).await?;
        // The first ones warm up.
        if round >= counts.rounds / 10 {
            messages.push(bare);
            wires.push(ours);
            again.push(refresh);
        }
    }
    let (bare, ours) = (quantile(&mut messages, 0.5), quantile(&mut wires, 0.5));
    figures.put_us("local_wire_bare_messages_p50_us", bare);
    figures.put_us("local_wire_p50_us", ours);
    figures.put_us("local_wire_p99_us", quantile(&mut wires, 0.99));
    figures.put("local_wire_ratio", rounded(ours.as_secs_f64() / bare.as_secs_f64()));
    figures.put_us("asked_again_p50_us", quantile(&mut again, 0.5));
    figures.put_us("asked_again_p99_us", quantile(&mut again, 0.99));
    Ok(())
}

/// One endpoint with many clients, each in a namespace of its own, made one after the other.
pub(crate) async fn many(counts: Counts, figures: &mut Figures) -> Outcome<()> {
    let mut clients = Vec::new();
    for _ in 0..counts.connections {
        clients.push(Netns::create().await?);
    }
    let endpoint = Netns::create().await?;
    let mut far = Rtnl::open(&endpoint).await?;
    let mut messages = Vec::new();
    for (number, client) in (0..).zip(&clients) {
        let mut near = Rtnl::open(client).await?;
        let start = Instant::now();
        bare::veth((&mut near, &mut far), (&end(client, number, 1), &end(&endpoint, number, 0)), ETHERNET_MTU)?;
        messages.push(start.elapsed());
    }
    report_many("bare_messages", messages, figures);
    // With its namespace all of it goes at once; until then the kernel is busy with that.
    drop((far, endpoint));
    for client in &clients {
        while devices(client).await?.contains("nsm-1:") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    let endpoint = Netns::create().await?;
    let linux = Linux::new("dataplane")?;
    let mut wires = Vec::new();
    for (number, client) in (0..).zip(&clients) {
        let mut end = end(client, number, 1);
        // That of the bare pair may not have gone yet.
        end.name = "nsm-2".to_owned();
        end.ip = Ipv4Addr::new(11, end.ip.octets()[1], end.ip.octets()[2], 1);
        let wire = ours::local(number, (&end, &self::end(&endpoint, number, 0)))?;
        let start = Instant::now();
        linux.connect(&wire).await?;
        wires.push(start.elapsed());
    }
    report_many("wire", wires, figures);
    let removals = (0..counts.connections).map(|number| {
        let linux = linux.clone();
        tokio::spawn(async move { linux.disconnect(&format!("c-{number}")).await })
    });
    for removal in removals.collect::<Vec<_>>() {
        removal.await??;
    }
    Ok(())
}

/// What is in a namespace, as the kernel lists it.
async fn devices(netns: &Netns) -> Outcome<String> {
    Ok(netns.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).await?)
}

fn report_many(what: &str, times: Vec<Duration>, figures: &mut Figures) {
    let tenth = (times.len() / 10).max(1);
    let (mut first, mut last) = (times[..tenth].to_vec(), times[times.len() - tenth..].to_vec());
    figures.put_us(&format!("many_{what}_first_tenth_p50_us"), quantile(&mut first, 0.5));
    figures.put_us(&format!("many_{what}_last_tenth_p50_us"), quantile(&mut last, 0.5));
    figures.put_us(&format!("many_{what}_last_tenth_p99_us"), quantile(&mut last, 0.99));
}
