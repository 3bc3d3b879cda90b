//! Taking a lab down, in the order that lets each part say goodbye to what it uses.

use futures::StreamExt;
use nsm_sdk::roles::Running;

use super::{AT_ONCE, Lab};
use crate::failure::Failure;
use crate::story::plural;

/// What a lab left.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// What is still there, in words. Empty: nothing.
    pub(crate) behind: Vec<String>,
    /// What could not be closed in order.
    pub(crate) failures: Vec<Failure>,
    /// How many connections there were.
    pub(crate) connections: usize,
    /// How many roles ran.
    pub(crate) roles: usize,
    /// How many namespaces there were.
    pub(crate) namespaces: usize,
}

impl Lab {
    /// Closes all connections, stops all roles, counts what is left, and gives back the rest.
    pub(crate) async fn take_down(self) -> Left {
        let Self {
            sockets, inventory, network, places, registry, applied, nodes, endpoints, workloads, clients, ..
        } = self;
        let mut left = Left { namespaces: inventory.namespaces(), ..Left::default() };

        left.connections = clients.iter().map(super::Client::connections).sum();
        let closing = clients.iter().map(async |client| (client.name.clone(), client.close().await));
        let closed: Vec<_> = futures::stream::iter(closing).buffer_unordered(AT_ONCE).collect().await;
        left.failed(closed);
        drop(clients);

        // Forwarders before endpoints: what a client that was cut short has left is closed through to them.
        let (forwarders, managers): (Vec<_>, Vec<_>) =
            nodes.into_iter().map(|node| (node.forwarder, node.manager)).unzip();
        for forwarder in forwarders.into_iter().flatten() {
            left.stopped(forwarder).await;
        }
        for endpoint in endpoints {
            left.roles += 1;
            let name = endpoint.name.clone();
            left.failed([(name, endpoint.stop().await)]);
        }
        if let Some(applied) = applied {
            left.failed([("operator".to_owned(), applied.unregister_all().await)]);
        }
        for role in managers.into_iter().chain(registry) {
            left.stopped(role).await;
        }

        left.behind.extend(inventory.left().await);
        left.behind.extend(sockets.left());
        left.behind.extend(sockets.remove());
        let aliases = workloads.iter().filter_map(|workload| workload.alias.as_ref()).chain(places.iter().flatten());
        let names: Vec<_> = aliases.map(|alias| alias.path().to_owned()).collect();
        let ended = inventory.end();
        drop((workloads, places, network));
        left.behind.extend(names.iter().filter(|name| name.exists()).map(|name| format!("name {}", name.display())));
        left.behind.extend(ended.in_time().await);
        left
    }
}

impl Left {
    /// What was taken down, in words.
    pub(crate) fn closed(&self) -> String {
        let connections = plural(self.connections, "connection");
        format!("{connections}, {}, {}", plural(self.roles, "role"), plural(self.namespaces, "network namespace"))
    }

    /// What the look around came to, in words.
    pub(crate) fn census(&self) -> &'static str {
        if self.behind.is_empty() {
            "nothing left of interfaces, addresses, routes, rules, sockets, namespaces"
        } else {
            "this is left:"
        }
    }

    async fn stopped(&mut self, role: Running) {
        let name = role.name().to_owned();
        self.roles += 1;
        self.failed([(name, role.shutdown().await)]);
    }

    fn failed(&mut self, results: impl IntoIterator<Item = (String, nsm_chain::Result<()>)>) {
        let failures = results.into_iter().filter_map(|(name, result)| Some(Failure::of(&name, &result.err()?)));
        self.failures.extend(failures);
    }
}
