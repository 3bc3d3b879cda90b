//! One role of a mesh in one program: what somebody who runs the reference swaps in for one of its programs.

mod agent;
mod apply;
mod client;
mod common;
mod endpoint;
mod forwarder;
mod identity;
mod manager;
mod manager_proxy;
mod policies;
mod prometheus;
mod public_url;
mod registry;
mod registry_proxy;
mod run;
mod signals;
mod store;
mod tunnel;
mod uplinks;

use clap::Subcommand;
use nsm_sdk::roles::Running;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use common::Program;

pub(crate) use run::main;

/// The roles.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Role {
    Registry(registry::Options),
    Manager(manager::Options),
    Forwarder(forwarder::Options),
    Endpoint(endpoint::Options),
    Client(client::Options),
    ManagerProxy(manager_proxy::Options),
    RegistryProxy(registry_proxy::Options),
    Apply(apply::Options),
    Agent(agent::Options),
}

impl Role {
    fn program(&self) -> &Program {
        match self {
            Self::Registry(options) => &options.common.program,
            Self::Manager(options) => &options.common.program,
            Self::Forwarder(options) => &options.common.program,
            Self::Endpoint(options) => &options.common.program,
            Self::Client(options) => &options.common.program,
            Self::ManagerProxy(options) => &options.common.program,
            Self::RegistryProxy(options) => &options.common.program,
            Self::Apply(options) => &options.common.program,
            Self::Agent(options) => &options.program,
        }
    }

    /// Runs until it is told to stop, or has nothing more to do.
    async fn run(self, stop: CancellationToken) -> Result<(), Failure> {
        // Its name is that of its identity and in its errors; where the reference has no setting for it, the command's.
        let (name, common, server, client) = match &self {
            Self::Registry(options) => (registry::NAME, &options.common, Some(&options.server), Some(&options.client)),
            Self::Manager(options) => (&*options.name, &options.common, Some(&options.server), Some(&options.client)),
            Self::Forwarder(options) => (&*options.name, &options.common, None, Some(&options.client)),
            Self::Endpoint(options) => (&*options.name, &options.common, None, Some(&options.client)),
            Self::Client(options) => (&*options.name, &options.common, None, None),
            Self::ManagerProxy(options) => {
                (&*options.name, &options.common, Some(&options.server), Some(&options.client))
            }
            Self::RegistryProxy(options) => {
                (registry_proxy::NAME, &options.common, Some(&options.server), Some(&options.client))
            }
            Self::Apply(options) => (apply::NAME, &options.common, None, None),
            Self::Agent(options) => return agent::run(options, stop).await,
        };
        let policies = policies::chosen(server, client)?;
        let Some(site) = unless_stopped(&stop, identity::site(&common.identity, name, policies)).await else {
            return Ok(());
        };
        let site = site?;
        match self {
            Self::Registry(options) => registry::run(options, site, stop).await,
            Self::Manager(options) => manager::run(options, site, stop).await,
            Self::Forwarder(options) => forwarder::run(options, site, stop).await,
            Self::Endpoint(options) => endpoint::run(options, site, stop).await,
            Self::Client(options) => client::run(options, site, stop).await,
            Self::ManagerProxy(options) => manager_proxy::run(options, site, stop).await,
            Self::RegistryProxy(options) => registry_proxy::run(options, site, stop).await,
            Self::Apply(options) => apply::run(options, site, stop).await,
            Self::Agent(_) => Ok(()),
        }
    }
}

/// Variables of the reference that the role of this name accepts and that have no effect here.
pub(crate) fn without_effect(role: &str) -> Option<Vec<&'static str>> {
    let own: &[&str] = match role {
        "registry" | "manager" | "endpoint" | "manager-proxy" | "registry-proxy" | "apply" | "agent" => &[],
        "forwarder" => forwarder::WITHOUT_EFFECT,
        "client" => client::WITHOUT_EFFECT,
        _ => return None,
    };
    let mut names: Vec<_> = common::WITHOUT_EFFECT.iter().chain(own).copied().collect();
    if role != "forwarder" {
        names.push("PROMETHEUS");
    }
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
