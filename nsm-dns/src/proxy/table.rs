//! Which servers are asked for which name.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_resolver::proto::rr::Name;
use nsm_api::connectioncontext::DnsConfig;

use super::view::View;

const PORT: u16 = 53;

/// One DNS configuration, as far as it can be used.
#[derive(Debug)]
pub(super) struct Source {
    view: View,
    domains: Vec<Name>,
    /// Whether it is asked for what nobody claims.
    takes_the_rest: bool,
}

/// Which servers are asked for which name. It does not change: with other configurations another one takes its place.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// By search domain, in lower case.
    claims: HashMap<Name, Vec<Arc<Source>>>,
    /// Who is asked for what nobody claims.
    others: Vec<Arc<Source>>,
    /// The search domains of connections, in their order.
    search: Vec<Name>,
    /// Those of the workload's own.
    own_search: Vec<Name>,
}

impl Source {
    /// Of a connection. What is no address and no name is passed over, and told.
    pub(super) fn of(owner: &Arc<str>, config: &DnsConfig, own: SocketAddr) -> Self {
        let servers = config.dns_server_ips.iter().filter_map(|text| {
            let server = server(text);
            if server.is_none() {
                tracing::warn!(%owner, "{text:?} is no address of a DNS server: it is passed over");
            }
            server
        });
        let domains = config.search_domains.iter().filter_map(|text| {
            let domain = domain(text);
            if domain.is_none() {
                tracing::warn!(%owner, "{text:?} is no search domain: it is passed over");
            }
            domain
        });
        let (roots, domains): (Vec<Name>, Vec<Name>) = domains.partition(Name::is_root);
        // Who names domains that cannot be used is not asked for all others instead.
        let takes_the_rest = config.search_domains.is_empty() || !roots.is_empty();
        Self { domains, takes_the_rest, ..Self::own(owner, servers, Vec::new(), own) }
    }

    /// Of the workload itself.
    pub(super) fn own(
        owner: &Arc<str>,
        servers: impl IntoIterator<Item = SocketAddr>,
        domains: Vec<Name>,
        own: SocketAddr,
    ) -> Self {
        let others = servers.into_iter().filter(|server| {
            let loops = is_own(*server, own);
            if loops {
                tracing::warn!(%owner, "the DNS server {server} is this proxy itself: it is not asked");
            }
            !loops
        });
        Self { view: View::new(Arc::clone(owner), others.collect()), domains, takes_the_rest: true }
    }

    pub(super) fn view(&self) -> &View {
        &self.view
    }
}

/// An address, with port 53 unless it says another.
pub(crate) fn server(text: &str) -> Option<SocketAddr> {
    let server = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT)).or_else(|_| text.parse());
    server.ok().filter(|server| !server.ip().is_unspecified() && !server.ip().is_multicast() && server.port() != 0)
}

/// A domain, complete and in lower case.
pub(crate) fn domain(text: &str) -> Option<Name> {
    let mut name = Name::from_utf8(text).ok().filter(|_| !text.is_empty())?.to_lowercase();
    name.set_fqdn(true);
    Some(name)
}

fn is_own(server: SocketAddr, own: SocketAddr) -> bool {
    let everywhere = own.ip().is_unspecified() && server.ip().is_loopback();
    server.port() == own.port() && (server.ip() == own.ip() || everywhere)
}

impl Table {
    /// With the configurations of connections, and the workload's own.
    pub(super) fn new(sources: impl IntoIterator<Item = Arc<Source>>, own: Arc<Source>) -> Self {
        let mut table = Self { own_search: own.domains.clone(), ..Self::default() };
        for source in sources {
            for domain in &source.domains {
                if !table.search.contains(domain) {
                    table.search.push(domain.clone());
                }
            }
            if source.view.is_empty() {
                continue;
            }
            if source.takes_the_rest {
                table.others.push(Arc::clone(&source));
            }
            for domain in &source.domains {
                table.claims.entry(domain.clone()).or_default().push(Arc::clone(&source));
            }
        }
        if !own.view.is_empty() {
            table.others.push(own);
        }
        table
    }

    /// Who is asked for this name: those with the longest search domain that it is under.
    pub(super) fn servers_of(&self, name: &Name) -> &[Arc<Source>] {
        self.claimed(name).unwrap_or(&self.others)
    }

    fn claimed(&self, name: &Name) -> Option<&[Arc<Source>]> {
        let labels = (1..=name.num_labels()).rev();
        labels.filter_map(|labels| self.claims.get(&name.trim_to(labels.into()))).map(Vec::as_slice).next()
    }

    /// Whether this is what a resolver makes of a claimed name on its way through the workload's own search list, as with
    /// `ndots:5`: asking others for it would tell them the name.
    pub(super) fn is_search_artefact(&self, name: &Name) -> bool {
        self.own_search.iter().any(|domain| {
            let above = usize::from(name.num_labels().saturating_sub(domain.num_labels()));
            let prefix = || Name::from_labels(name.iter().take(above)).ok();
            above > 0 && domain.zone_of(name) && prefix().is_some_and(|name| self.claimed(&name).is_some())
        }) && self.claimed(name).is_none()
    }

    /// What a name without dots may stand for, in the order in which it is preferred.
    pub(super) fn expanded(&self, name: &Name) -> Vec<Name> {
        self.search.iter().filter_map(|domain| name.clone().append_domain(domain).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 53);

    fn source(owner: &str, servers: &[&str], domains: &[&str]) -> Arc<Source> {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let config = DnsConfig { dns_server_ips: texts(servers), search_domains: texts(domains) };
        Arc::new(Source::of(&owner.into(), &config, OWN))
    }

    fn name(text: &str) -> Name {
        domain(text).unwrap()
    }

    /// The places of those asked, in this list; the last is the workload's own.
    fn asked(table: &Table, all: &[&Arc<Source>], text: &str) -> Vec<usize> {
        let servers = table.servers_of(&name(text)).iter();
        servers.map(|found| all.iter().position(|source| Arc::ptr_eq(source, found)).unwrap()).collect()
    }

    #[test]
    fn the_longest_search_domain_decides_and_the_rest_goes_to_those_without() {
        let wide = source("a", &["10.0.0.1"], &["my.domain", "other.domain."]);
        let narrow = source("b", &["10.0.0.2"], &["deep.MY.domain"]);
        let twin = source("c", &["10.0.0.3"], &["my.domain"]);
        let all = source("d", &["10.0.0.4"], &[]);
        let everything = source("e", &["10.0.0.5"], &["."]);
        let own = source("own", &["192.0.2.1"], &["cluster.local"]);
        let list = [&wide, &narrow, &twin, &all, &everything, &own];
        let table = Table::new(list[..5].iter().map(|source| Arc::clone(source)), Arc::clone(&own));
        for (name, who) in [
            ("web.my.domain", &[0, 2][..]),
            ("WEB.My.Domain.", &[0, 2]),
            ("my.domain", &[0, 2]),
            ("web.deep.my.domain", &[1]),
            ("other.domain", &[0]),
            ("notmy.domain", &[3, 4, 5]),
            ("example.org", &[3, 4, 5]),
            ("web.cluster.local", &[3, 4, 5]),
            (".", &[3, 4, 5]),
        ] {
            assert_eq!(asked(&table, &list, name), who, "{name}");
        }
    }

    #[test]
    fn a_claimed_name_is_not_told_to_others_by_way_of_a_search_list() {
        let table = Table::new(
            [source("a", &["10.0.0.1"], &["my.domain"])],
            source("own", &["192.0.2.1"], &["svc.cluster.local", "cluster.local"]),
        );
        for (text, artefact) in [
            ("web.my.domain.svc.cluster.local", true),
            ("web.my.domain.cluster.local", true),
            ("my.domain.cluster.local", true),
            ("web.svc.cluster.local", false),
            ("cluster.local", false),
            ("web.my.domain", false),
            ("web.my.domain.example.org", false),
        ] {
            assert_eq!(table.is_search_artefact(&name(text)), artefact, "{text}");
        }
    }

    #[test]
    fn a_name_without_dots_may_be_one_of_each_domain() {
        let sources = [source("a", &["10.0.0.1"], &["my.domain", "b"]), source("c", &[], &["b", "c.d"])];
        let table = Table::new(sources, source("own", &[], &[]));
        assert_eq!(table.expanded(&name("web")), ["web.my.domain", "web.b", "web.c.d"].map(name));
        let long = "a".repeat(63);
        let long = source("a", &["10.0.0.1"], &[&format!("{long}.{long}.{long}.{}", "b".repeat(60))]);
        assert_eq!(Table::new([long], source("own", &[], &[])).expanded(&name("web")), Vec::<Name>::new());
    }

    #[test]
    fn what_is_no_server_is_not_asked_nor_are_we_ourselves() {
        for bad in ["", "dns", "0.0.0.0", "::", "224.0.0.251", "10.0.0.1:0", "10.0.0"] {
            assert_eq!(server(bad), None, "{bad:?}");
        }
        assert_eq!(server("10.0.0.1"), Some("10.0.0.1:53".parse().unwrap()));
        assert_eq!(server("[2001:db8::1]:5353"), Some("[2001:db8::1]:5353".parse().unwrap()));
        assert!(source("a", &["127.0.0.1", "nonsense"], &[]).view.is_empty());
        assert!(!source("a", &["127.0.0.53", "127.0.0.1:54"], &[]).view.is_empty());
        let everywhere = "0.0.0.0:53".parse().unwrap();
        assert!(is_own("127.0.0.53:53".parse().unwrap(), everywhere));
    }

    #[test]
    fn what_is_no_domain_claims_nothing() {
        let long = "a".repeat(64);
        let table = Table::new([source("a", &["10.0.0.1"], &["a..b", &long, ""])], source("own", &[], &[]));
        assert!(table.claims.is_empty() && table.search.is_empty() && table.others.is_empty());
    }
}
