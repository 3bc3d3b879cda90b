use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData};
use hickory_resolver::system_conf::read_system_conf;
use nsm_sdk::interdomain::{DomainResolver, ResolveError};

/// Finds domains by DNS.
///
/// For a service of a domain it asks for the SRV records of `<service>.<domain>` and takes the port of the first, by
/// priority, then by weight. The address is the first A record of that same name (so does the reference), or AAAA
/// record if it has none, or if it has neither, that of the SRV record's target (RFC 2782). Names are complete: no search
/// list is tried.
///
/// Answers are kept as long as their TTL allows, but for a minute at most, and that there is none for ten seconds at most;
/// a thousand of them.
#[derive(Clone)]
pub struct Dns {
    resolver: TokioResolver,
    servers: String,
    within: Duration,
}

/// DNS cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("the system says no DNS server that could be asked: {reason}; see /etc/resolv.conf, or name a server")]
pub struct DnsSetupError {
    /// What is wrong.
    pub reason: String,
}

/// One try to ask one server.
const TRY: Duration = Duration::from_secs(2);
/// All of a look-up, where nobody says otherwise.
const WITHIN: Duration = Duration::from_secs(5);
const KEPT: u64 = 1024;
const KEPT_FOR: Duration = Duration::from_secs(60);
const ABSENT_FOR: Duration = Duration::from_secs(10);

impl Dns {
    /// Asks the system's servers (`/etc/resolv.conf`), and its file of hosts.
    ///
    /// # Errors
    /// When the system names none.
    pub fn system() -> Result<Self, DnsSetupError> {
        let (config, options) = read_system_conf().map_err(setup)?;
        Self::built(config, options)
    }

    /// Asks these servers, over UDP, and over TCP where answers are long.
    ///
    /// # Errors
    /// When none is given.
    pub fn asking(servers: impl IntoIterator<Item = SocketAddr>) -> Result<Self, DnsSetupError> {
        let servers = servers.into_iter().map(|server| {
            let mut config = NameServerConfig::udp_and_tcp(server.ip());
            config.connections.iter_mut().for_each(|connection| connection.port = server.port());
            config
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        let mut options = ResolverOpts::default();
        options.use_hosts_file = ResolveHosts::Never;
        Self::built(config, options)
    }

    fn built(config: ResolverConfig, mut options: ResolverOpts) -> Result<Self, DnsSetupError> {
        let servers: Vec<String> = config.name_servers().iter().map(shown).collect();
        if servers.is_empty() {
            return Err(DnsSetupError { reason: "the list is empty".to_owned() });
        }
        limit(&mut options);
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let resolver = builder.with_options(options).build().map_err(setup)?;
        Ok(Self { resolver, servers: format!("the DNS server {}", servers.join(" or ")), within: WITHIN })
    }

    /// Gives a look-up this long (default: 5 s).
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.within = limit;
        self
    }

    async fn look_up(&self, name: &str) -> Result<String, ResolveError> {
        let malformed = |reason: String| ResolveError::Malformed { name: name.to_owned(), reason };
        let mut complete = Name::from_utf8(name).map_err(|error| malformed(error.to_string()))?;
        complete.set_fqdn(true);
        let first = self.first(&complete).await?;
        let address = match self.address(&complete).await {
            Err(ResolveError::NotFound { .. }) if first.target != complete && !first.target.is_root() => {
                self.address(&first.target).await?
            }
            found => found?,
        };
        Ok(format!("tcp://{}", SocketAddr::new(address, first.port)))
    }

    /// The SRV record to be tried first.
    async fn first(&self, name: &Name) -> Result<SRV, ResolveError> {
        let found = self.resolver.srv_lookup(name.clone()).await.map_err(|error| self.failed(name, "SRV", &error))?;
        let records = found.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(srv),
            _ => None,
        });
        let first = records.min_by_key(|srv| (srv.priority, std::cmp::Reverse(srv.weight)));
        first.cloned().ok_or_else(|| self.none(name, "SRV"))
    }

    async fn address(&self, name: &Name) -> Result<IpAddr, ResolveError> {
        let found = self.resolver.lookup_ip(name.clone()).await;
        let found = found.map_err(|error| self.failed(name, "A or AAAA", &error))?;
        found.iter().next().ok_or_else(|| self.none(name, "A or AAAA"))
    }

    fn none(&self, name: &Name, kind: &'static str) -> ResolveError {
        ResolveError::NotFound { name: name.to_string(), kind, server: self.servers.clone() }
    }

    fn failed(&self, name: &Name, kind: &'static str, error: &NetError) -> ResolveError {
        match error {
            NetError::Dns(DnsError::NoRecordsFound(_)) => self.none(name, kind),
            error => self.silent(&name.to_string(), error.to_string()),
        }
    }

    fn silent(&self, name: &str, reason: String) -> ResolveError {
        ResolveError::NoAnswer { name: name.to_owned(), server: self.servers.clone(), reason }
    }
}

fn limit(options: &mut ResolverOpts) {
    options.timeout = TRY;
    options.cache_size = KEPT;
    options.positive_max_ttl = Some(KEPT_FOR);
    options.negative_max_ttl = Some(ABSENT_FOR);
    options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
}

fn shown(server: &NameServerConfig) -> String {
    let port = server.connections.first().map_or(53, |connection| connection.port);
    SocketAddr::new(server.ip, port).to_string()
}

fn setup(error: NetError) -> DnsSetupError {
    DnsSetupError { reason: error.to_string() }
}

impl DomainResolver for Dns {
    fn resolve<'a>(&'a self, service: &'a str, domain: &'a str) -> BoxFuture<'a, Result<String, ResolveError>> {
        async move {
            let name = format!("{service}.{}", domain.trim_end_matches('.'));
            let found = tokio::time::timeout(self.within, self.look_up(&name)).await;
            found.unwrap_or_else(|_| Err(self.silent(&name, format!("nothing came within {:?}", self.within))))
        }
        .boxed()
    }
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dns({})", self.servers)
    }
}

#[cfg(test)]
mod tests {
    use nsm_sdk::interdomain::{MANAGER_PROXY, REGISTRY};

    use super::*;
    use crate::testing::{Records, Server};

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10));

    async fn asking(server: &Server) -> Dns {
        Dns::asking([server.address()]).unwrap().within(Duration::from_secs(3))
    }

    /// Three domains: `a.test` with an IPv4 registry, `b.test` with an IPv6 one and a manager proxy, `c.test` whose SRV
    /// record points to a host.
    async fn zones() -> Server {
        let server = Server::start().await.unwrap();
        server.set("registry.nsm-system.a.test.", Records::new().srv(5002, "elsewhere.test.").address(A));
        let v6 = "2001:db8::1".parse().unwrap();
        server.set("registry.nsm-system.b.test.", Records::new().srv(5003, "elsewhere.test.").address(v6));
        server.set("nsmgr-proxy.nsm-system.b.test.", Records::new().srv(5004, "elsewhere.test.").address(A));
        server.set("registry.nsm-system.c.test.", Records::new().srv(5005, "host.c.test."));
        server.set("host.c.test.", Records::new().address(A));
        server
    }

    #[tokio::test]
    async fn registries_and_proxies_are_found() {
        let server = zones().await;
        let dns = asking(&server).await;
        for (service, domain, url) in [
            (REGISTRY, "a.test", "tcp://192.0.2.10:5002"),
            (REGISTRY, "a.test.", "tcp://192.0.2.10:5002"),
            (REGISTRY, "b.test", "tcp://[2001:db8::1]:5003"),
            (MANAGER_PROXY, "b.test", "tcp://192.0.2.10:5004"),
            (REGISTRY, "c.test", "tcp://192.0.2.10:5005"),
        ] {
            assert_eq!(dns.resolve(service, domain).await.unwrap(), url, "{service} of {domain}");
        }
    }

    #[tokio::test]
    async fn the_first_record_is_that_of_the_lowest_priority_and_then_of_the_greatest_weight() {
        let server = Server::start().await.unwrap();
        let records = Records::new().weighing(1, 9, 1).weighing(0, 1, 2).weighing(0, 5, 3).address(A);
        server.set("registry.nsm-system.a.test.", records);
        assert_eq!(asking(&server).await.resolve(REGISTRY, "a.test").await.unwrap(), "tcp://192.0.2.10:3");
    }

    #[tokio::test]
    async fn what_is_not_there_is_told_from_what_nobody_answers() {
        let server = zones().await;
        let dns = asking(&server).await.within(Duration::from_millis(500));
        let error = dns.resolve(MANAGER_PROXY, "a.test").await.unwrap_err();
        assert!(error.is_not_found(), "{error}");
        let expected =
            format!("the DNS server {} has no SRV record of nsmgr-proxy.nsm-system.a.test.", server.address());
        assert_eq!(error.to_string(), expected);
        server.set("registry.nsm-system.d.test.", Records::new().srv(5002, "nowhere.test."));
        let error = dns.resolve(REGISTRY, "d.test").await.unwrap_err();
        assert!(error.to_string().contains("has no A or AAAA record of nowhere.test."), "{error}");
        server.silence(true);
        let error = dns.resolve(REGISTRY, "a.test").await.unwrap_err();
        assert!(matches!(error, ResolveError::NoAnswer { .. }) && error.to_string().contains("a.test"), "{error}");
        server.silence(false);
        server.refuse(true);
        let error = dns.resolve(REGISTRY, "a.test").await.unwrap_err();
        assert!(matches!(error, ResolveError::NoAnswer { .. }), "{error}");
    }

    #[tokio::test]
    async fn no_name_panics() {
        let server = zones().await;
        let dns = asking(&server).await;
        let long = "a".repeat(64);
        for domain in ["a..b", &long, &"a.".repeat(200), "\u{0}", "sp ace", "tcp://1.2.3.4:5", ".."] {
            let error = dns.resolve(REGISTRY, domain).await.unwrap_err();
            assert!(!matches!(error, ResolveError::NoAnswer { .. }), "{domain:?}: {error}");
        }
    }

    #[tokio::test]
    async fn answers_are_kept_for_their_ttl() {
        let server = Server::start().await.unwrap();
        let dns = asking(&server).await;
        let records = |ttl| Records::new().srv(5002, "x.test.").address(A).living(ttl);
        server.set("registry.nsm-system.kept.test.", records(3600));
        server.set("registry.nsm-system.new.test.", records(0));
        for _ in 0..3 {
            dns.resolve(REGISTRY, "kept.test").await.unwrap();
        }
        // SRV and A, each once.
        assert_eq!(server.asked(), 2);
        for _ in 0..2 {
            dns.resolve(REGISTRY, "new.test").await.unwrap();
        }
        assert_eq!(server.asked(), 2 + 2 * 2);
    }

    #[test]
    fn without_servers_there_is_nobody_to_ask() {
        let error = Dns::asking([]).unwrap_err();
        assert!(error.to_string().contains("the list is empty"), "{error}");
    }
}
