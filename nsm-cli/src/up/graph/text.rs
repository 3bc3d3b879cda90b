//! The picture as text: a box for each node, in it a row for each wire of its pods, and its endpoints.

use super::summary;
use crate::story::Story;
use crate::up::view::{State, View, Wire, Workload};

/// Pod, interface, address, what carries it, endpoint, its address, network service.
const COLUMNS: usize = 7;
type Row = [String; COLUMNS];

/// Columns of what carries a wire.
const CARRIER: usize = 13;

/// Draws it.
pub(in crate::up) fn draw(story: &Story, view: &View) {
    story.title(&format!("{}: {}", view.lab, summary(view)));
    let boxes: Vec<(String, Vec<Row>, Vec<[String; 2]>)> = view
        .nodes
        .iter()
        .map(|node| (title(node), rows(view, &node.name, story.unicode), serving(view, &node.name)))
        .collect();
    let mut widths = [0; COLUMNS];
    for row in boxes.iter().flat_map(|(_, rows, _)| rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let serving = boxes.iter().flat_map(|(_, _, serving)| serving);
    let names = serving.clone().map(|[name, _]| name.chars().count()).max().unwrap_or_default();
    let widest_serving = serving.map(|[_, what]| names + 2 + what.chars().count()).max().unwrap_or_default();
    let titles = boxes.iter().map(|(title, ..)| title.chars().count()).max().unwrap_or_default();
    let inside = (widths.iter().sum::<usize>() + 2 * (COLUMNS - 1)).max(widest_serving + 2).max(titles + 2);

    let [across, down, corners] = if story.unicode { ["─", "│", "┌┐└┘"] } else { ["-", "|", "++++"] };
    let corner: Vec<char> = corners.chars().collect();
    let edge = |at: usize| corner.get(at).copied().unwrap_or('+');
    let line = |text: &str| story.say(&format!("{down} {text:<inside$} {down}"));
    for (title, rows, serving) in &boxes {
        let rest = across.repeat((inside + 1).saturating_sub(title.chars().count() + 2));
        story.say(&format!("{}{across} {} {rest}{}", edge(0), story.painted("1", title), edge(1)));
        for row in rows {
            let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            line(cells.join("  ").trim_end());
        }
        if !rows.is_empty() && !serving.is_empty() {
            line("");
        }
        for [name, what] in serving {
            line(&format!("{name:<names$}  {what}"));
        }
        story.say(&format!("{}{}{}", edge(2), across.repeat(inside + 2), edge(3)));
    }
    for wire in &view.wires {
        if let Some(socket) = &wire.socket {
            let [pod, interface] = [&wire.pod, &wire.interface];
            story.say(&format!("  {pod} reaches {interface} as a memif client at {}", socket.display()));
        }
        if let Some((last, between)) = wire.onward.split_last() {
            let first = wire.endpoint.iter().map(String::as_str);
            let through: Vec<&str> = first.chain(between.iter().map(String::as_str)).collect();
            story.say(&format!("  {} goes through {} to {last}", wire.pod, through.join(", ")));
        }
        if let State::Waiting(why) = &wire.state {
            let why = if why.is_empty() { "it is being asked for" } else { why };
            story.say(&format!("  {} waits for {}: {why}", wire.pod, wire.service));
        }
    }
}

fn title(node: &crate::up::view::Node) -> String {
    node.address.as_ref().map_or_else(|| node.name.clone(), |address| format!("{}  {address}", node.name))
}

/// The wires of a node's pods; a pod without any has a row too.
fn rows(view: &View, node: &str, unicode: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for pod in view.pods.iter().filter(|pod| pod.node == node) {
        let wires: Vec<&Wire> = view.wires.iter().filter(|wire| wire.pod == pod.name).collect();
        if wires.is_empty() {
            rows.push([
                pod.name.clone(),
                "asks for nothing".into(),
                "".into(),
                "".into(),
                "".into(),
                "".into(),
                "".into(),
            ]);
        }
        for (at, wire) in wires.into_iter().enumerate() {
            let name = if at == 0 { pod.name.as_str() } else { "" };
            rows.extend(wire_rows(name, wire, unicode));
        }
    }
    rows
}

/// A row for each address.
fn wire_rows(pod: &str, wire: &Wire, unicode: bool) -> Vec<Row> {
    let text = |list: &[String], at: usize| list.get(at).cloned().unwrap_or_default();
    let count = wire.addresses.len().max(wire.peers.len()).max(1);
    let row = |at: usize| {
        let [name, interface, carrier, endpoint, service] = if at == 0 {
            let endpoint = wire.endpoint.as_deref().unwrap_or("?");
            [pod, &wire.interface, &carrier(wire, unicode), endpoint, &wire.service].map(str::to_owned)
        } else {
            Default::default()
        };
        [name, interface, text(&wire.addresses, at), carrier, endpoint, text(&wire.peers, at), service]
    };
    (0..count).map(row).collect()
}

/// As `══ VXLAN ══▶`.
fn carrier(wire: &Wire, unicode: bool) -> String {
    let (word, solid) = match &wire.state {
        State::Up => (wire.kind.as_str(), true),
        State::Down => ("down", false),
        State::Planned => ("planned", false),
        State::Waiting(_) => ("waiting", false),
    };
    let stroke = match (unicode, solid, wire.is_tunnel()) {
        (true, true, false) => '─',
        (true, true, true) => '═',
        (true, false, _) => '·',
        (false, true, false) => '-',
        (false, true, true) => '=',
        (false, false, _) => '.',
    };
    let head = if unicode { '▶' } else { '>' };
    let room = CARRIER.saturating_sub(word.chars().count() + 3);
    let (left, right) = (room / 2, room - room / 2);
    let stroke = stroke.to_string();
    format!("{} {word} {}{head}", stroke.repeat(left), stroke.repeat(right))
}

/// Of one that answers itself, only what it serves.
fn does(endpoint: &Workload) -> String {
    let serves = format!("serves {}", endpoint.serves.join(", "));
    if ["", "icmp-responder"].contains(&&*endpoint.kind) { serves } else { format!("{serves}, as {}", endpoint.kind) }
}

/// The endpoints of a node.
fn serving(view: &View, node: &str) -> Vec<[String; 2]> {
    let here = view.endpoints.iter().filter(|endpoint| endpoint.node == node);
    here.map(|endpoint: &Workload| [endpoint.name.clone(), does(endpoint)]).collect()
}
