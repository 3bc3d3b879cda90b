//! Outside text made fit for an error message.

/// Longest part of outside text that an error repeats, in characters.
const LONGEST: usize = 64;

/// Repeats `text` quoted and escaped, cut when it is long: a peer decides its length, and errors are logged.
pub(crate) fn excerpt(text: &str) -> String {
    let mut chars = text.chars();
    let head: String = chars.by_ref().take(LONGEST).collect();
    let dots = if chars.next().is_some() { "..." } else { "" };
    format!("{head:?}{dots}")
}

#[cfg(test)]
mod tests {
    use super::excerpt;

    #[test]
    fn long_and_unprintable_text_is_cut_and_escaped() {
        assert_eq!(excerpt("a\nb"), "\"a\\nb\"");
        let cut = excerpt(&"x".repeat(1_000_000));
        assert!(cut.len() < 80 && cut.ends_with("..."));
    }
}
