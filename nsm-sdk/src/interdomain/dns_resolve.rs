use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::Arc;

use futures::StreamExt;
use nsm_api::names;
use nsm_chain::{
    Call, Change, Element, Error, EventStream, Next, NextHop, Order, Record, Registry, Result, Slot, Watch,
};

use super::{DomainResolver, MANAGER_PROXY, REGISTRY, restore};

/// Asks the registry of the domain that a name says.
///
/// *Register*: finds that registry, takes the domain out of every name in the record, and leaves where the next hop is.
/// The answer has the names that were asked for again. *Unregister*: likewise, at the registry where it was registered.
/// *Find*: likewise; every name in what is found gets the domain. Where that domain has a manager proxy, endpoints get its
/// URL in place of their own: nobody outside reaches those. One without, a floating domain, keeps what is registered
/// there: URLs of other domains' proxies.
///
/// A domain that is itself a URL with an address and a port (`vpn@tcp://192.0.2.1:5002`) is that registry, and counts as
/// floating. It stands in a registry proxy, before `Connect`.
pub struct DnsResolve<R> {
    resolver: Arc<dyn DomainResolver>,
    registry: Arc<str>,
    proxy: Arc<str>,
    registered: Slot<NextHop>,
    records: PhantomData<fn() -> R>,
}

impl<R: Record> DnsResolve<R> {
    /// Finds registries and proxies under the names [`REGISTRY`] and [`MANAGER_PROXY`] in their domains.
    #[must_use]
    pub fn new(resolver: Arc<dyn DomainResolver>) -> Self {
        Self::named(resolver, REGISTRY, MANAGER_PROXY)
    }

    /// Finds them under other names.
    #[must_use]
    pub fn named(resolver: Arc<dyn DomainResolver>, registry: impl Into<Arc<str>>, proxy: impl Into<Arc<str>>) -> Self {
        let (registry, proxy) = (registry.into(), proxy.into());
        Self { resolver, registry, proxy, registered: Slot::new(), records: PhantomData }
    }

    async fn registry(&self, domain: &str) -> Result<NextHop> {
        if is_url(domain) {
            return Ok(NextHop(domain.into()));
        }
        let found = self.resolver.resolve(&self.registry, domain).await;
        found.map(|url| NextHop(url.into())).map_err(|error| error.about(&self.registry, domain))
    }

    /// The manager proxy of a domain; none: it is a floating one.
    async fn proxy(&self, domain: &str) -> Result<Option<String>> {
        if is_url(domain) {
            return Ok(None);
        }
        match self.resolver.resolve(&self.proxy, domain).await {
            Ok(url) => Ok(Some(url)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.about(&self.proxy, domain)),
        }
    }
}

/// The domain that a record says.
fn domain<R: Record>(record: &R) -> Result<String> {
    match record.domain() {
        Some(domain) if !domain.is_empty() => Ok(domain.to_owned()),
        _ => Err(Error::invalid(format!("the {} {:?} says no domain", R::WHAT, record.name()))
            .hint("write name@domain; names of this domain belong to its own registry")),
    }
}

/// Whether a domain is `scheme://address:port`.
fn is_url(domain: &str) -> bool {
    url::Url::parse(domain).is_ok_and(|url| {
        let host = url.host_str().map(|host| host.trim_matches(['[', ']']));
        url.port().is_some() && host.is_some_and(|host| host.parse::<IpAddr>().is_ok())
    })
}

fn strip<R: Record>(record: &mut R) {
    record.rename(|name| names::target(name).to_owned());
}

impl<R: Record> Element<Registry<R>> for DnsResolve<R> {
    async fn request(&self, mut call: Call<Registry<R>>, next: Next<'_, Registry<R>>) -> Result<Call<Registry<R>>> {
        let domain = domain(call.body())?;
        let registry = call.patiently(self.registry(&domain)).await??;
        let asked = call.share();
        strip(call.body_mut());
        call.set_fact(registry.clone());
        let mut call = next.request(call).await?;
        restore(call.body_mut(), &asked);
        if let Ok(state) = call.state() {
            self.registered.set(state, registry);
        }
        Ok(call)
    }

    async fn close(&self, mut call: Call<Registry<R>>, next: Next<'_, Registry<R>>) -> Result<Call<Registry<R>>> {
        let domain = domain(call.body())?;
        let registry = match call.slot(&self.registered) {
            Some(registry) => registry,
            None => call.patiently(self.registry(&domain)).await??,
        };
        let asked = call.share();
        strip(call.body_mut());
        call.set_fact(registry);
        let mut call = next.close(call).await?;
        call.set_body(asked);
        Ok(call)
    }

    async fn monitor(
        &self,
        mut watch: Watch<Registry<R>>,
        next: Next<'_, Registry<R>>,
    ) -> Result<EventStream<Registry<R>>> {
        let mut pattern = R::pattern(&watch.query).cloned().unwrap_or_default();
        let domain = domain(&pattern)?;
        watch.hop = Some(self.registry(&domain).await?);
        let proxy = match pattern.url_mut() {
            Some(_) => self.proxy(&domain).await?,
            None => None,
        };
        strip(&mut pattern);
        watch.query = R::query(pattern, R::watches(&watch.query));
        let found = next.monitor(watch).await?;
        let seen = move |change: Result<Change<R>>| {
            let mut change = change?;
            let record = Arc::make_mut(&mut change.record);
            record.rename(|name| names::join(name, &domain));
            if let (Some(proxy), Some(url)) = (&proxy, record.url_mut()) {
                url.clone_from(proxy);
            }
            Ok(change)
        };
        Ok(found.map(seen).boxed())
    }

    fn order(&self) -> Order {
        Order { before: &["Connect"], ..Order::ANYWHERE }
    }
}

impl<R> fmt::Debug for DnsResolve<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DnsResolve({}, {})", self.registry, self.proxy)
    }
}

#[cfg(test)]
mod tests;
