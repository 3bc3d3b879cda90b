//! One role of a mesh in one program: what somebody who runs the reference swaps in for one of its programs.

mod common;
mod identity;
mod manager;
mod public_url;
mod registry;
mod run;
mod signals;

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
}

impl Role {
    fn common(&self) -> &Common {
        match self {
            Self::Registry(options) => &options.common,
            Self::Manager(options) => &options.common,
        }
    }

    async fn run(self, stop: CancellationToken) -> Result<(), Failure> {
        match self {
            Self::Registry(options) => registry::run(options, stop).await,
            Self::Manager(options) => manager::run(options, stop).await,
        }
    }
}

/// Variables of the reference that the role of this name accepts and that have no effect here.
pub(crate) fn without_effect(role: &str) -> Option<Vec<&'static str>> {
    let own: &[&str] = match role {
        "registry" | "manager" => &[],
        _ => return None,
    };
    let mut names: Vec<_> = common::WITHOUT_EFFECT.iter().chain(own).copied().collect();
    names.sort_unstable();
    Some(names)
}

/// Says where a role listens, lets it serve until it is to stop, and leaves in order.
async fn serve(role: Running, stop: CancellationToken) -> Result<(), Failure> {
    let listens: Vec<String> = role.addresses().iter().map(ToString::to_string).collect();
    say(&format!("{} listens on {}", role.name(), listens.join(", ")));
    stop.cancelled().await;
    let name = role.name().to_owned();
    role.shutdown().await.map_err(|error| Failure::of(&name, &error))
}

/// A line on standard output. A reader who went away misses it, and no more.
fn say(line: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _unread = writeln!(out, "{line}").and_then(|()| out.flush());
}
