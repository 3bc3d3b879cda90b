//! The outcome: as a JSON document, or as the end of the story.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::connected::{Connected, Hop};
use crate::failure::Failure;
use crate::story::Story;

/// What a run came to. Its JSON form is what `--json` prints; times are in microseconds.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Packets flowed, and nothing was left.
    ok: bool,
    /// What was left, in words.
    left_behind: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
    clients: Vec<Client>,
}

#[derive(Debug, Serialize)]
struct Client {
    name: String,
    endpoint: String,
    path: Vec<Step>,
    interface: String,
    addresses: Vec<String>,
    peer_interface: String,
    peer_addresses: Vec<String>,
    /// Largest packet in octets; absent where nothing limits it.
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    ping_ok: bool,
    first_ping_us: Option<u64>,
    setup_us: u64,
    phases_us: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct Step {
    name: String,
    id: String,
    #[serde(flatten)]
    interfaces: BTreeMap<String, String>,
}

impl Report {
    pub(super) fn new(connected: Vec<Connected>, error: Option<Failure>, left_behind: Vec<String>) -> Self {
        let clients: Vec<Client> = connected.into_iter().map(Client::from).collect();
        let ok = error.is_none() && left_behind.is_empty() && clients.iter().all(|client| client.ping_ok);
        Self { ok, left_behind, error, clients }
    }

    /// Prints what is not told yet, and gives the exit code.
    pub(super) fn finish(self, story: &Story, interrupted: bool) -> ExitCode {
        if story.is_json() {
            match serde_json::to_string_pretty(&self) {
                Ok(text) => story.document(&text),
                Err(error) => tracing::error!(%error, "the report cannot be written"),
            }
        } else if self.ok {
            story.say("");
            story.say("Try next: nsm quickstart --nodes 2 --clients 4 --keep");
        }
        super::code(self.ok, interrupted)
    }
}

impl From<Connected> for Client {
    fn from(connected: Connected) -> Self {
        let nets = |nets: &[ipnet::IpNet]| nets.iter().map(ToString::to_string).collect();
        Self {
            peer_interface: connected.peer_interface().to_owned(),
            addresses: nets(&connected.addresses),
            peer_addresses: nets(&connected.peers),
            mtu: connected.mtu,
            ping_ok: !connected.pings.is_empty(),
            first_ping_us: connected.pings.first().map(|ping| micros(ping.took)),
            setup_us: micros(connected.setup),
            phases_us: connected.phases.iter().map(|(phase, took)| (phase.to_string(), micros(*took))).collect(),
            path: connected.path.into_iter().map(Step::from).collect(),
            name: connected.name,
            endpoint: connected.endpoint,
            interface: connected.interface,
        }
    }
}

impl From<Hop> for Step {
    fn from(Hop { name, id, interfaces }: Hop) -> Self {
        Self { name, id, interfaces }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
