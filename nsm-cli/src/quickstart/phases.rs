//! Where the time of a Request went.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::connected::Hop;
use crate::lab::{Mark, Times, WireNote};

/// A part of the time between asking and having a connection. Together they are all of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Phase {
    /// At the client, before anything is sent.
    Client,
    /// To the hop at this place of the path, with its name, from the one before: connecting and TLS where that is
    /// needed, gRPC, and looking at who calls.
    Hop(usize, String),
    /// Managers looked for forwarders, forwarders for endpoints.
    Discovery,
    /// Forwarders programmed the kernel.
    Programming,
    /// The endpoint's work, the answers' way back, and what each hop does with them.
    Answer,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("client"),
            Self::Hop(_, name) => write!(f, "hop:{name}"),
            Self::Discovery => f.write_str("discovery"),
            Self::Programming => f.write_str("programming"),
            Self::Answer => f.write_str("answer"),
        }
    }
}

/// The phases of a Request, in the order of a table.
pub(super) fn measured(
    path: &[Hop],
    asked: Instant,
    there: Instant,
    times: &Times,
    wires: &[WireNote],
) -> Vec<(Phase, Duration)> {
    let between = |from: Option<Instant>, to: Option<Instant>| Some(to?.saturating_duration_since(from?));
    let at = |hop: &Hop, mark: Mark| times.at(&hop.id, mark);
    let mut phases = Vec::new();
    if let Some(client) = path.first() {
        let took = between(Some(asked), at(client, Mark::Leaves));
        phases.extend(took.map(|took| (Phase::Client, took)));
    }
    for (place, (before, hop)) in (1..).zip(path.iter().zip(path.iter().skip(1))) {
        let took = between(at(before, Mark::Leaves), at(hop, Mark::Arrived));
        phases.extend(took.map(|took| (Phase::Hop(place, hop.name.clone()), took)));
    }
    // A forwarder has found what it looked for when it chooses; a manager when it asks.
    let looked =
        path.iter().filter_map(|hop| between(at(hop, Mark::Looks), at(hop, Mark::Found).or(at(hop, Mark::Leaves))));
    phases.push((Phase::Discovery, looked.sum()));
    phases.push((Phase::Programming, wires.iter().map(|wire| wire.took).sum()));
    let known: Duration = phases.iter().map(|(_, took)| *took).sum();
    phases.push((Phase::Answer, (there - asked).saturating_sub(known)));
    phases
}

impl Phase {
    /// As a row of a table.
    pub(super) fn explained(&self) -> String {
        match self {
            Self::Client => "client, before it asks".to_owned(),
            Self::Hop(_, name) => format!("to {name}"),
            Self::Discovery => "discovery of forwarders and endpoints".to_owned(),
            Self::Programming => "kernel programming".to_owned(),
            Self::Answer => "endpoint's work and the way back".to_owned(),
        }
    }

    /// Whether both are the same part of the time of different Requests, whatever their hops are called.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Hop(place, _), Self::Hop(other, _)) => place == other,
            _ => self == other,
        }
    }
}
