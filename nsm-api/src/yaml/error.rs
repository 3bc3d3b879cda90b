//! What can be wrong with a document.

use thiserror::Error;

/// Why YAML could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum YamlError {
    /// The document is not YAML, or a field is unknown, missing or of the wrong kind.
    #[error("document {document}: {reason}")]
    Malformed {
        /// Position of the document in the text, from 1.
        document: usize,
        /// What the reader found: the field, and the line of the text, from 1.
        reason: String,
    },
    /// A field has a value that is not accepted.
    #[error("document {document}: {field} is {value}: it must be {expected}")]
    Refused {
        /// Position of the document in the text, from 1.
        document: usize,
        /// The field.
        field: &'static str,
        /// Its value, quoted, cut when long.
        value: String,
        /// What it must be.
        expected: &'static str,
    },
    /// The writer refused a value.
    #[error("cannot write YAML: {reason}")]
    Unwritable {
        /// What the writer said.
        reason: String,
    },
}
