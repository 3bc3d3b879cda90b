//! A client, told what to do line by line.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use nsm_api::connection::{MonitorScopeSelector, PathSegment};
use nsm_api::{Connection, NetworkServiceRequest, ServiceUrl};
use nsm_chain::{Watch, elements};
use nsm_kernel::{Netns, Pinger, ProbePair};
use nsm_mechanisms::{KernelLiveness, KernelOffer};
use nsm_sdk::roles::{self, Site};
use nsm_sdk::stacks;

use super::role::{count, gone, orders, say};
use super::{Failure, PATIENCE};

/// How long one packet may be on its way.
const ANSWER: Duration = Duration::from_millis(500);
/// How long the manager may take to say what it knows of an earlier life.
const LOOKING: Duration = Duration::from_secs(2);

pub(super) struct Client {
    name: String,
    stack: stacks::Client,
    pinger: Pinger,
    /// By their ids, until they are asked for again or given up: those of the life before this one.
    earlier: BTreeMap<String, Connection>,
    /// The endpoints of connections, as they were seen last.
    seen: BTreeMap<String, String>,
}

impl Client {
    pub(super) async fn new(name: &str, site: &Site, manager: &str, liveness: Duration) -> Result<Self, Failure> {
        let mut builder = roles::client(name, site, manager).with(elements![KernelOffer::new()]);
        if !liveness.is_zero() {
            builder = builder.liveness(Arc::new(KernelLiveness), liveness, liveness / 2);
        }
        let pinger = Pinger::new(&Netns::current()?).await?;
        Ok(Self {
            name: name.to_owned(),
            stack: builder.build()?,
            pinger,
            earlier: BTreeMap::new(),
            seen: BTreeMap::new(),
        })
    }

    /// Does what it is told until it is told to leave.
    pub(super) async fn obey(mut self) -> Result<(), Failure> {
        say("ready");
        let mut lines = orders();
        while let Some(order) = lines.next_line().await? {
            let words: Vec<&str> = order.split(' ').collect();
            let answer = match words.as_slice() {
                ["leave"] => {
                    self.stack.shutdown(PATIENCE).await?;
                    return Ok(());
                }
                ["count"] => Ok(count(self.stack.connections().handles().len())),
                ["ping"] => self.ping().await,
                ["remember"] => self.remember().await,
                ["forget"] => self.forget().await,
                ["connect", id, url] => self.connect(id, url).await,
                ["where", id] => self.endpoint(id),
                ["close", id] => self.close(id).await,
                _ => Err(format!("what is {order:?}?").into()),
            };
            say(&answer.unwrap_or_else(|error| format!("failed: {error}").replace('\n', " ")));
        }
        gone()
    }

    /// Asks for a connection: for what the life before this one had under that id, if it had one.
    async fn connect(&mut self, id: &str, url: &str) -> Result<String, Failure> {
        let url: ServiceUrl = url.parse()?;
        let mut request = url.to_request(id);
        if let Some(earlier) = self.earlier.remove(id) {
            request.connection = Some(earlier);
        }
        let connection = self.stack.request(request, PATIENCE / 2).await?;
        Ok(format!("connected to {}", connection.network_service_endpoint_name))
    }

    /// The endpoint that serves a connection; while something happens to it, the last one that was seen.
    fn endpoint(&mut self, id: &str) -> Result<String, Failure> {
        let handles = self.stack.connections().handles();
        let handle = handles.iter().find(|handle| &**handle.key() == id).ok_or("there is no such connection")?;
        if let Some(now) = handle.peek() {
            self.seen.insert(id.to_owned(), now.network_service_endpoint_name.clone());
        }
        Ok(self.seen.get(id).ok_or("it was never established")?.clone())
    }

    async fn close(&self, id: &str) -> Result<String, Failure> {
        let handles = self.stack.connections().handles();
        let handle = handles.iter().find(|handle| &**handle.key() == id).ok_or("there is no such connection")?;
        handle.close().await?;
        Ok("closed".to_owned())
    }

    /// Asks the manager what it knows of the life before this one.
    async fn remember(&mut self) -> Result<String, Failure> {
        let segment = PathSegment { name: self.name.clone(), ..Default::default() };
        let query = MonitorScopeSelector { path_segments: vec![segment], ..Default::default() };
        let looking = async {
            let mut events = self.stack.chain().monitor(Watch::new(query)).await?;
            // The first event tells all there is.
            events.next().await.transpose()
        };
        let event = tokio::time::timeout(LOOKING, looking).await??.ok_or("the manager says nothing")?;
        self.earlier = event.connections.values().filter_map(|seen| self.ours(seen)).collect();
        Ok(format!("{} remembered", self.earlier.len()))
    }

    /// A connection that the next hop knows, as it is seen from here; none: it is another client's.
    fn ours(&self, seen: &Connection) -> Option<(String, Connection)> {
        let path = seen.path.as_ref().filter(|path| path.index == 1)?;
        let id = path.segment(0).filter(|first| first.name == self.name)?.id.clone();
        let mut ours = seen.clone();
        id.clone_into(&mut ours.id);
        if let Some(path) = &mut ours.path {
            path.index = 0;
        }
        Some((id, ours))
    }

    /// Gives up what is left of the life before this one: asks for it, because only what is known can be closed, and closes it.
    async fn forget(&mut self) -> Result<String, Failure> {
        let given_up = std::mem::take(&mut self.earlier);
        let count = given_up.len();
        for (id, connection) in given_up {
            let request = NetworkServiceRequest { connection: Some(connection), ..Default::default() };
            self.stack.request(request, PATIENCE / 2).await?;
            self.close(&id).await?;
        }
        Ok(format!("{count} forgotten"))
    }

    /// Sends one packet through each connection.
    async fn ping(&self) -> Result<String, Failure> {
        let connections: Vec<_> =
            self.stack.connections().handles().into_iter().filter_map(|handle| handle.peek()).collect();
        let pings = connections.iter().map(|connection| async {
            let Some(pair) = pair(connection) else { return false };
            self.pinger.ping(pair.src, pair.dst, ANSWER).await.is_ok()
        });
        let answered = join_all(pings).await.into_iter().filter(|answered| *answered).count();
        Ok(format!("{answered} {}", connections.len()))
    }
}

/// The addresses of both ends.
fn pair(connection: &Connection) -> Option<ProbePair> {
    let ip = connection.context.as_ref()?.ip_context.as_ref()?;
    let (src, dst): (IpAddr, IpAddr) = (ip.src_nets().next()?.addr(), ip.dst_nets().next()?.addr());
    Some(ProbePair { src, dst })
}
