//! The language between the test and a role; `tests/interop/README.md` describes it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde::{Deserialize, Serialize};

/// One line of a role's output.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Event {
    /// What happened.
    pub(crate) event: String,
    /// The number of the command that this answers.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) to: String,
    /// Where the role listens.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) url: String,
    /// Serialised messages, in base64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) messages: Vec<String>,
    /// Whether the record is gone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) deleted: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) error: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) code: String,
}

impl Event {
    pub(crate) fn new(event: &str) -> Self {
        Self { event: event.to_owned(), ..Self::default() }
    }

    /// An answer to a command.
    pub(crate) fn to(mut self, number: &str) -> Self {
        number.clone_into(&mut self.to);
        self
    }

    /// With one more message.
    pub(crate) fn with(mut self, message: &impl Message) -> Self {
        self.messages.push(STANDARD.encode(message.encode_to_vec()));
        self
    }

    /// The messages, as what they are.
    pub(crate) fn messages<M: Message + Default>(&self) -> Result<Vec<M>, String> {
        let read = |text: &String| {
            let bytes = STANDARD.decode(text).map_err(|error| error.to_string())?;
            M::decode(bytes.as_slice()).map_err(|error| error.to_string())
        };
        self.messages.iter().map(read).collect()
    }

    /// The only message.
    pub(crate) fn message<M: Message + Default>(&self) -> Result<M, String> {
        let mut messages = self.messages()?;
        match (messages.pop(), messages.len()) {
            (Some(message), 0) => Ok(message),
            (_, rest) => Err(format!("{:?} carries {} messages, not one", self.event, rest + 1)),
        }
    }
}
