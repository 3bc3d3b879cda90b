//! Makes every wire that there can be, between namespaces of its own: asks for it, sends packets both ways, the largest that
//! fits and one that does not, looks at what crosses between the nodes, asks again, closes it, and looks at what is left. Where
//! no wire can be made it looks at what is said.
//!
//! `cargo run --release -p nsm-tests --bin wires`: one line a cell, then `N cells, F failed`. Needs root, or `unshare -Urn`.

mod capture;
mod cell;
mod lab;
mod mirror;
mod packets;

use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use nsm_api::mechanism::{KERNEL, NOOP};
use nsm_api::{Connection, IpContext};
use nsm_chain::{Code, Error, Result};
use nsm_kernel::{Netns, VlanPort};

use capture::{Capture, Datagram};
use cell::{Cell, End, Family, Payload, Way};
use lab::{ETHERNET_MTU, Lab, Nodes};
use nsm_mechanisms::Wireguard;
use nsm_memif::Memif;
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

/// An answer takes no longer.
const SOON: Duration = Duration::from_secs(2);

/// What shared memory is tried with where nothing else limits it.
const JUMBO: u32 = 9000;

/// No cell takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    let wanted = |cell: &Cell| options.only.as_ref().is_none_or(|only| cell.to_string().contains(only.as_str()));
    let mut cells: Vec<_> = Cell::all().into_iter().filter(wanted).collect();
    if let Err(error) = VlanPort::allowed() {
        println!("no VLAN is tried: {error}");
        cells.retain(|cell| cell.way != Way::Vlan);
    }
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
    let mut captures = match between {
        Some(nodes) => Some([Capture::of(nodes.near()).await?, Capture::of(nodes.far()).await?]),
        None => None,
    };
    let seen = match lab.ask(cell).await {
        answer if cell.is_refused() => refused(answer)?,
        answer => {
            let connection = answer?;
            let used = use_it(cell, &lab, &connection, &mut captures).await;
            lab.close(connection).await?;
            used?
        }
    };
    match lab.left().await? {
        left if left.is_empty() => Ok(seen),
        left => Err(Error::internal(format!("left behind: {}", left.join("; ")))),
    }
}

/// A refusal says what either side offered.
fn refused(answer: Result<Arc<Connection>>) -> Result<String> {
    match answer {
        Err(error)
            if error.code() == Code::Unimplemented && [KERNEL, NOOP].iter().all(|kind| error.what().contains(kind)) =>
        {
            Ok(format!("refused: {}", error.what()))
        }
        Err(error) => Err(error),
        Ok(connection) => Err(Error::internal(format!("made, by {:?}", connection.mechanism))),
    }
}

async fn use_it(
    cell: &Cell,
    lab: &Lab<'_>,
    connection: &Connection,
    captures: &mut Option<[Capture; 2]>,
) -> Result<String> {
    let mtu = connection.context.as_ref().map_or(0, |context| context.mtu);
    let mtu = match (cell.client, cell.endpoint, cell.way) {
        // Between the two is only their memory.
        (End::Memif, End::Memif, Way::Local) => JUMBO,
        _ if mtu == 0 => ETHERNET_MTU,
        _ => mtu,
    };
    match (cell.client, cell.endpoint) {
        (End::Kernel, End::Kernel) => {
            for [client, endpoint] in lab::addresses(cell.inner) {
                let (client, endpoint) = ((&lab.client, client), (&lab.endpoint, endpoint));
                packets::echo(client, endpoint, &[1, 64, 512]).await?;
                packets::largest(client, endpoint, mtu).await?;
            }
            if cell.payload == Payload::Ethernet {
                // What one bridge keeps to itself, the one outside keeps, too.
                let groups = if cell.way == Way::Vlan { &GROUPS[..1] } else { &GROUPS };
                frames_cross(&lab.client, &lab.endpoint, groups, false).await?;
            }
        }
        (End::Memif, End::Memif) => share_memory(cell, lab, mtu).await?,
        (End::Noop, _) => only_said(cell, lab, connection).await?,
        (client, _) => {
            let kernel = if client == End::Kernel { &lab.client } else { &lab.endpoint };
            for [own, other] in lab::addresses(cell.inner) {
                let [own, other] = if client == End::Kernel { [own, other] } else { [other, own] };
                packets::mirrored((kernel, own), other, mtu).await?;
            }
            if cell.payload == Payload::Ethernet {
                frames_cross(kernel, kernel, &GROUPS, true).await?;
            }
        }
    }
    let crossed = match (cell.way, lab.nodes(), captures) {
        (Way::Local, ..) => "nothing between nodes".to_owned(),
        (Way::Vxlan(_), Some(nodes), Some([near, _])) => tunnelled(cell, nodes, &near.take())?,
        (Way::Relay(_), Some(nodes), Some([near, far])) => {
            let [first, second] = [tunnelled(cell, nodes, &near.take())?, tunnelled(cell, nodes, &far.take())?];
            format!("{first}; then {second}")
        }
        (Way::Wireguard(_), Some(nodes), Some([near, _])) => sealed(cell, nodes, &near.take())?,
        (Way::Vlan, _, Some([near, _])) => tagged(cell, &near.take())?,
        (way, ..) => return Err(Error::internal(format!("{way:?} without a network between nodes"))),
    };
    if lab.ask(cell).await?.mechanism != connection.mechanism {
        return Err(Error::internal("asked again, it is another wire"));
    }
    if lab.interfaces.lock().await.try_recv().is_ok() {
        return Err(Error::internal("asked again, it is other memory"));
    }
    *lab.kept.lock().await = None;
    Ok(format!("MTU {mtu}, {crossed}"))
}

/// The client has its addresses and nothing else: there is no interface at either end.
async fn only_said(cell: &Cell, lab: &Lab<'_>, connection: &Connection) -> Result<()> {
    let ip = connection.context.as_ref().and_then(|context| context.ip_context.as_ref());
    let own: Vec<_> = ip.into_iter().flat_map(IpContext::src_nets).map(|net| net.addr()).collect();
    let expected: Vec<_> = lab::addresses(cell.inner).into_iter().map(|[client, _]| client).collect();
    if own != expected {
        return Err(Error::internal(format!("the client has {own:?} and not {expected:?}")));
    }
    for netns in [&lab.client, &lab.endpoint] {
        if !nsm_kernel::links_with_mark(netns, "nsm:").await.map_err(lab::wrong)?.is_empty() {
            return Err(Error::internal("there is an interface that nobody asked for"));
        }
    }
    Ok(())
}

/// The client gets from the endpoint what it sends, in shared memory at both ends, up to the largest packet; one with an octet
/// more does not come back. Where there is nothing but the memory, there is no largest packet either.
async fn share_memory(cell: &Cell, lab: &Lab<'_>, mtu: u32) -> Result<()> {
    let mut memif = {
        let mut interfaces = lab.interfaces.lock().await;
        interfaces.recv().await.ok_or_else(|| Error::internal("the client got no interface"))?
    };
    let carries = cell.payload.name();
    let back = if cell.payload == Payload::Ethernet { mirror::frame_back } else { mirror::packet_back };
    for ends in lab::addresses(cell.inner) {
        for length in [64, 65, 512, mtu as usize] {
            let sent = mirror::datagram(carries, ends, mirror::SAME, length);
            if length == mtu as usize && cell.way != Way::Local {
                let longer = mirror::datagram(carries, ends, mirror::SAME, length + 1);
                let longer_back = mirror::datagram(carries, ends, mirror::LONGER, length);
                memif.send_burst([longer, longer_back]).map_err(lab::wrong)?;
            }
            memif.send_burst([&sent]).map_err(lab::wrong)?;
            let expected = back(&sent);
            let got = tokio::time::timeout(SOON, packet_of(&mut memif, &ends)).await;
            let got = got.map_err(|_| Error::unavailable(format!("{length} octets did not come back")))??;
            if Some(&got) != expected.as_ref() {
                return Err(Error::internal(format!("{length} octets came back as {} others", got.len())));
            }
        }
    }
    *lab.kept.lock().await = Some(memif);
    Ok(())
}

/// The next packet of the other end's, whatever else comes between.
async fn packet_of(memif: &mut Memif, ends: &[IpAddr; 2]) -> Result<Vec<u8>> {
    let ips = ends.map(|ip| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    });
    let [own, other] = ips;
    let back = [other, own].concat();
    let mut found = None;
    while found.is_none() {
        memif.ready().await.map_err(lab::wrong)?;
        let look = |packet: &mut [u8]| {
            if packet.windows(back.len()).any(|window| window == back) {
                found.get_or_insert_with(|| packet.to_vec());
            }
        };
        memif.recv_burst(1, look).map_err(lab::wrong)?;
    }
    Ok(found.unwrap_or_default())
}

/// A frame of no protocol that anybody knows, to everybody, and one that every bridge keeps to itself, get from one end to the
/// other as they are; or back from there.
async fn frames_cross(from: &Netns, to: &Netns, groups: &[[u8; 6]], mirrored: bool) -> Result<()> {
    let mut capture = Capture::of(to).await?;
    let links = nsm_kernel::links_with_mark(from, "nsm:").await.map_err(lab::wrong)?;
    let link = links.first().ok_or_else(|| Error::internal("one end has no interface"))?;
    let mut missing: Vec<_> = groups
        .iter()
        .map(|to| {
            let mut frame = [*to, [2, 0, 0, 0, 0, 9]].concat();
            frame.extend(UNASSIGNED.to_be_bytes());
            frame.extend(b"a frame of no protocol, of the sixty octets and more that are due");
            frame
        })
        .collect();
    for frame in &mut missing {
        capture::broadcast(from, link.index, frame.clone()).await?;
        if mirrored {
            *frame = mirror::frame_back(frame).unwrap_or_default();
        }
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

/// Everybody, and the group address of LLDP (IEEE 802.1Q, table 8-1).
const GROUPS: [[u8; 6]; 2] = [[0xff; 6], [0x01, 0x80, 0xc2, 0, 0, 0x0e]];

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

/// Each frame of the two ends is of the VLAN.
fn tagged(cell: &Cell, frames: &[Vec<u8>]) -> Result<String> {
    let ends: Vec<_> = lab::addresses(cell.inner).concat();
    let is_theirs = |frame: &[u8]| {
        capture::datagram(frame).is_some_and(|packet| ends.contains(&packet.from) && ends.contains(&packet.to))
    };
    let (mut inside, mut longest) = (0, 0);
    for frame in frames {
        match capture::untagged(frame) {
            Some((lab::VLAN_ID, inner)) if is_theirs(&inner) => {
                (inside, longest) = (inside + 1, longest.max(frame.len()));
            }
            Some((other, _)) if other != lab::VLAN_ID => {
                return Err(Error::internal(format!("a frame of VLAN {other} and not {}", lab::VLAN_ID)));
            }
            None if is_theirs(frame) => return Err(Error::internal("a packet crosses without a tag")),
            _ => {}
        }
    }
    let expected = lab::addresses(cell.inner).len() * 8;
    if inside < expected {
        return Err(Error::internal(format!("{inside} datagrams crossed with a tag, {expected} were sent")));
    }
    Ok(format!("{inside} datagrams outside, all of VLAN {}, {longest} octets at most", lab::VLAN_ID))
}

/// The port of RFC 7348.
const VXLAN_PORT: u16 = 4789;
