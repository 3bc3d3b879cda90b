//! What was observed, as a table in Markdown.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::case::{Bound, Case};
use crate::lab::Observed;

#[derive(Default)]
pub(crate) struct Table {
    /// By case and wire.
    rows: BTreeMap<(&'static str, &'static str), Vec<Observed>>,
    failed: bool,
}

impl Table {
    pub(crate) fn heading() -> String {
        "| case | wire | tries | lost p50 | lost most | gap p50 | p99 | longest, ms | bound | control plane well, longest, ms |\n\
         |---|---|---|---|---|---|---|---|---|---|"
            .to_owned()
    }

    pub(crate) fn note(&mut self, case: &Case, observed: Observed) {
        self.rows.entry((case.name, observed.wire)).or_default().push(observed);
    }

    /// The rows of a case, as soon as all of it was played.
    pub(crate) fn lines_of(&mut self, case: &Case) -> Vec<String> {
        let rows = self.rows.iter().filter(|((name, _), _)| *name == case.name);
        let mut lines = Vec::new();
        for ((name, wire), all) in rows {
            let lost = sorted(all.iter().map(|observed| observed.missed.lost));
            let gaps = sorted(all.iter().map(|observed| observed.missed.longest));
            let well = all.iter().map(|observed| observed.well_after).max().unwrap_or_default();
            let p99 = at(&gaps, 99).unwrap_or_default();
            let (bound, kept) = match case.bound {
                Bound::Nothing => ("0 lost".to_owned(), lost.last() == Some(&0)),
                Bound::Gap(bound) => (format!("{} ms", bound.as_millis()), p99 <= bound),
            };
            let stuck: Vec<&str> = all.iter().filter_map(|observed| observed.stuck.as_deref()).collect();
            let kept = kept && stuck.is_empty();
            self.failed |= !kept;
            lines.push(format!(
                "| {name} | {wire} | {} | {} | {} | {} | {} | {} | {bound}{} | {} |",
                all.len(),
                at(&lost, 50).unwrap_or_default(),
                at(&lost, 100).unwrap_or_default(),
                in_ms(at(&gaps, 50)),
                in_ms(Some(p99)),
                in_ms(at(&gaps, 100)),
                if kept { "" } else { ", **missed**" },
                in_ms(Some(well)),
            ));
            lines.extend(stuck.into_iter().map(|what| format!("stuck: {what}")));
        }
        lines
    }

    pub(crate) fn is_well(&self) -> bool {
        !self.failed && !self.rows.is_empty()
    }
}

fn sorted<T: Ord>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values
}

/// The nearest rank.
fn at<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied()
}

fn in_ms(time: Option<Duration>) -> u128 {
    time.unwrap_or_default().as_millis()
}
