//! A DNS server for tests, with records that a test sets, and a program that asks.

mod ask;

pub use ask::{addresses, ask};
pub use hickory_resolver::proto::rr::RecordType;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{SOA, SRV, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::task::AbortOnDropHandle;

use crate::Place;

/// What fits into a datagram, in octets (RFC 1035, 4.2.1).
const LONGEST_DATAGRAM: usize = 512;

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
    _serving: [AbortOnDropHandle<()>; 2],
}

#[derive(Default)]
struct Zone {
    records: Mutex<HashMap<String, Records>>,
    silent: AtomicBool,
    refusing: AtomicBool,
    asked: AtomicUsize,
    by_stream: AtomicUsize,
}

/// The records of one name.
#[derive(Debug, Clone, Default)]
pub struct Records {
    srv: Vec<(u16, u16, u16, String)>,
    addresses: Vec<IpAddr>,
    texts: Vec<String>,
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

    /// A TXT record.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.texts.push(text.to_owned());
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
        let texts = self.texts.iter().map(|text| RData::TXT(TXT::new(vec![text.clone()])));
        let of_kind = services.chain(addresses).chain(texts).filter(|data| data.record_type() == kind);
        of_kind.map(|data| Record::from_rdata(name.clone(), self.ttl, data)).collect()
    }
}

impl Server {
    /// Listens on a free port of 127.0.0.1. It knows no names yet.
    ///
    /// # Errors
    /// When there is no port to be had.
    pub async fn start() -> io::Result<Self> {
        Self::listen(&Place::Here, (Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// Listens there, over UDP and TCP. Over UDP an answer has 512 octets at most.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn listen(place: &Place, address: SocketAddr) -> io::Result<Self> {
        let (socket, listener) = place.listeners(address).await?;
        let (address, zone) = (socket.local_addr()?, Arc::<Zone>::default());
        let datagrams = tokio::spawn(serve(socket, Arc::clone(&zone)));
        let streams = tokio::spawn(serve_streams(listener, Arc::clone(&zone)));
        Ok(Self { address, zone, _serving: [datagrams, streams].map(AbortOnDropHandle::new) })
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

    /// How many of them over TCP.
    #[must_use]
    pub fn asked_by_stream(&self) -> usize {
        self.zone.by_stream.load(Ordering::SeqCst)
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
        if response.answers.is_empty() {
            // That there is none may be kept for a minute.
            let root = Name::root();
            let soa = SOA::new(root.clone(), root.clone(), 1, 60, 60, 60, 60);
            response.add_authority(Record::from_rdata(root, 60, RData::SOA(soa)));
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
            let short = answer.len() <= LONGEST_DATAGRAM;
            let cut = || Message::from_vec(&answer).ok()?.truncate().to_vec().ok();
            let answer = if short { Some(answer) } else { cut() };
            let _ = socket.send_to(&answer.unwrap_or_default(), from).await;
        }
    }
}

async fn serve_streams(listener: TcpListener, zone: Arc<Zone>) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        let answered = async {
            let mut question = vec![0; stream.read_u16().await?.into()];
            stream.read_exact(&mut question).await?;
            zone.by_stream.fetch_add(1, Ordering::SeqCst);
            let Some(answer) = zone.answer(&question) else { return io::Result::Ok(()) };
            stream.write_u16(answer.len().try_into().unwrap_or(u16::MAX)).await?;
            stream.write_all(&answer).await
        };
        let _ = answered.await;
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.address)
    }
}
