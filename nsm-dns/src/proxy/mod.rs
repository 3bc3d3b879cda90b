//! A DNS proxy for one workload: names of its connections are asked of the servers that their endpoints name, all others of
//! the servers that the workload had.

mod answer;
mod cache;
mod counters;
mod exchange;
mod place;
mod question;
mod resolve;
mod serve;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use nsm_api::connectioncontext::DnsConfig;
use tokio_util::task::AbortOnDropHandle;

pub use counters::Counted;
pub use place::Place;

use crate::resolv_conf::Settings;
use answer::{Worth, worth};
use exchange::Asking;
use question::{Asked, Question, Rejected};
use table::{Source, Table};
pub(crate) use table::{domain, server};

/// Answers the DNS questions of one workload, over UDP and TCP, while it lives.
///
/// # Who is asked
/// - A name under a search domain of a connection: the servers that came with that domain, and nobody else. Of several such
///   domains the longest decides; connections with the same domain are all asked.
/// - Any other name: the workload's own servers, and those of connections that name no search domain.
/// - A name without dots, of which an address is wanted: it is tried under each search domain of a connection, all at once, and
///   as it is; the first in that order that is there counts.
/// - `localhost` and names under it are this machine (RFC 6761, 6.3).
///
/// So neither learns names of the other. Nor does it by way of a resolver's search list: `web.my.domain.cluster.local`, where
/// `my.domain` is a connection's and `cluster.local` the workload's own, is not there, and nobody is asked.
///
/// # Which answer counts
/// Servers of one configuration are taken to know the same: all are asked at once, and the first that knows whether the name is
/// there is believed. Different configurations know different things: the first with records is believed; that there are none,
/// when all have said so, or a second after the first has.
///
/// A long answer is asked for again over TCP. Every question ends within 5 s. Answers are kept as long as their records may be,
/// 1024 for each configuration, and never longer than that configuration is there.
///
/// ```
/// # use nsm_dns::testing::{Records, Server};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use nsm_api::connectioncontext::DnsConfig;
/// use nsm_dns::{Place, Proxy};
///
/// let there = Server::start().await?;
/// there.set("web.my.domain.", Records::new().address("10.0.0.1".parse()?));
///
/// let proxy = Proxy::listen(Place::Here, "127.0.0.1:0".parse()?).await?;
/// let servers = vec![there.address().to_string()];
/// proxy.set("nsc-0", &[DnsConfig { dns_server_ips: servers, search_domains: vec!["my.domain".into()] }]);
///
/// let found = nsm_dns::testing::addresses(proxy.address(), "web.my.domain.").await?;
/// assert_eq!(found, ["10.0.0.1".parse::<std::net::IpAddr>()?]);
/// # Ok(()) }
/// ```
pub struct Proxy {
    inner: Arc<Inner>,
    address: SocketAddr,
    _serving: [AbortOnDropHandle<()>; 2],
}

pub(super) struct Inner {
    asking: Asking,
    table: RwLock<Arc<Table>>,
    sources: Mutex<Sources>,
    /// How often each question is being asked at this moment.
    alike: Mutex<HashMap<Question, usize>>,
}

/// What the table is made of.
struct Sources {
    own: Arc<Source>,
    own_settings: Settings,
    connections: BTreeMap<Arc<str>, Brought>,
}

/// What one connection brought.
struct Brought {
    configs: Vec<DnsConfig>,
    sources: Vec<Arc<Source>>,
}

/// How a question came.
#[derive(Debug, Clone, Copy)]
enum Over {
    Datagrams,
    Stream,
}

impl Proxy {
    /// Listens at this address, over UDP and TCP; port 0 is any free one. It has nobody to ask yet.
    ///
    /// # Errors
    /// When the address is not of that place, the port is taken, or privileges are missing (CAP_NET_BIND_SERVICE).
    pub async fn listen(place: Place, address: SocketAddr) -> io::Result<Self> {
        let (udp, tcp) = place.listeners(address).await?;
        let address = udp.local_addr()?;
        let own = Arc::new(Source::own(&"own".into(), [], Vec::new(), address));
        let inner = Arc::new(Inner {
            asking: Asking::from(place),
            table: RwLock::default(),
            sources: Mutex::new(Sources { own, own_settings: Settings::default(), connections: BTreeMap::new() }),
            alike: Mutex::default(),
        });
        let serving = [
            tokio::spawn(serve::datagrams(Arc::clone(&inner), udp)),
            tokio::spawn(serve::streams(Arc::clone(&inner), tcp)),
        ];
        Ok(Self { inner, address, _serving: serving.map(AbortOnDropHandle::new) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The workload's own servers, and its search list, as a resolver's settings say them: those it had before.
    pub(crate) fn set_own(&self, settings: Settings) {
        if self.inner.sources().own_settings == settings {
            return;
        }
        let Settings { servers, search } = settings.clone();
        let own = Arc::new(Source::own(&"own".into(), servers, search, self.address));
        self.inner.change(|sources| (sources.own, sources.own_settings) = (own, settings));
    }

    /// The workload's own servers: they are asked for all names that no connection claims.
    pub fn set_own_servers(&self, servers: impl IntoIterator<Item = SocketAddr>) {
        self.set_own(Settings { servers: servers.into_iter().collect(), search: Vec::new() });
    }

    /// The configurations of one connection, in place of those it had. Questions that are under way end as they began.
    pub fn set(&self, connection: &str, configs: &[DnsConfig]) {
        let same =
            |sources: &Sources| sources.connections.get(connection).is_some_and(|known| known.configs == configs);
        // What was kept of unchanged servers stays.
        if same(&self.inner.sources()) {
            return;
        }
        let owner: Arc<str> = connection.into();
        let made = configs.iter().map(|config| Arc::new(Source::of(&owner, config, self.address))).collect();
        let brought = Brought { configs: configs.to_vec(), sources: made };
        self.inner.change(|sources| drop(sources.connections.insert(owner, brought)));
    }

    /// A connection is no more.
    pub fn remove(&self, connection: &str) {
        self.inner.change(|sources| drop(sources.connections.remove(connection)));
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self, what: Counted) -> u64 {
        self.inner.asking.counters.of(what)
    }
}

impl Inner {
    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Sources)) {
        let mut sources = self.sources();
        change(&mut sources);
        let all = sources.connections.values().flat_map(|brought| &brought.sources);
        let table = Arc::new(Table::new(all.map(Arc::clone), Arc::clone(&sources.own)));
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The answer to what came, if it is owed one.
    async fn reply(&self, octets: &[u8], from: SocketAddr, over: Over) -> Option<Vec<u8>> {
        let asked = match Asked::read(octets) {
            Ok(asked) => asked,
            Err(rejected) => {
                self.asking.counters.count(Counted::Malformed);
                return match rejected {
                    Rejected::Dropped => None,
                    Rejected::Answered(answer) => answer.to_vec().ok(),
                };
            }
        };
        self.asking.counters.count(Counted::Questions);
        let said = if self.asking.is_ours(from) { self.looped() } else { self.resolve(&asked.question).await };
        if worth(&said) == Worth::Failed {
            self.asking.counters.count(Counted::Failed);
        }
        let answer = asked.answer(said);
        match over {
            Over::Datagrams => asked.datagram(&answer),
            Over::Stream => answer.to_vec().ok(),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({})", self.address)
    }
}
