//! Says what becomes of connections.

use clap::ValueEnum;
use nsm_chain::grpc::headers::rfc3339;
use nsm_chain::time;
use nsm_sdk::lifecycle::{Change, Changes};
use serde::Serialize;

use crate::roles::say;

/// In which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Events {
    /// For people.
    Text,
    /// For programs: one JSON object a line, and nothing else on standard output.
    Json,
}

impl Events {
    /// Says every change of one connection, until it is gone.
    pub(super) async fn follow(self, id: String, mut changes: Changes) {
        while let Some(change) = changes.next().await {
            match self {
                Self::Text => say(&format!("{id} {change}")),
                Self::Json => say(&line(&id, &change)),
            }
        }
    }

    /// Says something that is not about one connection.
    pub(super) fn note(self, text: &str) {
        match self {
            Self::Text => say(text),
            Self::Json => tracing::info!("{text}"),
        }
    }
}

/// One event. What it has not is left out.
#[derive(Serialize)]
struct Event<'a> {
    time: String,
    id: &'a str,
    event: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    what: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    /// What is broken and being mended, while it is up.
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<&'a str>,
    /// Of shared memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<std::path::PathBuf>,
    addresses: Vec<String>,
    peers: Vec<String>,
    service: &'a str,
    endpoint: &'a str,
    hops: Vec<&'a str>,
}

fn line(id: &str, change: &Change) -> String {
    let interface = change.interface();
    let (what, why) = match change {
        Change::Up(_) => (Vec::new(), None),
        Change::Changed { what, why, .. } => {
            (what.iter().map(|part| part.as_str()).collect(), why.map(|why| why.as_str()))
        }
        Change::Down { why, .. } => (Vec::new(), Some(why.as_str())),
        Change::Gone { how, .. } => (Vec::new(), Some(how.as_str())),
    };
    let event = Event {
        time: rfc3339(time::now()),
        id,
        event: change.as_str(),
        what,
        why,
        broken: interface.broken().map(|why| why.as_str()),
        interface: interface.name(),
        socket: interface.socket(),
        addresses: interface.addresses().map(|net| net.to_string()).collect(),
        peers: interface.peers().map(|net| net.to_string()).collect(),
        service: interface.service(),
        endpoint: interface.endpoint(),
        hops: interface.hops().collect(),
    };
    serde_json::to_string(&event).unwrap_or_default()
}
