use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures::StreamExt;
use nsm_api::mechanism::keys;
use nsm_api::{Mechanism, NetworkServiceEndpoint};
use nsm_chain::{Call, Change, Element, Error, EventStream, Next, Order, Result, Watch};

use super::next_hop::LeavesDomain;
use crate::files::{FileError, WatchedFile, texts};
use crate::registry::Endpoints;

/// Translates addresses between this domain and the outside, by a map in a file.
///
/// *Register*, *Unregister*, *Find*: the host of an endpoint's URL is replaced by what the map has for it, the port
/// stays; on the way back likewise, so that the map says both directions where both are wanted. What a Register asked
/// with comes back.
///
/// *Request* that leaves the domain: in mechanisms the source address, as it is inside, is kept in `orig_src_ip`, and
/// replaced by what the map has. The answer has it again. *Request* that came from another domain, which `orig_src_ip`
/// tells: in the answer the destination address is kept in `orig_dst_ip` and replaced. *Close* passes.
///
/// An address that is not in the map stays. The originals decide which side issues which VXLAN identifiers; they are
/// there for as long as the connection is between two domains, and never empty.
///
/// The file is YAML, one address for each address, and counts as it is ([`WatchedFile`]); one that is not there
/// translates nothing. It stands behind [`InterdomainNextHop`](super::InterdomainNextHop), and in the registry half
/// behind [`InterdomainBypass`](super::InterdomainBypass).
pub struct SwapIp(Arc<WatchedFile<Addresses>>);

#[derive(Default)]
struct Addresses(BTreeMap<IpAddr, IpAddr>);

impl SwapIp {
    /// Where the reference's manager proxy looks for it.
    pub const DEFAULT_PATH: &str = "map-ip.yaml";

    /// Translates by this file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(Arc::new(WatchedFile::new(path, parse)))
    }

    async fn map(&self) -> Result<Arc<Addresses>> {
        current(&self.0).await
    }
}

async fn current(file: &WatchedFile<Addresses>) -> Result<Arc<Addresses>> {
    file.current().await.map_err(|error| {
        Error::precondition(format!("the map of addresses in {}", file.path().display()))
            .because(error)
            .hint("make it YAML such as `172.18.0.2: 192.0.2.7`, or remove it")
    })
}

fn parse(text: &str) -> Result<Addresses, FileError> {
    let address =
        |text: &str| text.parse::<IpAddr>().map_err(|_| FileError::Malformed(format!("{text:?} is not an IP address")));
    texts(text)?.iter().map(|(from, to)| Ok((address(from)?, address(to)?))).collect::<Result<_, _>>().map(Addresses)
}

impl Addresses {
    /// The address in place of this one; none: it stays.
    fn instead_of(&self, text: &str) -> Option<String> {
        self.0.get(&text.parse::<IpAddr>().ok()?).map(ToString::to_string)
    }

    /// Replaces the host of a URL `scheme://address:port`.
    fn swap(&self, url: &mut String) {
        let Some((scheme, rest)) = url.split_once("://") else {
            return;
        };
        let Some((host, port)) = rest.rsplit_once(':') else {
            return;
        };
        if let Some(&address) = host.trim_matches(['[', ']']).parse().ok().and_then(|host: IpAddr| self.0.get(&host)) {
            *url = match address {
                IpAddr::V4(address) => format!("{scheme}://{address}:{port}"),
                IpAddr::V6(address) => format!("{scheme}://[{address}]:{port}"),
            };
        }
    }
}

impl Element<Endpoints> for SwapIp {
    async fn request(&self, mut call: Call<Endpoints>, next: Next<'_, Endpoints>) -> Result<Call<Endpoints>> {
        let map = self.map().await?;
        let url = call.body().url.clone();
        map.swap(&mut call.body_mut().url);
        let mut call = next.request(call).await?;
        call.body_mut().url = url;
        Ok(call)
    }

    async fn close(&self, mut call: Call<Endpoints>, next: Next<'_, Endpoints>) -> Result<Call<Endpoints>> {
        let url = call.body().url.clone();
        match self.map().await {
            Ok(map) => map.swap(&mut call.body_mut().url),
            // The registry goes by the name: the URL is not worth leaving the record there.
            Err(error) => tracing::warn!(%error, "unregistering with the inside URL"),
        }
        let mut call = next.close(call).await?;
        call.body_mut().url = url;
        Ok(call)
    }

    async fn monitor(&self, mut watch: Watch<Endpoints>, next: Next<'_, Endpoints>) -> Result<EventStream<Endpoints>> {
        let map = self.map().await?;
        if let Some(pattern) = &mut watch.query.network_service_endpoint {
            map.swap(&mut pattern.url);
        }
        let found = next.monitor(watch).await?;
        let file = Arc::clone(&self.0);
        // A watch may last for days: each change is seen by the map as it is then.
        let seen = move |change: Result<Change<NetworkServiceEndpoint>>| {
            let file = Arc::clone(&file);
            async move {
                let (mut change, map) = (change?, current(&file).await?);
                map.swap(&mut Arc::make_mut(&mut change.record).url);
                Ok(change)
            }
        };
        Ok(found.then(seen).boxed())
    }
}

/// Works on the call's mechanisms: the one agreed on, and the preferences.
fn each(call: &mut Call, mut work: impl FnMut(&mut Mechanism)) {
    if call.body().mechanism.is_some() {
        call.body_mut().mechanism.iter_mut().for_each(&mut work);
    }
    call.extra_mut().iter_mut().for_each(work);
}

/// Keeps the address under one key, as it is, under another, and replaces it.
fn put_aside(mechanism: &mut Mechanism, address: &str, original: &'static str, map: &Addresses) {
    let Some(inside) = mechanism.parameter(address).map(str::to_owned) else {
        return;
    };
    if let Some(outside) = map.instead_of(&inside) {
        mechanism.parameters.insert(address.to_owned(), outside);
    }
    mechanism.parameters.insert(original.to_owned(), inside);
}

impl Element for SwapIp {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let mut mechanisms = call.body().mechanism.iter().chain(call.preferences());
        if mechanisms.any(|mechanism| mechanism.parameter(keys::ORIG_SRC_IP).is_some()) {
            let map = self.map().await?;
            each(&mut call, |mechanism| {
                // What we said about ourselves last time is for the caller: here it is said afresh.
                mechanism.parameters.remove(keys::DST_IP);
                mechanism.parameters.remove(keys::ORIG_DST_IP);
            });
            let mut call = next.request(call).await?;
            if let Some(mechanism) = &mut call.body_mut().mechanism {
                put_aside(mechanism, keys::DST_IP, keys::ORIG_DST_IP, &map);
            }
            return Ok(call);
        }
        if call.fact::<LeavesDomain>().is_none() {
            return next.request(call).await;
        }
        let map = self.map().await?;
        let preferences = call.preferences().to_vec();
        each(&mut call, |mechanism| put_aside(mechanism, keys::SRC_IP, keys::ORIG_SRC_IP, &map));
        let mut call = next.request(call).await?;
        if let Some(mechanism) = &mut call.body_mut().mechanism
            && let Some(inside) = mechanism.parameters.remove(keys::ORIG_SRC_IP).filter(|text| !text.is_empty())
        {
            mechanism.parameters.insert(keys::SRC_IP.to_owned(), inside);
        }
        *call.extra_mut() = preferences;
        Ok(call)
    }

    fn order(&self) -> Order {
        Order { before: &["Connect"], ..Order::ANYWHERE }
    }
}

impl Clone for SwapIp {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl fmt::Debug for SwapIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SwapIp({})", self.0.path().display())
    }
}

#[cfg(test)]
mod tests;
