//! One role of a mesh in one program: what somebody who runs the reference swaps in for one of its programs.

mod apply;
mod client;
mod common;
mod endpoint;
mod forwarder;
mod identity;
mod manager;
mod public_url;
mod registry;
mod run;
mod signals;
mod tunnel;

use clap::Subcommand;
use nsm_sdk::roles::Running;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use common::Common;

pub(crate) use run::main;

/// The roles.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Role {
    Registry(registry::Options),
    Manager(manager::Options),
    Forwarder(forwarder::Options),
    Endpoint(endpoint::Options),
    Client(client::Options),
    Apply(apply::Options),
}

impl Role {
    fn common(&self) -> &Common {
        match self {
            Self::Registry(options) => &options.common,
            Self::Manager(options) => &options.common,
            Self::Forwarder(options) => &options.common,
            Self::Endpoint(options) => &options.common,
            Self::Client(options) => &options.common,
            Self::Apply(options) => &options.common,
        }
    }

    async fn run(self, stop: CancellationToken) -> Result<(), Failure> {
        match self {
            Self::Registry(options) => registry::run(options, stop).await,
            Self::Manager(options) => manager::run(options, stop).await,
            Self::Forwarder(options) => forwarder::run(options, stop).await,
            Self::Endpoint(options) => endpoint::run(options, stop).await,
            Self::Client(options) => client::run(options, stop).await,
            Self::Apply(options) => apply::run(options, stop).await,
        }
    }
}

/// Variables of the reference that the role of this name accepts and that have no effect here.
pub(crate) fn without_effect(role: &str) -> Option<Vec<&'static str>> {
    let own: &[&str] = match role {
        "registry" | "manager" | "apply" => &[],
        "forwarder" => forwarder::WITHOUT_EFFECT,
        "endpoint" => endpoint::WITHOUT_EFFECT,
        "client" => client::WITHOUT_EFFECT,
        _ => return None,
    };
    let mut names: Vec<_> = common::WITHOUT_EFFECT.iter().chain(own).copied().collect();
    names.sort_unstable();
    Some(names)
}

/// Says where a role listens, lets it serve until it is to stop, and leaves in order.
async fn serve(role: Running, stop: CancellationToken) -> Result<(), Failure> {
    announce(&role);
    stop.cancelled().await;
    let name = role.name().to_owned();
    role.shutdown().await.map_err(|error| Failure::of(&name, &error))
}

/// Says where a role listens, with real ports.
fn announce(role: &Running) {
    let listens: Vec<String> = role.addresses().iter().map(ToString::to_string).collect();
    say(&format!("{} listens on {}", role.name(), listens.join(", ")));
}

/// What a future comes to, or nothing if the program is to stop before that.
async fn unless_stopped<T>(stop: &CancellationToken, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        outcome = future => Some(outcome),
    }
}

/// A line on standard output. A reader who went away misses it, and no more.
fn say(line: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _unread = writeln!(out, "{line}").and_then(|()| out.flush());
}
