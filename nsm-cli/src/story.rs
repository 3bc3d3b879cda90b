//! What a person sees: standard output, a hundred columns wide.

use std::io::Write;
use std::time::Duration;

use tokio::time::Instant;

use crate::failure::Failure;

/// Columns.
pub(crate) const WIDTH: usize = 100;
/// Columns of the first word of a line of progress.
const WORD: usize = 10;

/// Prints the story, or nothing where a JSON document is wanted.
#[derive(Debug)]
pub(crate) struct Story {
    json: bool,
    colours: bool,
    /// Boxes and lines by their own characters; else by those of ASCII.
    pub(crate) unicode: bool,
}

/// When a step began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun(Option<Instant>);

impl Story {
    /// For the standard output there is.
    pub(crate) fn new(json: bool) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let colours = crate::logging::coloured(&std::io::stdout());
        // The first of these that is set decides (locale(7)).
        let locale =
            ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find(|name| set(name)).and_then(|name| std::env::var(name).ok());
        let unicode = locale.is_some_and(|locale| locale.to_ascii_lowercase().replace('-', "").contains("utf8"));
        Self { json, colours, unicode }
    }

    /// Whether standard output is for a JSON document alone.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// One line.
    pub(crate) fn say(&self, line: &str) {
        if !self.json {
            self.document(line);
        }
    }

    /// Text that is wanted in any case. A reader who went away misses it, and no more.
    pub(crate) fn document(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _unread = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    /// A line that stands out.
    pub(crate) fn title(&self, text: &str) {
        self.say(&self.painted("1", text));
    }

    /// Starts the clock of a step.
    pub(crate) fn begin(&self) -> Begun {
        Begun((!self.json).then(Instant::now))
    }

    /// A line of progress: what was done, and how long it took.
    pub(crate) fn done(&self, begun: Begun, word: &str, text: &str) {
        let Some(begun) = begun.0 else { return };
        let room = WIDTH - 4 - WORD - 12;
        let word = self.painted("32", &format!("{word:<WORD$}"));
        // Longer text is not cut: it may be an address that somebody wants to copy.
        self.say(&format!("  {word}  {text:<room$}{:>10}", in_ms(begun.elapsed())));
    }

    /// A line of progress that took no time worth telling.
    pub(crate) fn told(&self, word: &str, text: &str) {
        self.say(&format!("  {}  {text}", self.painted("32", &format!("{word:<WORD$}"))));
    }

    /// What failed, where, why, and what to do.
    pub(crate) fn failed(&self, failure: &Failure) {
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
    pub(crate) fn left_behind(&self, left: &[String]) {
        for what in left {
            self.say(&format!("  {}  {what}", self.painted("31", "left      ")));
        }
    }

    /// Text in a colour or weight (ECMA-48, 8.3.117), where colours are wanted.
    pub(crate) fn painted(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// As `1.23 ms`.
pub(crate) fn in_ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// As `1 node` and `2 nodes`.
pub(crate) fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
