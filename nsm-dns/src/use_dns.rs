use std::sync::{Mutex, PoisonError};

use nsm_api::connectioncontext::DnsConfig;
use nsm_chain::{Call, Element, Next, Order, Result, Slot};

use crate::LocalDns;
use crate::local::Held;

/// Resolves names for a client's workload by the DNS servers that its endpoints name: hands the DNS configurations of each answer
/// to a [`LocalDns`], in place of those of the answer before. With a Close they count no more, before anything else ends.
/// While a connection is being healed they stay: its names are told to nobody else.
///
/// It stands in a client's stack, after `Begin`.
///
/// A connection is good without names: if they cannot be served, that is logged, and tried again with each refresh.
///
/// Reference: `connectioncontext/dnscontext` (client) of the Go SDK.
#[derive(Debug)]
pub struct UseDns {
    dns: LocalDns,
    held: Slot<Held>,
    told: Mutex<Option<String>>,
}

impl UseDns {
    /// Hands them to this one.
    #[must_use]
    pub fn new(dns: LocalDns) -> Self {
        Self { dns, held: Slot::new(), told: Mutex::default() }
    }

    async fn serve(&self) {
        let problem = self.dns.serve().await.err().map(|error| error.to_string());
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        // The same with each refresh would be no news.
        if let Some(problem) = problem.as_ref().filter(|problem| told.as_ref() != Some(problem)) {
            tracing::warn!("names of connections are not resolved: {problem}");
        }
        *told = problem;
    }
}

impl Element for UseDns {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        // The reference's endpoints add configurations only where there is room for them.
        let room = call.connection().context.as_ref().is_some_and(|context| context.dns_context.is_some());
        if !room {
            call.connection_mut().context.get_or_insert_default().dns_context.get_or_insert_default();
        }
        let call = next.request(call).await?;
        let state = call.state()?;
        let connection = call.connection();
        let context = connection.context.as_ref().and_then(|context| context.dns_context.as_ref());
        let configs: &[DnsConfig] = context.map_or(&[], |context| &context.configs);
        if configs.is_empty() {
            drop(self.held.take(state));
        } else {
            // Dropped once the new ones are there.
            let _former = self.held.set(state, self.dns.hold(&connection.id, configs));
        }
        self.serve().await;
        Ok(call)
    }

    async fn close(&self, call: Call, next: Next<'_>) -> Result<Call> {
        if let Ok(state) = call.state() {
            drop(self.held.take(state));
        }
        next.close(call).await
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use nsm_api::Connection;
    use nsm_chain::{Begin, Chain, Error, elements};

    use super::*;
    use crate::testing::{Records, Server, addresses};
    use crate::{Place, ResolvConf};

    /// An endpoint whose DNS configuration is what the labels `server` and `domain` say; with `fail` it fails.
    struct Endpoint;

    impl Element for Endpoint {
        async fn request(&self, mut call: Call, _next: Next<'_>) -> Result<Call> {
            let labels = call.connection().labels.clone();
            let dns = call.connection_mut().context.get_or_insert_default().dns_context.as_mut();
            let dns = dns.ok_or_else(|| Error::invalid("there is no room for DNS configurations"))?;
            if labels.contains_key("fail") {
                return Err(Error::unavailable("on purpose"));
            }
            dns.configs.clear();
            if let (Some(server), Some(domain)) = (labels.get("server"), labels.get("domain")) {
                let (servers, domains) = (vec![server.clone()], vec![domain.clone()]);
                dns.configs.push(DnsConfig { dns_server_ips: servers, search_domains: domains });
            }
            Ok(call)
        }

        async fn close(&self, call: Call, _next: Next<'_>) -> Result<Call> {
            Ok(call)
        }
    }

    fn asking(id: &str, labels: &[(&str, String)]) -> Call {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        Call::new(Connection { id: id.into(), labels, ..Default::default() })
    }

    fn no_file() -> ResolvConf {
        ResolvConf::at(PathBuf::from("/nonexistent/resolv.conf")).read_only()
    }

    #[tokio::test]
    async fn names_are_there_as_long_as_the_connection_that_brought_them() {
        let server = Server::start().await.unwrap();
        server.set("web.a.test.", Records::new().address("10.0.0.1".parse().unwrap()).living(60));
        let dns = LocalDns::new(Place::Here, "127.0.0.1:0".parse().unwrap(), no_file());
        let chain = Chain::new("nsc", elements![Begin::default(), UseDns::new(dns.clone()), Endpoint]).unwrap();
        chain.request(asking("plain", &[])).await.unwrap();
        assert_eq!(dns.address(), None, "nobody needs it yet");
        let labels = |domain: &str| [("server", server.address().to_string()), ("domain", domain.to_owned())];
        chain.request(asking("a", &labels("a.test"))).await.unwrap();
        let at = dns.address().unwrap();
        let found = async || addresses(at, "web.a.test.").await;
        assert_eq!(found().await.unwrap().len(), 1);
        let failing = [&labels("a.test")[..], &[("fail", String::new())]].concat();
        chain.request(asking("a", &failing)).await.unwrap_err();
        chain.request(asking("b", &failing)).await.unwrap_err();
        assert_eq!(found().await.unwrap().len(), 1, "a refresh that fails takes nothing");
        chain.request(asking("a", &labels("b.test"))).await.unwrap();
        found().await.unwrap_err();
        chain.request(asking("a", &labels("a.test"))).await.unwrap();
        assert_eq!(found().await.unwrap().len(), 1);
        chain.request(asking("a", &[])).await.unwrap();
        found().await.unwrap_err();
        chain.request(asking("a", &labels("a.test"))).await.unwrap();
        chain.close(asking("a", &[])).await.unwrap();
        found().await.unwrap_err();
        dns.close().unwrap();
        assert_eq!(dns.address(), None);
    }

    #[tokio::test]
    async fn a_connection_is_good_without_names() {
        // Nobody has this address.
        let dns = LocalDns::new(Place::Here, "192.0.2.1:53".parse().unwrap(), no_file());
        let element = UseDns::new(dns.clone());
        let held = dns.hold("a", &[DnsConfig::default()]);
        assert!(matches!(dns.serve().await, Err(crate::ServeError::Listen { .. })));
        drop(held);
        dns.serve().await.unwrap();
        let chain = Chain::new("nsc", elements![Begin::default(), element, Endpoint]).unwrap();
        let labels = [("server", "10.0.0.1".to_owned()), ("domain", "a.test".to_owned())];
        chain.request(asking("a", &labels)).await.unwrap();
    }
}
