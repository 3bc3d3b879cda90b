//! Makes every wire that there can be, between namespaces of its own: asks for it, sends packets both ways, the largest that
//! fits and one that does not, looks at what crosses between the nodes, asks again, closes it, and looks at what is left. Where no
//! wire can be made it looks at what is said.
//!
//! `cargo run --release -p nsm-tests --bin wires`: one line a cell, then `N cells, F failed`. Needs root, or `unshare -Urn`.

mod capture;
mod cell;
mod lab;
mod packets;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use nsm_api::Connection;
use nsm_chain::{Code, Error, Result};

use capture::{Capture, Datagram};
use cell::{Cell, End, Family, Payload, Way};
use lab::{ETHERNET_MTU, Lab, Nodes};
use nsm_mechanisms::Wireguard;
use tokio::time::Instant;

#[derive(Debug, Parser)]
#[command(about = "Every wire that can be made, made, used and closed")]
struct Options {
    /// Only cells whose line contains this
    #[arg(long)]
    only: Option<String>,
    /// Names the cells, and does nothing
    #[arg(long)]
    list: bool,
}

/// No cell takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    let wanted = |cell: &Cell| options.only.as_ref().is_none_or(|only| cell.to_string().contains(only.as_str()));
    let cells: Vec<_> = Cell::all().into_iter().filter(wanted).collect();
    if options.list {
        cells.iter().for_each(|cell| println!("{cell}"));
        return ExitCode::SUCCESS;
    }
    let nodes = match (Nodes::new(Family::V4).await, Nodes::new(Family::V6).await) {
        (Ok(v4), Ok(v6)) => [v4, v6],
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("no network of two nodes: {error}; run it as root, or under unshare -Urn");
            return ExitCode::FAILURE;
        }
    };
    let mut failed = 0;
    for cell in &cells {
        let between = cell.way.family().map(|family| &nodes[usize::from(family == Family::V6)]);
        let begun = Instant::now();
        let late = |_| Err(Error::deadline(format!("not done after {PATIENCE:?}")));
        let done = tokio::time::timeout(PATIENCE, try_out(cell, between)).await.unwrap_or_else(late);
        match done {
            Ok(seen) => println!("{cell}  ok      {seen}, {} ms", begun.elapsed().as_millis()),
            Err(error) => {
                failed += 1;
                println!("{cell}  FAILED  {error}");
            }
        }
    }
    println!("{} cells, {failed} failed", cells.len());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One cell, from the first Request to nothing left. Says what was seen.
async fn try_out(cell: &Cell, between: Option<&Nodes>) -> Result<String> {
    let lab = Lab::new(cell, between).await?;
    let seen = if cell.is_refused() {
        refused(lab.ask(cell).await)?
    } else {
        let connection = lab.ask(cell).await?;
        let used = match cell.client {
            End::Kernel => use_it(cell, &lab, &connection).await,
            End::Memif => share_memory(cell, &lab).await,
        };
        lab.close(connection).await?;
        used?
    };
    match lab.left().await? {
        left if left.is_empty() => Ok(seen),
        left => Err(Error::internal(format!("left behind: {}", left.join("; ")))),
    }
}

/// A refusal says what either side offered.
fn refused(answer: Result<Arc<Connection>>) -> Result<String> {
    match answer {
        Err(error) if error.code() == Code::Unimplemented && error.to_string().contains("MEMIF") => {
            Ok(format!("refused: {}", error.what()))
        }
        Err(error) => Err(error),
        Ok(connection) => Err(Error::internal(format!("made, by {:?}", connection.mechanism))),
    }
}

/// Packets of each size come back as they were, and a Request that changes nothing leaves the memory where it is.
async fn share_memory(cell: &Cell, lab: &Lab<'_>) -> Result<String> {
    let mut interfaces = lab.interfaces.lock().await;
    let mut memif = interfaces.recv().await.ok_or_else(|| Error::internal("the client got no interface"))?;
    for size in [64, 1500, 9000] {
        let packet: Vec<u8> = (0..size).map(|at| at as u8).collect();
        let mut back = Vec::new();
        memif.send_burst([&packet]).map_err(lab::wrong)?;
        memif.ready().await.map_err(lab::wrong)?;
        memif.recv_burst(8, |packet| back.extend_from_slice(packet)).map_err(lab::wrong)?;
        if back != packet {
            return Err(Error::internal(format!("{size} octets came back as {} others", back.len())));
        }
    }
    lab.ask(cell).await?;
    if interfaces.try_recv().is_ok() {
        return Err(Error::internal("asked again, it is other memory"));
    }
    Ok("packets up to 9000 octets there and back".to_owned())
}

async fn use_it(cell: &Cell, lab: &Lab<'_>, connection: &Connection) -> Result<String> {
    let mut captures = match lab.nodes() {
        Some(nodes) => Some([Capture::of(nodes.near()).await?, Capture::of(nodes.far()).await?]),
        None => None,
    };
    let mtu = connection.context.as_ref().map_or(0, |context| context.mtu);
    let mtu = if mtu == 0 { ETHERNET_MTU } else { mtu };
    for [client, endpoint] in lab::addresses(cell.inner) {
        let (client, endpoint) = ((&lab.client, client), (&lab.endpoint, endpoint));
        packets::echo(client, endpoint, &[1, 64, 512]).await?;
        packets::largest(client, endpoint, mtu).await?;
    }
    if cell.payload == Payload::Ethernet {
        frames_cross(lab).await?;
    }
    let crossed = match (cell.way, lab.nodes(), &mut captures) {
        (Way::Local, ..) => "nothing between nodes".to_owned(),
        (Way::Vxlan(_), Some(nodes), Some([near, _])) => tunnelled(cell, nodes, &near.take())?,
        (Way::Relay(_), Some(nodes), Some([near, far])) => {
            let [first, second] = [tunnelled(cell, nodes, &near.take())?, tunnelled(cell, nodes, &far.take())?];
            format!("{first}; then {second}")
        }
        (Way::Wireguard(_), Some(nodes), Some([near, _])) => sealed(cell, nodes, &near.take())?,
        (way, ..) => return Err(Error::internal(format!("{way:?} without a network between nodes"))),
    };
    if lab.ask(cell).await?.mechanism != connection.mechanism {
        return Err(Error::internal("asked again, it is another wire"));
    }
    Ok(format!("MTU {mtu}, {crossed}"))
}

/// A frame of no protocol that anybody knows, to everybody, and one that every bridge keeps to itself, get from the client to
/// the endpoint as they are.
async fn frames_cross(lab: &Lab<'_>) -> Result<()> {
    let mut capture = Capture::of(&lab.endpoint).await?;
    let links = nsm_kernel::links_with_mark(&lab.client, "nsm:").await.map_err(lab::wrong)?;
    let link = links.first().ok_or_else(|| Error::internal("the client has no interface"))?;
    let mut missing: Vec<_> = [[0xff; 6], NEAREST_BRIDGE]
        .into_iter()
        .map(|to| {
            let mut frame = [to, [2, 0, 0, 0, 0, 9]].concat();
            frame.extend(UNASSIGNED.to_be_bytes());
            frame.extend(b"a frame of no protocol, of the sixty octets and more that are due");
            frame
        })
        .collect();
    for frame in &missing {
        capture::broadcast(&lab.client, link.index, frame.clone()).await?;
    }
    for _ in 0..200 {
        let came = capture.take();
        missing.retain(|frame| !came.contains(frame));
        if missing.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(Error::unavailable(format!("frames that are not of IP did not arrive: {missing:02x?}")))
}

/// The group address of LLDP (IEEE 802.1Q, table 8-1).
const NEAREST_BRIDGE: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0x0e];

/// For local experiments, by IEEE 802.
const UNASSIGNED: u16 = 0x88b5;

/// The datagrams from node to node, each with its frame. Nothing of the two ends may cross outside of them.
fn between_nodes<'f>(cell: &Cell, nodes: &Nodes, frames: &'f [Vec<u8>]) -> Result<Vec<(&'f [u8], Datagram)>> {
    let (ends, nodes) = (lab::addresses(cell.inner).concat(), nodes.addresses());
    let seen: Vec<_> = frames.iter().filter_map(|frame| Some((&**frame, capture::datagram(frame)?))).collect();
    if let Some((_, stray)) = seen.iter().find(|(_, outer)| ends.contains(&outer.from)) {
        return Err(Error::internal(format!("a packet from {} crosses outside the tunnel", stray.from)));
    }
    Ok(seen.into_iter().filter(|(_, outer)| nodes.contains(&outer.from) && nodes.contains(&outer.to)).collect())
}

/// Each datagram between the nodes is VXLAN, all with one identifier, and holds a frame of the two ends.
fn tunnelled(cell: &Cell, nodes: &Nodes, frames: &[Vec<u8>]) -> Result<String> {
    let ends: Vec<_> = lab::addresses(cell.inner).concat();
    let (mut inside, mut identifier, mut longest) = (0, None, 0);
    for (frame, outer) in between_nodes(cell, nodes, frames)? {
        let Some((number, inner)) = capture::vxlan(&outer.payload).filter(|_| outer.port == VXLAN_PORT) else {
            return Err(Error::internal(format!(
                "to port {} of {} goes something else than VXLAN",
                outer.port, outer.to
            )));
        };
        if *identifier.get_or_insert(number) != number {
            return Err(Error::internal(format!("identifiers {number} and {identifier:?} on one wire")));
        }
        if let Some(inner) = capture::datagram(inner) {
            inside += usize::from(ends.contains(&inner.from) && ends.contains(&inner.to));
            longest = longest.max(frame.len());
        }
    }
    let expected = lab::addresses(cell.inner).len() * 8;
    if inside < expected {
        return Err(Error::internal(format!("{inside} datagrams crossed in the tunnel, {expected} were sent")));
    }
    let identifier = identifier.unwrap_or_default();
    Ok(format!("{inside} datagrams between nodes, all of VNI {identifier}, {longest} octets at most"))
}

/// Each datagram between the nodes is one of WireGuard's messages, and shows nothing of what was sent.
fn sealed(cell: &Cell, nodes: &Nodes, frames: &[Vec<u8>]) -> Result<String> {
    let (mut data, mut longest) = (0, 0);
    for (frame, outer) in between_nodes(cell, nodes, frames)? {
        // Type and three octets of zero (WireGuard paper, section 5.4).
        let kind = outer.payload.get(..4).filter(|_| outer.port == Wireguard::DEFAULT_PORT);
        let Some([kind @ 1..=4, 0, 0, 0]) = kind else {
            return Err(Error::internal(format!(
                "to port {} of {} goes something else than WireGuard",
                outer.port, outer.to
            )));
        };
        let sent: Vec<u8> = (0..32).collect();
        if frame.windows(sent.len()).any(|window| window == sent) {
            return Err(Error::internal("what was sent can be read on the way"));
        }
        data += usize::from(*kind == 4);
        longest = longest.max(frame.len());
    }
    let expected = lab::addresses(cell.inner).len() * 8;
    if data < expected {
        return Err(Error::internal(format!("{data} messages crossed in the tunnel, {expected} datagrams were sent")));
    }
    Ok(format!("{data} messages of WireGuard between nodes, {longest} octets at most"))
}

/// The port of RFC 7348.
const VXLAN_PORT: u16 = 4789;
