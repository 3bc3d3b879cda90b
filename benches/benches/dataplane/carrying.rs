//! What a wire carries.

use std::net::Ipv4Addr;

use nsm_benches::Figures;
use nsm_kernel::{Netns, Underlay};
use nsm_mechanisms::{Dataplane, Linux};

use crate::bare::{self, Rtnl};
use crate::traffic::{Length, Traffic, measure};
use crate::wireguard_go::WireguardGo;
use crate::{Counts, ETHERNET_MTU, Outcome, TUNNEL_MTU, end, ours, rounded};

const WIREGUARD_MTU: u32 = 1420;

pub(crate) async fn local(counts: Counts, figures: &mut Figures) -> Outcome<()> {
    let linux = Linux::new("dataplane")?;
    let mut turns = Turns::default();
    for turn in 0..2 * counts.turns {
        let (client, endpoint) = (Netns::create().await?, Netns::create().await?);
        let ends = (&end(&client, 0, 1), &end(&endpoint, 0, 0));
        let wire = ours::local(0, ends)?;
        let is_ours = ours_now(turn);
        if is_ours {
            linux.connect(&wire).await?;
        } else {
            let mut sockets = (Rtnl::open(&client).await?, Rtnl::open(&endpoint).await?);
            bare::veth((&mut sockets.0, &mut sockets.1), ends, ETHERNET_MTU)?;
        }
        let measured = measure(&client, &endpoint, ends.1.ip, counts.length).await?;
        turns.add("local", is_ours, measured);
        linux.disconnect(&wire.id).await?;
    }
    turns.report("local", figures);
    Ok(())
}

pub(crate) async fn vxlan(counts: Counts, figures: &mut Figures) -> Outcome<()> {
    let network = Underlay::create(2, "192.0.2.0/24".parse()?).await?;
    let nodes = (&network.nodes()[0], &network.nodes()[1]);
    let planes = ours::planes(nodes)?;
    let mut turns = Turns::default();
    for turn in 0..2 * counts.turns {
        let (client, endpoint) = (Netns::create().await?, Netns::create().await?);
        let ends = (&end(&client, 0, 1), &end(&endpoint, 0, 0));
        let is_ours = ours_now(turn);
        let wires = ours::remote(&planes, ends)?;
        if is_ours {
            for (plane, wire) in planes.iter().zip(&wires) {
                plane.connect(wire).await?;
            }
        } else {
            for (nodes, ends) in [(nodes, ends), ((nodes.1, nodes.0), (ends.1, ends.0))] {
                let mut sockets = (Rtnl::open(&nodes.0.netns).await?, Rtnl::open(&ends.0.netns).await?);
                // The kernel itself would take 1450; how fast four streams are depends much on these few octets.
                bare::vxlan((&mut sockets.0, &mut sockets.1), nodes, 7, ends, TUNNEL_MTU)?;
            }
        }
        let measured = measure(&client, &endpoint, ends.1.ip, counts.length).await?;
        turns.add("vxlan", is_ours, measured);
        for (plane, wire) in planes.iter().zip(&wires) {
            plane.disconnect(&wire.id).await?;
        }
        if !is_ours {
            for end in [ends.0, ends.1] {
                bare::delete(&mut Rtnl::open(&end.netns).await?, end)?;
            }
        }
    }
    turns.report("vxlan", figures);
    Ok(())
}

pub(crate) async fn wireguard(counts: Counts, figures: &mut Figures) -> Outcome<()> {
    let network = Underlay::create(2, "192.0.2.0/24".parse()?).await?;
    let (from, to, address) = (&network.nodes()[0], &network.nodes()[1], Ipv4Addr::new(10, 9, 0, 2));
    let mut turns = Turns::default();
    // A round trip takes ten times as long as elsewhere.
    let length = Length { pings: counts.length.pings / 10, ..counts.length };
    for turn in 0..counts.turns {
        let is_ours = ours_now(turn);
        let measured = if is_ours {
            let tunnels = ours::wireguard(network.nodes(), WIREGUARD_MTU).await?;
            let measured = measure(&from.netns, &to.netns, address, length).await?;
            for (interface, tunnel) in tunnels {
                tunnel.close().await;
                interface.delete().await?;
            }
            measured
        } else {
            let _go = WireguardGo::between(network.nodes(), WIREGUARD_MTU).await?;
            measure(&from.netns, &to.netns, address, length).await?
        };
        turns.add("wireguard", is_ours, measured);
    }
    turns.report("wireguard", figures);
    Ok(())
}

/// Theirs, ours, ours, theirs, and so on: whatever gets slower with time does so for both.
fn ours_now(turn: usize) -> bool {
    matches!(turn % 4, 1 | 2)
}

/// What was measured of both.
#[derive(Default)]
struct Turns {
    theirs: Vec<Traffic>,
    ours: Vec<Traffic>,
}

impl Turns {
    fn add(&mut self, what: &str, is_ours: bool, measured: Traffic) {
        let Traffic { one, four, round_trip } = measured;
        let whose = if is_ours { "ours" } else { "theirs" };
        eprintln!("{what:<10} {whose:<6} {one:8.2} Gbit/s {four:8.2} Gbit/s of four streams {round_trip:8.2} µs");
        if is_ours { self.ours.push(measured) } else { self.theirs.push(measured) }
    }

    fn report(&self, what: &str, figures: &mut Figures) {
        for (at, unit) in ["gbit_s", "four_streams_gbit_s", "round_trip_us"].into_iter().enumerate() {
            let of = |traffic: &Traffic| [traffic.one, traffic.four, traffic.round_trip][at];
            let [theirs, ours] = [&self.theirs, &self.ours].map(|all| median(all, of));
            figures.put(&format!("{what}_bare_{unit}"), rounded(theirs));
            figures.put(&format!("{what}_{unit}"), rounded(ours));
            figures.put(&format!("{what}_{unit}_ratio"), rounded(ours / theirs));
        }
    }
}

fn median(all: &[Traffic], of: impl Fn(&Traffic) -> f64) -> f64 {
    let mut values: Vec<f64> = all.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get((values.len().max(1) - 1) / 2), values.get(values.len() / 2));
    low.zip(high).map_or(f64::NAN, |(low, high)| (low + high) / 2.0)
}
