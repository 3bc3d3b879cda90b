use std::collections::BTreeMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use nsm_chain::{Begin, Chain, Code, elements};

use super::*;
use crate::connect::{Connect, InProcess};
use crate::interdomain::ResolveError;
use crate::registry::testing::{Nse, find, named, nse, of_service, register, service, text};
use crate::registry::{Endpoints, Memory, Services};

/// Domains by a table: `registry.nsm-system.b` is `mem://registry-b`.
#[derive(Default)]
struct Zone(BTreeMap<&'static str, &'static str>);

impl DomainResolver for Zone {
    fn resolve<'a>(&'a self, service: &'a str, domain: &'a str) -> BoxFuture<'a, Result<String, ResolveError>> {
        let name = format!("{service}.{domain}");
        let found = match self.0.get(name.as_str()) {
            Some(&"lost") => {
                Err(ResolveError::NoAnswer { name, server: "the zone".into(), reason: "the test says so".into() })
            }
            Some(url) => Ok((*url).to_owned()),
            None => Err(ResolveError::NotFound { name, kind: "SRV", server: "the zone".into() }),
        };
        async move { found }.boxed()
    }
}

/// Domain `b` with a manager proxy, `c` without one, `lost` whose manager proxy nobody can tell.
fn zone() -> Arc<dyn DomainResolver> {
    Arc::new(Zone(BTreeMap::from([
        ("registry.nsm-system.b", "mem://registry-b"),
        ("nsmgr-proxy.nsm-system.b", "tcp://proxy-b:5004"),
        ("registry.nsm-system.c", "mem://registry-b"),
        ("registry.nsm-system.lost", "mem://registry-b"),
        ("nsmgr-proxy.nsm-system.lost", "lost"),
    ])))
}

/// The registry of another domain, and a proxy to it.
fn domain() -> (Chain<Endpoints>, Chain<Endpoints>) {
    let hops = InProcess::<Endpoints>::default();
    let there = Chain::new("registry-b", elements![Memory::default()]).unwrap();
    hops.serve("mem://registry-b", there.clone());
    hops.serve("mem://192.0.2.1:5002", there.clone());
    let proxy = elements![Begin::default(), DnsResolve::new(zone()), Connect::new(hops.links())];
    (there, Chain::new("registry-proxy", proxy).unwrap())
}

fn labelled(name: &str, services: &[&str]) -> Nse {
    let mut nse = nse(name, services);
    nse.network_service_labels = services.iter().map(|service| ((*service).to_owned(), Default::default())).collect();
    nse
}

#[tokio::test(start_paused = true)]
async fn the_other_registry_never_sees_the_domain_and_the_caller_never_misses_it() {
    let (there, proxy) = domain();
    for asked in [labelled("nse@b", &["vpn"]), labelled("nse", &["vpn@b", "dns"])] {
        assert_eq!(register(&proxy, asked.clone()).await.unwrap(), asked);
        assert_eq!(find(&there, named("")).await[0].full_name(), "nse");
        proxy.close(Call::new(asked)).await.unwrap();
        assert!(find(&there, named("")).await.is_empty());
    }
    register(&there, labelled("nse", &["vpn"])).await.unwrap();
    let found = &find(&proxy, of_service("vpn@b")).await[0];
    assert_eq!(**found, Nse { url: "tcp://proxy-b:5004".into(), ..labelled("nse@b", &["vpn@b"]) });
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_under_full_names() {
    let (there, proxy) = domain();
    let mut changes = proxy.monitor(Watch::new(Nse::query(of_service("vpn@b"), true))).await.unwrap();
    register(&there, nse("nse", &["vpn"])).await.unwrap();
    assert_eq!(text(&changes.next().await.unwrap().unwrap()), "nse@b");
    there.close(Call::new(nse("nse", &["vpn"]))).await.unwrap();
    assert_eq!(text(&changes.next().await.unwrap().unwrap()), "-nse@b");
}

#[tokio::test(start_paused = true)]
async fn a_domain_without_a_manager_proxy_says_where_its_endpoints_are() {
    let (there, proxy) = domain();
    register(&there, nse("nse", &["vpn"])).await.unwrap();
    assert_eq!(find(&proxy, named("nse@c")).await[0].url, "unix:///nse");
    let found = find(&proxy, named("nse@mem://192.0.2.1:5002")).await;
    assert_eq!(found[0].name, "nse@mem://192.0.2.1:5002");
    // It may have one that is out of sight for now: to say that it has none would send callers astray.
    let error = proxy.monitor(Watch::new(Nse::query(named("nse@lost"), false))).await.err().unwrap();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.to_string().contains("nsmgr-proxy.nsm-system"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_found_is_said() {
    let (_, proxy) = domain();
    let error = register(&proxy, nse("nse@nowhere", &[])).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.to_string().contains("the zone has no SRV record of registry.nsm-system.nowhere"), "{error}");
    for without in ["nse", "nse@"] {
        assert_eq!(register(&proxy, nse(without, &[])).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let everything = proxy.monitor(Watch::new(Default::default())).await;
    assert_eq!(everything.err().unwrap().code(), Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn network_services_go_the_same_way() {
    let hops = InProcess::<Services>::default();
    let there = Chain::new("registry-b", vec![nsm_chain::Node::new(Memory::default())]).unwrap();
    hops.serve("mem://registry-b", there.clone());
    let proxy = vec![nsm_chain::Node::new(DnsResolve::new(zone())), nsm_chain::Node::new(Connect::new(hops.links()))];
    let proxy = Chain::new("registry-proxy", proxy).unwrap();
    assert_eq!(register(&proxy, service("vpn@b")).await.unwrap(), service("vpn@b"));
    let found = |chain: Chain<Services>, name: &'static str| async move {
        let query = nsm_api::NetworkService::query(service(name), false);
        let found = chain.monitor(Watch::new(query)).await.unwrap();
        found.map(|change| change.unwrap().record.name.clone()).collect::<Vec<_>>().await
    };
    assert_eq!(found(there, "vpn").await, ["vpn"]);
    assert_eq!(found(proxy, "vpn@b").await, ["vpn@b"]);
}
