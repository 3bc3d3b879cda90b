//! Fixed DNS servers for a client.

use std::collections::BTreeSet;

use nsm_api::connectioncontext::DnsConfig;
use nsm_chain::{Call, Element, Next, Result};

use super::context;

/// Adds fixed DNS configurations to a Request, each unless one with the same servers and search domains is there.
/// A Close passes.
///
/// It stands in an endpoint, anywhere.
///
/// Reference: `connectioncontext/dnscontext` (server) of the Go SDK.
#[derive(Debug, Clone, Default)]
pub struct DnsConfigs(Vec<DnsConfig>);

impl DnsConfigs {
    /// These configurations.
    #[must_use]
    pub fn new(configs: Vec<DnsConfig>) -> Self {
        Self(configs)
    }
}

impl Element for DnsConfigs {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let configs = &mut context(call.connection_mut()).dns_context.get_or_insert_default().configs;
        for config in &self.0 {
            if !configs.iter().any(|other| same(other, config)) {
                configs.push(config.clone());
            }
        }
        next.request(call).await
    }
}

/// Order and repetition do not count.
fn same(one: &DnsConfig, other: &DnsConfig) -> bool {
    let set = |texts: &[String]| texts.iter().cloned().collect::<BTreeSet<_>>();
    set(&one.dns_server_ips) == set(&other.dns_server_ips) && set(&one.search_domains) == set(&other.search_domains)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Hop, connection, texts};
    use super::*;

    fn config(servers: &[&str], domains: &[&str]) -> DnsConfig {
        DnsConfig { dns_server_ips: texts(servers), search_domains: texts(domains) }
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_there_once_however_it_is_written() {
        let mine = vec![config(&["10.0.0.1", "10.0.0.2"], &["my.domain"]), config(&["10.0.0.3"], &[])];
        let hop = Hop::new(DnsConfigs::new(mine.clone()));
        let mut asked = connection("a");
        let theirs = config(&["10.0.0.2", "10.0.0.1"], &["my.domain"]);
        context(&mut asked).dns_context.get_or_insert_default().configs.push(theirs.clone());
        let answered = hop.request(asked).await.unwrap();
        assert_eq!(hop.request(answered.clone()).await.unwrap(), answered, "a refresh adds nothing");
        assert_eq!(answered.context.unwrap().dns_context.unwrap().configs, [theirs, mine[1].clone()]);
    }
}
