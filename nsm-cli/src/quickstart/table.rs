//! The table of times.

use std::time::Duration;

use super::connected::Connected;
use super::phases::Phase;
use crate::story::{Story, in_ms};

/// A row: what it is of, and its time for each client.
type Row = (String, Vec<Duration>);

/// Prints where the time went: for one client its times, for several the median and the longest.
pub(super) fn print(story: &Story, connected: &[Connected]) {
    let rows = rows(connected);
    let several = connected.len() > 1;
    let heading = if several {
        format!("{:<46}{:>12}{:>12}", format!("Times of {} clients", connected.len()), "median", "longest")
    } else {
        "Times, with a TLS handshake at each hop that is asked for the first time".to_owned()
    };
    story.title(&heading);
    for (name, mut times) in rows {
        times.sort_unstable();
        let (Some(median), Some(longest)) = (times.get(times.len() / 2), times.last()) else {
            continue;
        };
        let longest = if several { in_ms(*longest) } else { String::new() };
        story.say(format!("  {name:<44}{:>12}{longest:>12}", in_ms(*median)).trim_end());
    }
}

/// Every phase, then the whole, then the packets.
fn rows(connected: &[Connected]) -> Vec<Row> {
    let first = connected.first().map(|one| one.phases.as_slice()).unwrap_or_default();
    let mut rows: Vec<Row> = first.iter().map(|(phase, _)| phase_row(phase, connected)).collect();
    rows.push(("connection, in all".to_owned(), connected.iter().map(|one| one.setup).collect()));
    let pings = connected.iter().filter_map(|one| one.pings.first());
    rows.push(("first ping, there and back".to_owned(), pings.map(|ping| ping.took).collect()));
    rows
}

/// The same phase of all clients. Where hops of one place have several names, it is that of the first and its like.
fn phase_row(phase: &Phase, connected: &[Connected]) -> Row {
    let all = connected.iter().flat_map(|one| &one.phases);
    let like: Vec<&(Phase, Duration)> = all.filter(|(other, _)| other.is_like(phase)).collect();
    let one_name = like.iter().all(|(other, _)| other == phase);
    let name = phase.explained();
    let name = if one_name { name } else { format!("{name} and its like") };
    (name, like.iter().map(|(_, took)| *took).collect())
}
