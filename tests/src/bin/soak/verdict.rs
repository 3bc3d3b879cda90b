//! Whether all was well.

use std::process::ExitCode;

use crate::churn::{Churn, KEPT};
use crate::count::{Count, Held};

/// Until then caches fill and allocators find their size.
const SETTLING: u64 = 5;
/// How many minutes make a level, which is the lowest of them: a count jumps with what is under way at its moment, and
/// what is left over raises the lowest too.
const LEVEL: usize = 10;
/// By how many percent a level may grow.
const FLAT: f64 = 5.0;

#[derive(Debug, Default)]
pub(crate) struct Verdict {
    counts: Vec<Count>,
    settled: usize,
}

impl Verdict {
    pub(crate) fn hear(&mut self, minute: u64, count: Count) {
        if minute <= SETTLING {
            self.settled = self.counts.len() + 1;
        }
        self.counts.push(count);
    }

    /// Says it.
    pub(crate) fn say(self, left: &[String]) -> ExitCode {
        let sum = |of: fn(&Count) -> u64| self.counts.iter().map(of).sum::<u64>();
        let (kills, calls) = (sum(|count| count.tally.kills), sum(|count| count.tally.connected + count.tally.closed));
        let mut wrong: Vec<String> = self.counts.iter().flat_map(|count| count.tally.failed.clone()).collect();
        if let Some(last) = self.counts.last()
            && (last.left > 0 || last.open != Churn::open())
        {
            wrong.push(format!(
                "at the end {} connections, {} interfaces and connections of roles too many",
                last.open, last.left
            ));
        }
        wrong.extend(left.iter().map(|what| format!("left behind: {what}")));
        wrong.extend(self.flat());
        println!("\n{kills} kills, {calls} calls, {} wrong", wrong.len());
        for what in &wrong {
            println!("  {what}");
        }
        if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Compares the level after settling with the one at the end. Tells what is not flat.
    fn flat(&self) -> Vec<String> {
        let Some(settled) = self.counts.get(self.settled..).filter(|counts| counts.len() >= 2 * LEVEL) else {
            println!(
                "\nToo short to say whether anything grows: {SETTLING} minutes settle, and a level takes {LEVEL}."
            );
            return Vec::new();
        };
        let mut wrong = Vec::new();
        println!(
            "\nlowest of the {LEVEL} minutes after the first {SETTLING}, of the last {LEVEL}, and the difference:"
        );
        let mut compare = |what: String, of: &dyn Fn(&Count) -> u64| {
            let level = |counts: &[Count]| counts.iter().map(of).min().unwrap_or_default();
            let (before, after) = (level(&settled[..LEVEL]), level(&settled[settled.len() - LEVEL..]));
            let change = (after as f64 - before as f64) * 100.0 / (before as f64).max(1.0);
            println!("  {what:<32} {before:>9} {after:>9} {change:>+6.1} %");
            if change > FLAT {
                wrong.push(format!("{what} grows: {before} to {after}"));
            }
        };
        for (at, name) in KEPT.into_iter().enumerate() {
            let of = move |part: fn(&Held) -> u64| move |count: &Count| count.each.get(at).map_or(0, part);
            compare(format!("RSS of {name}, KiB"), &of(|held| held.resident));
            compare(format!("heap of {name}, KiB"), &of(|held| held.heap));
            compare(format!("descriptors of {name}"), &of(|held| held.descriptors));
            compare(format!("tasks of {name}"), &of(|held| held.tasks));
        }
        compare("RSS of those killed, KiB".into(), &|count| count.killed.resident);
        compare("descriptors of those killed".into(), &|count| count.killed.descriptors);
        compare("tasks of those killed".into(), &|count| count.killed.tasks);
        compare("interfaces".into(), &|count| count.links as u64);
        wrong
    }
}
