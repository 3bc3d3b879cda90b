//! The picture as SVG: a band for each node, pods on the left, endpoints on the right, a curve for each wire.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::summary;
use crate::up::view::{State, View, Wire, Workload};

/// All lengths are in the picture's own units.
const WIDTH: usize = 960;
const MARGIN: usize = 24;
const CARD: usize = 320;
/// Of the name of a card, and of each line below it.
const HEAD: usize = 42;
const LINE: usize = 17;
const GAP: usize = 14;
/// Of the name of a node.
const BAND_HEAD: usize = 40;
/// Of title and legend.
const TOP: usize = 92;

/// Colours that can be told apart also by people who see few of them (Okabe and Ito, 2008).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#5b5b5b"];

const STYLE: &str = "\
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:#1f2933}\
.title{font-size:20px;font-weight:600}.small{font-size:12px;fill:#52606d}.name{font-size:14px;font-weight:600}\
.mono{font-family:ui-monospace,SFMono-Regular,Menlo,'DejaVu Sans Mono',monospace;font-size:11.5px;fill:#3e4c59}\
.band{fill:#f5f7fa;stroke:#cbd2d9}.card{fill:#fff;stroke:#9aa5b1}.wire{fill:none;stroke-linecap:round}\
.label{font-size:10.5px;stroke:#f5f7fa;stroke-width:4px;paint-order:stroke}";

/// Draws it.
pub(super) fn picture(view: &View) -> String {
    let mut body = String::new();
    let mut ends = BTreeMap::new();
    let mut top = TOP;
    for node in &view.nodes {
        let pods = view.pods.iter().filter(|pod| pod.node == node.name);
        let endpoints = view.endpoints.iter().filter(|endpoint| endpoint.node == node.name);
        let cards_top = top + BAND_HEAD;
        let mut cards = String::new();
        let left = column(&mut cards, view, pods, Side::Left, cards_top, &mut ends);
        let right = column(&mut cards, view, endpoints, Side::Right, cards_top, &mut ends);
        let height = left.max(right).max(cards_top + GAP) - top;
        rectangle(&mut body, "band", MARGIN, top, WIDTH - 2 * MARGIN, height, 12);
        text(&mut body, "name", MARGIN + 16, top + 25, &node.name);
        if let Some(address) = &node.address {
            let after = MARGIN + 16 + 9 * node.name.chars().count() + 12;
            text(&mut body, "mono", after, top + 25, address);
        }
        body += &cards;
        top += height + GAP;
    }
    for (at, wire) in view.wires.iter().enumerate() {
        let (from, to) = (ends.get(&(at, Side::Left)), ends.get(&(at, Side::Right)));
        if let (Some(from), Some(to)) = (from, to) {
            curve(&mut body, wire, colour(view, &wire.service), *from, *to);
        }
    }
    let height = top - GAP + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n<title>{}</title>\n\
         <style>{STYLE}</style>\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n",
        escaped(&format!("{}: {}", view.lab, summary(view)))
    );
    text(&mut svg, "title", MARGIN, 36, &view.lab);
    text(&mut svg, "small", MARGIN, 56, &summary(view));
    legend(&mut svg, view);
    svg + &body + "</svg>\n"
}

/// On which side of the picture something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Left,
    Right,
}

/// Where a wire ends, by its position and the side.
type Ends = BTreeMap<(usize, Side), (usize, usize)>;

/// Draws cards from the top on; gives the place below the last one.
fn column<'a>(
    out: &mut String,
    view: &View,
    workloads: impl Iterator<Item = &'a Workload>,
    side: Side,
    top: usize,
    ends: &mut Ends,
) -> usize {
    let x = if side == Side::Left { 2 * MARGIN } else { WIDTH - 2 * MARGIN - CARD };
    let mut y = top;
    for workload in workloads {
        y += card(out, view, workload, side, (x, y), ends) + GAP;
    }
    y
}

/// Draws a pod or an endpoint with a line for each address of its wires; gives its height.
fn card(out: &mut String, view: &View, workload: &Workload, side: Side, at: (usize, usize), ends: &mut Ends) -> usize {
    let (x, y) = at;
    let (mut lines, mut dots) = (String::new(), String::new());
    let mut below = y + HEAD;
    for (number, wire) in view.wires.iter().enumerate() {
        let own = if side == Side::Left { Some(wire.pod.as_str()) } else { wire.endpoint.as_deref() };
        if own != Some(workload.name.as_str()) {
            continue;
        }
        let (interface, addresses) = match side {
            Side::Left => (&wire.interface, &wire.addresses),
            Side::Right => (&wire.peer_interface, &wire.peers),
        };
        let edge = if side == Side::Left { x + CARD } else { x };
        ends.insert((number, side), (edge, below - 4));
        let colour = colour(view, &wire.service);
        let _ = writeln!(dots, "<circle cx=\"{edge}\" cy=\"{}\" r=\"4\" fill=\"{colour}\"/>", below - 4);
        text(&mut lines, "mono", x + 14, below, interface);
        for address in addresses {
            text(&mut lines, "mono", x + 138, below, address);
            below += LINE;
        }
        if addresses.is_empty() {
            below += LINE;
        }
    }
    let height = (below - y).saturating_sub(LINE / 2).max(HEAD - LINE / 2);
    rectangle(out, "card", x, y, CARD, height, 8);
    text(out, "name", x + 14, y + 21, &workload.name);
    let what = if side == Side::Left { labels(workload) } else { format!("serves {}", workload.serves.join(", ")) };
    let _ = writeln!(
        out,
        "<text class=\"small\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
        x + CARD - 14,
        y + 21,
        escaped(&what)
    );
    *out += &lines;
    *out += &dots;
    height
}

fn labels(workload: &Workload) -> String {
    let pairs: Vec<String> = workload.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(" ")
}

/// A tunnel has two strokes, a wire of one node has one, what is not there is dashed.
fn curve(out: &mut String, wire: &Wire, colour: &str, from: (usize, usize), to: (usize, usize)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let middle = usize::midpoint(x1, x2);
    let path = format!("M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}");
    let (word, dashes) = match &wire.state {
        State::Up if wire.kind == "veth" => ("", ""),
        State::Up => (wire.kind.as_str(), ""),
        State::Down => ("down", " stroke-dasharray=\"6 5\""),
        State::Planned => ("", " stroke-dasharray=\"6 5\""),
        State::Waiting(_) => ("waiting", " stroke-dasharray=\"2 6\""),
    };
    let tunnel = wire.is_tunnel();
    let width = if tunnel { 6 } else { 2 };
    let _ = writeln!(out, "<path class=\"wire\" d=\"{path}\" stroke=\"{colour}\" stroke-width=\"{width}\"{dashes}/>");
    if tunnel {
        let _ = writeln!(out, "<path class=\"wire\" d=\"{path}\" stroke=\"#f5f7fa\" stroke-width=\"2\"/>");
    }
    if !word.is_empty() {
        // Where it leaves the pod it has the room of its line for itself.
        text(out, "label", x1 + 14, y1.saturating_sub(6), word);
    }
}

fn legend(out: &mut String, view: &View) {
    let mut x = MARGIN;
    for (service, payload) in &view.services {
        let colour = colour(view, service);
        let _ = writeln!(out, "<rect x=\"{x}\" y=\"68\" width=\"14\" height=\"6\" rx=\"3\" fill=\"{colour}\"/>");
        let word = format!("{service}, {payload}");
        text(out, "small", x + 20, 75, &word);
        x += 20 + 7 * word.chars().count() + 22;
    }
}

fn colour(view: &View, service: &str) -> &'static str {
    let at = view.services.keys().position(|known| known == service).unwrap_or_default();
    COLOURS.get(at % COLOURS.len()).copied().unwrap_or("#000")
}

fn rectangle(out: &mut String, class: &str, x: usize, y: usize, width: usize, height: usize, round: usize) {
    let _ = writeln!(
        out,
        "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"{round}\"/>"
    );
}

fn text(out: &mut String, class: &str, x: usize, y: usize, text: &str) {
    let _ = writeln!(out, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>", escaped(text));
}

/// Text as the content of an element (XML 1.0, section 2.4); characters that XML has not are left out.
fn escaped(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
