use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nsm_api::{Connection, PathSegment};
use nsm_chain::{Call, Code, Element, Next, Order, Result, Slot};

use super::{Metered, SIDES, Traffic};
use crate::metrics::{CLIENT_INTERFACE, SERVER_INTERFACE};

/// Tells what has passed a forwarder's wires, beside [`CrossConnect`](crate::CrossConnect) with the same data plane.
///
/// *Request*: counts how it ended; where well, it writes what has passed the connection's wire so far into the metrics of this
/// hop's path segment, under the names of the reference (`server_rx_bytes`, `client_drops` and so on; `server` is the side of
/// the caller): the caller and whoever watches learn it with each refresh. *Close* passes. Besides,
/// [`Readings`] of all wires can be taken at any time.
pub struct Meter<D> {
    meters: Arc<Meters<D>>,
    noted: Slot<Noted>,
}

/// How [`Meter`] is read.
pub struct Readings<D>(Arc<Meters<D>>);

struct Meters<D> {
    dataplane: D,
    /// Requests by the code they ended with.
    requests: [AtomicU64; OUTCOMES],
    connections: Arc<Table>,
}

/// gRPC has the codes 0 to 16.
const OUTCOMES: usize = 17;

#[derive(Default)]
struct Table(Mutex<HashMap<Arc<str>, Arc<Whose>>>);

/// What is told of a connection besides counters, and nothing else of it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Whose {
    pub(super) network_service: String,
    pub(super) client: String,
    pub(super) client_interface: String,
    pub(super) endpoint_interface: String,
}

/// A connection of the table, until it ends.
struct Noted {
    table: Arc<Table>,
    id: Arc<str>,
}

/// What there is to tell at one time.
pub(super) struct Reading {
    pub(super) connections: HashMap<Arc<str>, Arc<Whose>>,
    pub(super) traffic: HashMap<Arc<str>, Traffic>,
    /// Codes with which any Request has ended.
    pub(super) requests: Vec<(Code, u64)>,
    /// Drops of no wire.
    pub(super) strange: BTreeMap<&'static str, u64>,
}

impl<D: Metered> Meter<D> {
    /// Reads this data plane.
    #[must_use]
    pub fn new(dataplane: D) -> Self {
        let requests = [const { AtomicU64::new(0) }; OUTCOMES];
        Self { meters: Arc::new(Meters { dataplane, requests, connections: Arc::default() }), noted: Slot::new() }
    }

    /// For whoever wants to read all wires.
    #[must_use]
    pub fn readings(&self) -> Readings<D> {
        Readings(Arc::clone(&self.meters))
    }
}

impl<D: Metered> Readings<D> {
    pub(super) async fn read(&self) -> Reading {
        let connections = self.0.connections.lock().clone();
        let traffic = self.0.dataplane.all_traffic().await;
        let counts = self.0.requests.iter().map(|count| count.load(Ordering::Relaxed));
        let requests = (0..).map(Code::from_i32).zip(counts).filter(|(_, count)| *count > 0).collect();
        Reading { connections, traffic, requests, strange: self.0.dataplane.strange() }
    }
}

impl<D: Metered> Element for Meter<D> {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let outcome = next.request(call).await;
        let code = outcome.as_ref().map_or_else(nsm_chain::Error::code, |_| Code::Ok);
        if let Some(count) = self.meters.requests.get(code as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let mut call = outcome?;
        if let Some(traffic) = self.meters.dataplane.traffic(&call.connection().id).await {
            write(call.connection_mut(), &traffic);
        }
        let state = call.state()?;
        let connection = call.connection();
        let id: Arc<str> = connection.id.as_str().into();
        self.meters.connections.lock().insert(Arc::clone(&id), Arc::new(Whose::of(connection)));
        if self.noted.with(state, |noted| noted.is_none()) {
            self.noted.set(state, Noted { table: Arc::clone(&self.meters.connections), id });
        }
        Ok(call)
    }

    fn order(&self) -> Order {
        Order { after: &["Begin"], before: &["CrossConnect", "Connect"], last: false }
    }
}

/// Into the metrics of this hop's segment.
fn write(connection: &mut Connection, traffic: &Traffic) {
    let Some(segment) = connection.path.as_mut().and_then(|path| path.current_mut()) else {
        return;
    };
    for (side, passed) in SIDES.into_iter().zip([traffic.caller, traffic.next]) {
        let named = passed.named().map(|(name, value)| (format!("{side}_{name}"), value.to_string()));
        segment.metrics.extend(named);
    }
}

impl Whose {
    fn of(connection: &Connection) -> Self {
        let segments = connection.path.as_ref().map_or(&[][..], |path| &path.path_segments);
        // What the ends say themselves; of a path that has not been through all of it yet, what is known here.
        let text = |end: Option<&PathSegment>, theirs: &str, ours: &str| {
            let end = end.and_then(|segment| segment.metrics.get(theirs));
            let here = || connection.current_segment().and_then(|segment| segment.metrics.get(ours));
            end.or_else(here).cloned().unwrap_or_default()
        };
        Self {
            network_service: connection.network_service.clone(),
            client: segments.first().map(|segment| segment.name.clone()).unwrap_or_default(),
            client_interface: text(segments.first(), CLIENT_INTERFACE, SERVER_INTERFACE),
            endpoint_interface: text(segments.last(), SERVER_INTERFACE, CLIENT_INTERFACE),
        }
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Whose>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.table.lock().remove(&self.id);
    }
}

impl<D> Clone for Readings<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D> fmt::Debug for Meter<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Meter({} connections)", self.meters.connections.lock().len())
    }
}

impl<D> fmt::Debug for Readings<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Readings({} connections)", self.0.connections.lock().len())
    }
}
