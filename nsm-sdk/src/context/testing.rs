//! A hop around one element, with a next hop whose answers a test decides.

use std::sync::{Arc, Mutex};

use nsm_api::IpContext;
use nsm_api::connection::Connection;
use nsm_chain::{Begin, Call, Chain, Element, Next, Node, Result, elements};

type Edit = dyn Fn(&mut Connection) -> Result<()> + Send + Sync;

/// `Begin`, the element, and a next hop.
pub(super) struct Hop {
    chain: Chain,
    next: Arc<Answer>,
}

struct Answer {
    edit: Box<Edit>,
    requested: Mutex<Vec<Connection>>,
    closed: Mutex<Vec<Connection>>,
}

impl Element for Answer {
    async fn request(&self, mut call: Call, _next: Next<'_>) -> Result<Call> {
        self.requested.lock().unwrap().push(call.connection().clone());
        (self.edit)(call.connection_mut())?;
        Ok(call)
    }

    async fn close(&self, call: Call, _next: Next<'_>) -> Result<Call> {
        self.closed.lock().unwrap().push(call.connection().clone());
        Ok(call)
    }
}

impl Hop {
    /// The next hop answers with what it is asked for.
    pub(super) fn new(element: impl Element) -> Self {
        Self::answering(element, |_| Ok(()))
    }

    /// The next hop edits what it is asked for, or fails.
    pub(super) fn answering(
        element: impl Element,
        edit: impl Fn(&mut Connection) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::of(elements![element], edit)
    }

    /// Several elements instead of one.
    pub(super) fn of(between: Vec<Node>, edit: impl Fn(&mut Connection) -> Result<()> + Send + Sync + 'static) -> Self {
        let next = Arc::new(Answer { edit: Box::new(edit), requested: Mutex::default(), closed: Mutex::default() });
        let mut elements = elements![Begin::default()];
        elements.extend(between);
        elements.push(Node::new(Arc::clone(&next)));
        Self { chain: Chain::new("hop", elements).unwrap(), next }
    }

    pub(super) async fn request(&self, connection: Connection) -> Result<Connection> {
        self.call(Call::new(connection)).await
    }

    pub(super) async fn call(&self, call: Call) -> Result<Connection> {
        Ok(self.chain.request(call).await?.into_body())
    }

    pub(super) async fn close(&self, id: &str) {
        self.chain.close(Call::new(connection(id))).await.unwrap();
    }

    /// What the next hop was last asked for.
    pub(super) fn requested(&self) -> Connection {
        self.next.requested.lock().unwrap().last().unwrap().clone()
    }

    /// What the next hop was told to close, in order.
    pub(super) fn closed(&self) -> Vec<Connection> {
        self.next.closed.lock().unwrap().clone()
    }
}

pub(super) fn connection(id: &str) -> Connection {
    Connection { id: id.into(), ..Default::default() }
}

pub(super) fn ip(connection: &Connection) -> IpContext {
    connection.context.clone().and_then(|context| context.ip_context).unwrap_or_default()
}

pub(super) fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}
