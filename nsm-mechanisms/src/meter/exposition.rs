//! Readings in the text format that Prometheus reads (exposition format 0.0.4).

use std::fmt::Write;

use super::element::Whose;
use super::{Metered, Passed, Readings, SIDES, Traffic};

/// What a label says at most, in characters: its text is a peer's.
const LONGEST: usize = 128;

impl<D: Metered> Readings<D> {
    /// All that is counted, read now: a list of counters for each namespace that has wires.
    ///
    /// `prefix` comes before each name, with an underscore unless it is empty. Names and labels of counters of connections are
    /// those of the reference's forwarder; `server` is the side of the caller. Of a connection is told its id at this hop, its
    /// network service, its client and the interfaces of both ends, and nothing else.
    pub async fn prometheus(&self, prefix: &str) -> String {
        let reading = self.read().await;
        let mut page = Page { text: String::new(), prefix };
        let mut wires: Vec<_> = reading.connections.iter().collect();
        wires.sort();
        // An id that would have to be changed might then be equal to another's: two lines of one name make a page unreadable.
        let told = wires.iter().filter(|(id, _)| quoted(id) == ***id);
        let counted: Vec<_> =
            told.filter_map(|(id, whose)| Some((labels(id, whose), reading.traffic.get(*id)?))).collect();

        page.family("wires", "gauge", "Connections that have a wire now.");
        page.line("wires", "", wires.len() as u64);
        page.family("requests_total", "counter", "Requests by the code they ended with.");
        for (code, count) in &reading.requests {
            page.line("requests_total", &format!("outcome=\"{code:?}\""), *count);
        }
        for (at_caller, side) in [true, false].into_iter().zip(SIDES) {
            let of = |wire: &Traffic| if at_caller { wire.caller } else { wire.next };
            for (at, (name, _)) in counters(Passed::default()).into_iter().enumerate() {
                let name = format!("{side}_{name}_total");
                page.family(&name, "counter", HELP[at]);
                for (labels, wire) in &counted {
                    page.line(&name, labels, counters(of(wire))[at].1);
                }
            }
        }
        page.family("drops_by_reason_total", "counter", "Packets dropped at either side, where it is known why.");
        for (labels, wire) in &counted {
            for (reason, count) in wire.reasons.iter().filter(|(_, count)| **count > 0) {
                page.line("drops_by_reason_total", &format!("{labels},reason=\"{reason}\""), *count);
            }
        }
        page.family("strange_drops_total", "counter", "Packets dropped that belong to no wire.");
        for (reason, count) in reading.strange.iter().filter(|(_, count)| **count > 0) {
            page.line("strange_drops_total", &format!("reason=\"{reason}\""), *count);
        }
        page.text
    }
}

/// In the order of [`counters`].
const HELP: [&str; 6] = [
    "Octets received from that side.",
    "Octets sent to that side.",
    "Packets received from that side.",
    "Packets sent to that side.",
    "Packets dropped at that side.",
    "Packets that were damaged or could not be sent at that side.",
];

fn counters(passed: Passed) -> [(&'static str, u64); 6] {
    let [a, b, c, d, e] = passed.named();
    [a, b, c, d, e, ("errors", passed.errors)]
}

struct Page<'a> {
    text: String,
    prefix: &'a str,
}

impl Page<'_> {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let (prefix, gap) = (self.prefix, self.gap());
        let _never_fails = writeln!(self.text, "# HELP {prefix}{gap}{name} {help}\n# TYPE {prefix}{gap}{name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: u64) {
        let (prefix, gap) = (self.prefix, self.gap());
        let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
        let _never_fails = writeln!(self.text, "{prefix}{gap}{name}{open}{labels}{close} {value}");
    }

    fn gap(&self) -> &'static str {
        if self.prefix.is_empty() { "" } else { "_" }
    }
}

fn labels(id: &str, whose: &Whose) -> String {
    let named = [
        ("connection_id", id),
        ("network_service", &whose.network_service),
        ("nsc", &whose.client),
        ("nsc_interface", &whose.client_interface),
        ("nse_interface", &whose.endpoint_interface),
    ];
    named.map(|(name, value)| format!("{name}=\"{}\"", quoted(value))).join(",")
}

/// A text that others chose, made harmless: not too long, and nothing in it ends the label or the line.
fn quoted(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len().min(LONGEST));
    for character in value.chars().take(LONGEST) {
        match character {
            '\\' | '"' => quoted.extend(['\\', character]),
            control if control.is_control() => quoted.push('?'),
            other => quoted.push(other),
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_a_peer_chose_stays_within_its_label() {
        let whose = |client: &str| Whose {
            network_service: "ns".into(),
            client: client.into(),
            client_interface: String::new(),
            endpoint_interface: String::new(),
        };
        assert!(labels("1", &whose("a\"} 1\nwires 7\\")).contains(r#"nsc="a\"} 1?wires 7\\","#));
        assert!(labels("1", &whose(&"x".repeat(5000))).len() < 300);
    }
}
