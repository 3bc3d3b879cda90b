//! The DNS of one workload: a proxy, and the file that leads programs to it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nsm_api::connectioncontext::DnsConfig;

use crate::proxy::{Counted, Place, Proxy};
use crate::resolv_conf::{FileError, ResolvConf, TakenOver};

/// The DNS of one workload, as long as connections of it name DNS servers.
///
/// With the first such connection a [`Proxy`] begins to listen, and the workload's [`ResolvConf`] names it; when no connection
/// names servers any more, the file becomes what it was. The proxy goes on for programs that have read the file before, until
/// the last clone of this is dropped. Where no connection ever names a server, nothing is listened to and nothing is written.
#[derive(Clone)]
pub struct LocalDns(Arc<Inner>);

struct Inner {
    place: Place,
    address: SocketAddr,
    file: ResolvConf,
    state: Mutex<State>,
    /// One at a time begins to listen.
    starting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    connections: BTreeMap<String, (u64, Vec<DnsConfig>)>,
    holds: u64,
    /// Before the proxy: dropped in this order, no program is led to nobody.
    taken: Option<TakenOver>,
    proxy: Option<Proxy>,
    /// It was said that somebody else has written the file.
    edited: bool,
    closed: bool,
}

/// Why names of connections are not resolved for programs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The proxy cannot listen.
    #[error("the DNS proxy cannot listen at {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// It listens, and programs cannot be led to it.
    #[error("the DNS proxy listens, and programs do not ask it: {0}")]
    File(#[from] FileError),
}

/// The DNS configurations of one connection; dropped, they count no more.
#[derive(Debug)]
pub(crate) struct Held {
    dns: LocalDns,
    connection: String,
    number: u64,
}

impl LocalDns {
    /// A proxy that listens there at this address when it is needed, and this file. Files can only name servers at port 53: with
    /// another one it is not written.
    #[must_use]
    pub fn new(place: Place, address: SocketAddr, file: ResolvConf) -> Self {
        let (state, starting) = Default::default();
        Self(Arc::new(Inner { place, address, file, state, starting }))
    }

    /// How many of its questions there were; none before it listens.
    #[must_use]
    pub fn count(&self, what: Counted) -> u64 {
        self.state().proxy.as_ref().map_or(0, |proxy| proxy.count(what))
    }

    /// Where it listens, if it does.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.state().proxy.as_ref().map(Proxy::address)
    }

    /// Makes the file what it was, and listens no more, for good.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn close(&self) -> Result<(), FileError> {
        let ended = State { closed: true, ..State::default() };
        let State { taken, proxy, .. } = std::mem::replace(&mut *self.state(), ended);
        let restored = taken.map_or(Ok(()), TakenOver::restore);
        drop(proxy);
        restored
    }

    /// These are the configurations of that connection, in place of those it had.
    pub(crate) fn hold(&self, connection: &str, configs: &[DnsConfig]) -> Held {
        let mut state = self.state();
        state.holds += 1;
        let number = state.holds;
        state.connections.insert(connection.to_owned(), (number, configs.to_vec()));
        if let Some(proxy) = &state.proxy {
            proxy.set(connection, configs);
        }
        Held { dns: self.clone(), connection: connection.to_owned(), number }
    }

    /// Sees to it that what is held is served, and that programs are led to it.
    ///
    /// # Errors
    /// [`ServeError`]. It is tried again with the next call.
    pub(crate) async fn serve(&self) -> Result<(), ServeError> {
        let _one = self.0.starting.lock().await;
        if self.is_idle() {
            return Ok(());
        }
        if self.address().is_none() {
            let Inner { place, address, .. } = &*self.0;
            let listening = Proxy::listen(place.clone(), *address).await;
            let proxy = listening.map_err(|error| ServeError::Listen { address: *address, error })?;
            let mut state = self.state();
            if state.closed {
                return Ok(());
            }
            for (connection, (_, configs)) in &state.connections {
                proxy.set(connection, configs);
            }
            tracing::info!(address = %proxy.address(), "the DNS proxy listens");
            if !self.0.file.is_writable() {
                let path = self.0.file.path().display();
                tracing::warn!(%path, "programs of other network namespaces read it too: it is not made to name the DNS proxy");
            }
            state.proxy = Some(proxy);
        }
        self.lead()
    }

    /// Leads programs to the proxy.
    fn lead(&self) -> Result<(), ServeError> {
        let file = &self.0.file;
        let mut guard = self.state();
        let state = &mut *guard;
        let Some(proxy) = &state.proxy else { return Ok(()) };
        if let Some(taken) = &state.taken {
            if !taken.is_untouched() && !std::mem::replace(&mut state.edited, true) {
                let path = file.path().display();
                tracing::warn!(%path, "somebody else has written it: it stays so, and programs may not ask the DNS proxy");
            }
            return Ok(());
        }
        proxy.set_own(file.settings()?);
        // All of them may have gone meanwhile.
        if file.is_writable() && proxy.address().port() == 53 && !state.connections.is_empty() {
            state.taken = Some(file.take_over(named(proxy.address().ip()))?);
            state.edited = false;
        }
        Ok(())
    }

    fn is_idle(&self) -> bool {
        let state = self.state();
        state.closed || state.connections.is_empty()
    }

    fn release(&self, connection: &str, number: u64) {
        let mut state = self.state();
        // Another one may have taken its place.
        if state.connections.get(connection).is_none_or(|(held, _)| *held != number) {
            return;
        }
        state.connections.remove(connection);
        if let Some(proxy) = &state.proxy {
            proxy.remove(connection);
        }
        if state.connections.is_empty()
            && let Some(Err(error)) = state.taken.take().map(TakenOver::restore)
        {
            tracing::error!(%error, "the DNS settings are not what they were");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.dns.release(&self.connection, self.number);
    }
}

/// How programs of this machine reach it.
fn named(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

impl fmt::Debug for LocalDns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalDns({}, {})", self.0.address, self.0.file.path().display())
    }
}
