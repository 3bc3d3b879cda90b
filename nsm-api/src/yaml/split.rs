//! Taking a text apart into documents, so that an error can say which one is wrong.

use serde::de::DeserializeOwned;

use super::YamlError;
use crate::excerpt::excerpt;

/// One document of a text, not yet read; see [`sources`](super::sources).
#[derive(Debug)]
pub struct Source<'t> {
    text: &'t str,
    /// Position among the documents, from 1.
    document: usize,
    /// How many lines of the whole text stand before it.
    lines_before: usize,
}

impl<'t> Source<'t> {
    /// Position of the document in the text, from 1.
    #[must_use]
    pub fn position(&self) -> usize {
        self.document
    }

    /// How many lines of the whole text stand before it: to be added to a line of the document, from 1.
    #[must_use]
    pub fn lines_before(&self) -> usize {
        self.lines_before
    }

    /// Reads it as a value of one's own.
    ///
    /// # Errors
    /// [`YamlError::Malformed`] with the field, and the line in the whole text.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, YamlError> {
        serde_saphyr::from_str(self.text)
            .map_err(|error| YamlError::Malformed { document: self.document, reason: self.located::<T>(&error) })
    }

    /// The message with the field, and with lines counted in the whole text: reads again, behind as many
    /// empty lines as stand before the document.
    fn located<T: DeserializeOwned>(&self, error: &serde_saphyr::Error) -> String {
        let padded = "\n".repeat(self.lines_before) + self.text;
        let mut field = String::new();
        let again = serde_saphyr::with_deserializer_from_str(&padded, |reader| {
            serde_path_to_error::deserialize::<_, T>(reader).map_err(|error| {
                field = error.path().to_string();
                error.into_inner()
            })
        });
        let error = again.as_ref().err().unwrap_or(error).without_snippet();
        // A single dot is the document as a whole.
        if field.is_empty() || field == "." { error.to_string() } else { format!("{field}: {error}") }
    }

    pub(super) fn refuse(&self, field: &'static str, value: &str, expected: &'static str) -> YamlError {
        YamlError::Refused { document: self.document, field, value: excerpt(value), expected }
    }

    fn has_content(&self) -> bool {
        self.text.lines().map(str::trim).any(|line| !line.is_empty() && !line.starts_with('#') && line != "---")
    }
}

/// The documents that have content. A document begins at a line that starts with `---` (YAML 1.2, section 9.1.4);
/// no scalar can hold such a line in a document that is a mapping.
pub(super) fn documents(text: &str) -> impl Iterator<Item = Source<'_>> {
    let mut sources = Vec::new();
    let (mut start, mut lines_before) = (0, 0);
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if at > start && is_marker(line) {
            sources.push((start, at, lines_before));
            (start, lines_before) = (at, number);
        }
        at += line.len();
    }
    sources.push((start, text.len(), lines_before));
    let sources = sources.into_iter().map(|(start, end, lines_before)| Source {
        text: text.get(start..end).unwrap_or_default(),
        document: 0,
        lines_before,
    });
    sources.filter(Source::has_content).zip(1..).map(|(source, document)| Source { document, ..source })
}

fn is_marker(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_counted_and_know_their_line() {
        let text = "# head\n---\na: 1\n--- # second\n\n---\nb: ---\nc: 2\n---";
        let found: Vec<_> = documents(text).map(|s| (s.document, s.lines_before, s.text)).collect();
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], (1, 1, "---\na: 1\n"));
        assert_eq!(found[2], (3, 5, "---\nb: ---\nc: 2\n"));
        assert_eq!(documents("").count(), 0);
    }
}
