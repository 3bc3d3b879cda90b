//! A DNS server for tests: on loopback, over UDP, with records that a test sets.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

/// A DNS server that knows what it is told, while it lives.
///
/// ```
/// use nsm_dns::Dns;
/// use nsm_dns::testing::{Records, Server};
/// use nsm_sdk::interdomain::{DomainResolver, REGISTRY};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::start().await?;
/// server.set("registry.nsm-system.b.test.", Records::new().srv(5002, "b.test.").address("127.0.0.1".parse()?));
/// assert_eq!(Dns::asking([server.address()])?.resolve(REGISTRY, "b.test").await?, "tcp://127.0.0.1:5002");
/// # Ok(()) }
/// ```
pub struct Server {
    address: SocketAddr,
    zone: Arc<Zone>,
    _serving: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Zone {
    records: Mutex<HashMap<String, Records>>,
    silent: AtomicBool,
    refusing: AtomicBool,
    asked: AtomicUsize,
}

/// The records of one name.
#[derive(Debug, Clone, Default)]
pub struct Records {
    srv: Vec<(u16, u16, u16, String)>,
    addresses: Vec<IpAddr>,
    ttl: u32,
}

impl Records {
    /// None yet. They are not to be kept: their TTL is 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An SRV record with this port and target.
    #[must_use]
    pub fn srv(mut self, port: u16, target: &str) -> Self {
        self.srv.push((0, 0, port, target.to_owned()));
        self
    }

    /// An SRV record with a priority, a weight and a port.
    #[must_use]
    pub fn weighing(mut self, priority: u16, weight: u16, port: u16) -> Self {
        self.srv.push((priority, weight, port, "target.test.".to_owned()));
        self
    }

    /// An A or AAAA record.
    #[must_use]
    pub fn address(mut self, address: IpAddr) -> Self {
        self.addresses.push(address);
        self
    }

    /// They may be kept for so many seconds.
    #[must_use]
    pub fn living(mut self, seconds: u32) -> Self {
        self.ttl = seconds;
        self
    }

    fn answers(&self, name: &Name, kind: RecordType) -> Vec<Record> {
        let services = self.srv.iter().filter_map(|(priority, weight, port, target)| {
            Some(RData::SRV(SRV::new(*priority, *weight, *port, Name::from_utf8(target).ok()?)))
        });
        let addresses = self.addresses.iter().map(|address| match address {
            IpAddr::V4(address) => RData::A((*address).into()),
            IpAddr::V6(address) => RData::AAAA((*address).into()),
        });
        let of_kind = services.chain(addresses).filter(|data| data.record_type() == kind);
        of_kind.map(|data| Record::from_rdata(name.clone(), self.ttl, data)).collect()
    }
}

impl Server {
    /// Listens on a free port of 127.0.0.1. It knows no names yet.
    ///
    /// # Errors
    /// When there is no port to be had.
    pub async fn start() -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, zone) = (socket.local_addr()?, Arc::<Zone>::default());
        let serving = tokio::spawn(serve(socket, Arc::clone(&zone)));
        Ok(Self { address, zone, _serving: AbortOnDropHandle::new(serving) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the records of a name (complete, with a dot at the end).
    pub fn set(&self, name: &str, records: Records) {
        self.zone.lock().insert(name.to_lowercase(), records);
    }

    /// Forgets a name.
    pub fn remove(&self, name: &str) {
        self.zone.lock().remove(&name.to_lowercase());
    }

    /// Answers nothing any more, or again.
    pub fn silence(&self, silent: bool) {
        self.zone.silent.store(silent, Ordering::SeqCst);
    }

    /// Answers every question with REFUSED, or not any more.
    pub fn refuse(&self, refusing: bool) {
        self.zone.refusing.store(refusing, Ordering::SeqCst);
    }

    /// How many questions came so far.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.zone.asked.load(Ordering::SeqCst)
    }
}

impl Zone {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Records>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let message = Message::from_vec(question).ok()?;
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.silent.load(Ordering::SeqCst) {
            return None;
        }
        let query = message.queries.first()?.clone();
        let mut response = Message::response(message.metadata.id, message.metadata.op_code);
        response.metadata.authoritative = true;
        response.add_query(query.clone());
        if self.refusing.load(Ordering::SeqCst) {
            response.metadata.response_code = ResponseCode::Refused;
            return response.to_vec().ok();
        }
        match self.lock().get(&query.name.to_string().to_lowercase()) {
            Some(records) => {
                response.add_answers(records.answers(&query.name, query.query_type));
            }
            None => response.metadata.response_code = ResponseCode::NXDomain,
        }
        response.to_vec().ok()
    }
}

async fn serve(socket: UdpSocket, zone: Arc<Zone>) {
    let mut buffer = [0; 4096];
    loop {
        // A peer that went away makes itself heard as an error of the next call.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        if let Some(answer) = buffer.get(..length).and_then(|question| zone.answer(question)) {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.address)
    }
}
