//! The picture of a connection: the wire, and the path of the Request.

use super::connected::{Connected, Hop};
use crate::story::{Story, WIDTH};

/// Columns of a box, its borders included.
const BOX: usize = 34;

/// Draws the wire between client and endpoint, and below it who was asked for it.
pub(super) fn draw(story: &Story, one: &Connected) {
    let lines = Lines::new(story.unicode);
    story.title(&format!("The wire of {}", one.name));
    wire(story, &lines, one);
    story.say("");
    story.title("The path of its Request");
    path(story, &lines, one);
}

/// The characters lines are made of.
struct Lines {
    across: &'static str,
    down: &'static str,
    wire: &'static str,
    arrow: &'static str,
    corners: [&'static str; 4],
    joints: [&'static str; 2],
}

impl Lines {
    fn new(unicode: bool) -> Self {
        if unicode {
            Self {
                across: "─", down: "│", wire: "═", arrow: "▼", corners: ["┌", "┐", "└", "┘"], joints: ["╞", "╡"]
            }
        } else {
            Self { across: "-", down: "|", wire: "=", arrow: "v", corners: ["+"; 4], joints: ["|"; 2] }
        }
    }
}

fn wire(story: &Story, lines: &Lines, one: &Connected) {
    let rows = |name: &str, interface: &str, nets: &[ipnet::IpNet]| {
        let mut rows = vec![name.to_owned(), interface.to_owned()];
        rows.extend(nets.iter().map(ToString::to_string));
        rows
    };
    let left = rows(&one.name, &one.interface, &one.addresses);
    let right = rows(&one.endpoint, one.peer_interface(), &one.peers);
    let gap = WIDTH - 4 - 2 * BOX;
    let [top_left, top_right, bottom_left, bottom_right] = lines.corners;
    let edge = |from: &str, to: &str| format!("{from}{}{to}", lines.across.repeat(BOX - 2));
    let edges = |from: &str, to: &str| format!("  {}{}{}", edge(from, to), " ".repeat(gap), edge(from, to));
    let row = |texts: &[String], at: usize| format!(" {:<1$}", texts.get(at).map_or("", String::as_str), BOX - 3);

    story.say(&edges(top_left, top_right));
    for at in 0..left.len().max(right.len()) {
        // The wire leaves from the interfaces; what it is stands below.
        let (near, far, between) = match at {
            1 => (lines.joints[0], lines.joints[1], lines.wire.repeat(gap)),
            2 => (lines.down, lines.down, format!("{:^gap$}", kind(one))),
            _ => (lines.down, lines.down, " ".repeat(gap)),
        };
        story.say(&format!("  {0}{1}{near}{between}{far}{2}{0}", lines.down, row(&left, at), row(&right, at)));
    }
    story.say(&edges(bottom_left, bottom_right));
    if let Some(tunnel) = one.wires.iter().find_map(|wire| wire.tunnel.as_deref()) {
        let mtu = one.mtu.map(|mtu| format!(", MTU {mtu}")).unwrap_or_default();
        story.say(&format!("  {tunnel}{mtu}"));
    }
}

/// What kind of wire it is.
fn kind(one: &Connected) -> &'static str {
    if one.wires.iter().any(|wire| wire.tunnel.is_some()) { "VXLAN" } else { "veth pair" }
}

fn path(story: &Story, lines: &Lines, one: &Connected) {
    let count = one.path.len();
    for (at, hop) in one.path.iter().enumerate() {
        story.say(&format!("  {:<14}{:<12}{}", hop.name, role(at, count, hop), hop.id));
        let down = if at + 1 < count { lines.arrow } else { " " };
        let line = format!("  {down:<14}{:<12}{}", "", interfaces(hop));
        if !line.trim().is_empty() {
            story.say(line.trim_end());
        }
    }
}

fn role(at: usize, count: usize, hop: &Hop) -> &'static str {
    if at == 0 {
        "client"
    } else if at + 1 == count {
        "endpoint"
    } else if hop.interfaces.is_empty() {
        "manager"
    } else {
        "forwarder"
    }
}

/// Mechanism and interface towards the caller and the next hop.
fn interfaces(hop: &Hop) -> String {
    let of = |key: &str| hop.interfaces.get(key).map(|interface| interface.trim_end_matches('/').replace('/', " "));
    match (of("server_interface"), of("client_interface")) {
        (Some(caller), Some(next)) => format!("{caller} to {next}"),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => String::new(),
    }
}
