//! Clients.

use std::time::Duration;

use nsm_api::{Connection, NetworkServiceRequest, ServiceUrl};
use nsm_chain::{Call, Error, Node, OwnedNext, Result, elements, from_fn};
use nsm_mechanisms::{KernelOffer, Workload as Interfaces};
use nsm_sdk::roles;
use nsm_sdk::stacks;

use super::Lab;
use crate::failure::Failure;

/// A client, of a workload in a namespace of its own.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) name: String,
    stack: stacks::Client,
}

/// How long everything of one client may take to be closed.
const CLOSING: Duration = Duration::from_secs(10);

impl Client {
    /// Asks for what a URL says.
    pub(crate) async fn request(&self, url: &ServiceUrl, within: Duration) -> Result<Connection> {
        let asked: NetworkServiceRequest = url.to_request("");
        self.stack.request(asked, within).await
    }

    /// Its stack.
    pub(crate) fn stack(&self) -> &stacks::Client {
        &self.stack
    }

    /// How many connections it has.
    pub(super) fn connections(&self) -> usize {
        self.stack.connections().handles().len()
    }

    pub(super) async fn close(&self) -> Result<(), Error> {
        self.stack.shutdown(CLOSING).await
    }
}

/// What a URL asks for and nothing else: whoever wants shared memory has no use for a kernel interface instead.
pub(crate) async fn as_asked(mut call: Call, next: OwnedNext) -> Result<Call> {
    let preferences = call.extra_mut();
    if let Some(wanted) = preferences.first().map(|mechanism| mechanism.r#type.clone()) {
        preferences.retain(|mechanism| mechanism.r#type == wanted);
    }
    next.request(call).await
}

impl Lab {
    /// A client of the manager of the node at this position, in the namespace of the workload of its name.
    pub(crate) fn add_client(&mut self, name: &str, node: usize) -> Result<(), Failure> {
        self.add_client_with(name, node, elements![])
    }

    /// The same with elements of its own, before the one that offers interfaces.
    pub(crate) fn add_client_with(&mut self, name: &str, node: usize, own: Vec<Node>) -> Result<(), Failure> {
        let interfaces = KernelOffer::new().in_netns(Interfaces::of(&self.workload(name)?.netns));
        let builder = roles::client(name, &self.site(name)?, &self.node(node)?.url());
        let builder = builder.with(own).with(elements![interfaces, from_fn(as_asked)]);
        let stack = builder.build().map_err(|error| Failure::of(name, &error))?;
        self.clients.push(Client { name: name.to_owned(), stack });
        Ok(())
    }

    /// The client of this name.
    pub(crate) fn client(&self, name: &str) -> Option<&Client> {
        self.clients.iter().find(|client| client.name == name)
    }

    /// Closes all connections of a client and lets go of it.
    pub(crate) async fn remove_client(&mut self, name: &str) -> Result<(), Failure> {
        let Some(at) = self.clients.iter().position(|client| client.name == name) else { return Ok(()) };
        self.clients.remove(at).close().await.map_err(|error| Failure::of(name, &error))
    }
}
