//! `docs/errors.md` quotes errors that the code can give.

use crate::{library_sources, read};

/// The code with what is written over several lines put together, and without line breaks.
fn flat(code: &str) -> String {
    let mut lines = String::new();
    let mut continued = false;
    for line in code.lines() {
        let line = line.trim();
        if !continued {
            lines.push(' ');
        }
        continued = line.ends_with('\\');
        lines.push_str(line.strip_suffix('\\').unwrap_or(line));
    }
    lines
}

#[test]
fn every_quoted_text_is_in_the_code() {
    let code: String = library_sources().iter().map(|(_, code)| flat(code)).collect();
    let page = read("docs/errors.md");
    let quoted: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(quoted.len() > 30, "{quoted:?}");
    for text in quoted {
        for part in text.split('…').map(str::trim).filter(|part| part.len() > 2) {
            assert!(code.contains(part), "no error says {part:?} (of {text:?})");
        }
    }
}
