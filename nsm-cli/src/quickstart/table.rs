//! The table of times.

use std::time::Duration;

use super::connected::Connected;
use super::story::{Story, in_ms};

/// A row: what it is of, and its time for each client.
type Row = (String, Vec<Duration>);

/// Prints where the time went: for one client its times, for several the median and the longest.
pub(super) fn print(story: &Story, connected: &[Connected]) {
    let rows = rows(connected);
    let several = connected.len() > 1;
    let heading = if several {
        format!("{:<46}{:>12}{:>12}", format!("Times of {} clients", connected.len()), "median", "longest")
    } else {
        "Times".to_owned()
    };
    story.title(&heading);
    for (name, mut times) in rows {
        times.sort_unstable();
        let (Some(median), Some(longest)) = (times.get(times.len() / 2), times.last()) else { continue };
        let longest = if several { in_ms(*longest) } else { String::new() };
        story.say(format!("  {name:<44}{:>12}{longest:>12}", in_ms(*median)).trim_end());
    }
}

/// Every phase by its name, then the whole, then the packets. Hops that have another name at another client share a row
/// by their place in the path.
fn rows(connected: &[Connected]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut add = |name: String, time: Duration| match rows.iter_mut().find(|(known, _)| *known == name) {
        Some((_, times)) => times.push(time),
        None => rows.push((name, vec![time])),
    };
    for one in connected {
        for (phase, took) in &one.phases {
            add(phase.explained(), *took);
        }
    }
    for one in connected {
        add("connection, in all".to_owned(), one.setup);
    }
    for one in connected {
        if let Some(ping) = one.pings.first() {
            add("first ping, there and back".to_owned(), ping.took);
        }
    }
    rows
}
