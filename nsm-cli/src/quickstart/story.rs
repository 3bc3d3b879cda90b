//! What a person sees: standard output, a hundred columns wide.

use std::io::Write;
use std::time::Duration;

use tokio::time::Instant;

use super::connected::Connected;
use crate::failure::Failure;
use crate::lab::Lab;

/// Columns.
pub(super) const WIDTH: usize = 100;
/// Columns of the first word of a line of progress.
const WORD: usize = 10;

/// Prints the story, or nothing where a JSON document is wanted.
#[derive(Debug)]
pub(super) struct Story {
    json: bool,
    colours: bool,
    /// Boxes and lines by their own characters; else by those of ASCII.
    pub(super) unicode: bool,
}

/// When a step began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun(Option<Instant>);

impl Story {
    /// For the standard output there is.
    pub(super) fn new(json: bool) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let colours = crate::logging::coloured(&std::io::stdout());
        // The first of these that is set decides (locale(7)).
        let locale =
            ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find(|name| set(name)).and_then(|name| std::env::var(name).ok());
        let unicode = locale.is_some_and(|locale| locale.to_ascii_lowercase().replace('-', "").contains("utf8"));
        Self { json, colours, unicode }
    }

    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// One line.
    pub(super) fn say(&self, line: &str) {
        if !self.json {
            self.document(line);
        }
    }

    /// Text that is wanted in any case. A reader who went away misses it, and no more.
    pub(super) fn document(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _unread = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    /// A line that stands out.
    pub(super) fn title(&self, text: &str) {
        self.say(&self.painted("1", text));
    }

    /// Starts the clock of a step.
    pub(super) fn begin(&self) -> Begun {
        Begun((!self.json).then(Instant::now))
    }

    /// A line of progress: what was done, and how long it took.
    pub(super) fn done(&self, begun: Begun, word: &str, text: &str) {
        let Some(begun) = begun.0 else { return };
        let room = WIDTH - 4 - WORD - 12;
        let word = self.painted("32", &format!("{word:<WORD$}"));
        // Longer text is not cut: it may be an address that somebody wants to copy.
        self.say(&format!("  {word}  {text:<room$}{:>10}", in_ms(begun.elapsed())));
    }

    /// A line of progress that took no time worth telling.
    pub(super) fn told(&self, word: &str, text: &str) {
        self.say(&format!("  {}  {text}", self.painted("32", &format!("{word:<WORD$}"))));
    }

    /// What failed, where, why, and what to do.
    pub(super) fn failed(&self, failure: &Failure) {
        let place = failure
            .element
            .as_ref()
            .map_or_else(|| failure.hop.clone(), |element| format!("{}, element {element}", failure.hop));
        self.say("");
        for (word, text) in [("failed at", &place), ("because", &failure.cause), ("what to do", &failure.remedy)] {
            let word = self.painted("31", &format!("{word:<WORD$}"));
            self.say(&format!("  {word}  {text}"));
        }
    }

    /// What was left, if anything was.
    pub(super) fn left_behind(&self, left: &[String]) {
        for what in left {
            self.say(&format!("  {}  {what}", self.painted("31", "left      ")));
        }
    }

    /// How to look around while it stays up.
    pub(super) fn look_around(&self, lab: &Lab, connected: &[Connected]) {
        let mut lines = vec!["It stays up until Ctrl-C. From another terminal:".to_owned()];
        for one in connected.iter().take(2) {
            let peer = one.peers.first().map(|net| net.addr().to_string()).unwrap_or_default();
            for (name, command) in [(&one.name, format!("ping -c 3 {peer}")), (&one.endpoint, "ip addr".to_owned())] {
                let found = lab.workloads.iter().find(|workload| workload.name == *name);
                lines.extend(found.map(|workload| format!("  {:<10}  {} {command}", name, workload.enter())));
            }
        }
        for line in lines {
            // With --json standard output is for the document alone.
            if self.json {
                let _unread = writeln!(std::io::stderr(), "{line}");
            } else {
                self.say(&line);
            }
        }
    }

    pub(super) fn painted(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// As `1.23 ms`.
pub(super) fn in_ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}
