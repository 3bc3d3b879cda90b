use std::sync::atomic::{AtomicUsize, Ordering};

use nsm_api::Connection;
use nsm_chain::{Begin, Chain, Code, NextHop, elements, from_fn};

use super::*;
use crate::registry::testing::{Hand, Nse, Probe, find, named, nse, register};
use crate::registry::{Endpoints, Memory};

const OWN: &str = "tcp://own:5004";

/// A manager proxy without sockets: `abroad` is what the registry proxy leads to.
struct Proxy {
    registry: Chain<Endpoints>,
    abroad: Chain<Endpoints>,
    local: Chain<Endpoints>,
    bypass: Arc<InterdomainBypass>,
    asked: Arc<AtomicUsize>,
}

/// Another hop, as it is asked: where, and under which names.
type Asked = (Option<String>, String, String);

impl Proxy {
    fn new() -> Self {
        let abroad = Chain::new("abroad", elements![Memory::default()]).unwrap();
        let local = Chain::new("local", elements![Memory::default()]).unwrap();
        let bypass = Arc::new(InterdomainBypass::new(OWN));
        let asked = Arc::new(Probe::default());
        let registry = elements![Begin::default(), Arc::clone(&bypass), asked, Hand(abroad.clone())];
        let registry = Chain::new("proxy", registry).unwrap();
        Self { registry, abroad, local, bypass, asked: Arc::default() }
    }

    /// The connection half. It answers with what the next hop was asked.
    fn requests(&self, domains: &[&str]) -> Chain {
        let none = || Chain::new("none", Vec::new()).unwrap();
        let (local, far) = (Finder::new(none(), self.local.clone()), Finder::new(none(), self.registry.clone()));
        let next = self.bypass.next_hop(Arc::new(local), Arc::new(far));
        let next = next.of_domains(domains.iter().map(|domain| (*domain).to_owned()));
        let asked = Arc::clone(&self.asked);
        let hop = from_fn(move |mut call: Call, _: nsm_chain::OwnedNext| {
            asked.fetch_add(1, Ordering::SeqCst);
            let url = call.fact::<NextHop>().map(|hop| hop.0.to_string());
            let connection = call.body_mut();
            if connection.network_service_endpoint_name.is_empty() {
                connection.network_service_endpoint_name = "chosen".into();
            }
            let seen = format!(
                "{} {} {}",
                url.clone().unwrap_or_default(),
                connection.network_service,
                connection.network_service_endpoint_name
            );
            connection.labels.insert("seen".into(), seen);
            async move {
                match url {
                    Some(url) if url.contains("dead") => Err(Error::unavailable("the test says so")),
                    _ => Ok(call),
                }
            }
        });
        Chain::new("proxy", elements![Begin::default(), next, hop]).unwrap()
    }
}

fn connection(service: &str, endpoint: &str) -> Connection {
    Connection {
        id: "c".into(),
        network_service: service.into(),
        network_service_endpoint_name: endpoint.into(),
        ..Default::default()
    }
}

/// What the next hop saw, and the names in the answer.
async fn ask(chain: &Chain, service: &str, endpoint: &str) -> Result<Asked> {
    let answer = chain.request(Call::new(connection(service, endpoint))).await?.into_body();
    Ok((answer.labels.get("seen").cloned(), answer.network_service, answer.network_service_endpoint_name))
}

fn at(name: &str, url: &str) -> Nse {
    Nse { url: url.into(), ..nse(name, &["vpn"]) }
}

fn saw(seen: &str, service: &str, endpoint: &str) -> Asked {
    (Some(seen.into()), service.into(), endpoint.into())
}

#[tokio::test(start_paused = true)]
async fn what_is_found_abroad_is_found_under_the_proxys_url_and_asked_for_at_its_own() {
    let proxy = Proxy::new();
    register(&proxy.abroad, at("nse@b", "tcp://b:5004")).await.unwrap();
    assert_eq!(find(&proxy.registry, named("nse@b")).await[0].url, OWN);
    let seen = ask(&proxy.requests(&[]), "vpn@b", "nse@b").await.unwrap();
    assert_eq!(seen, saw("tcp://b:5004 vpn@b nse@b", "vpn@b", "nse@b"));
}

#[tokio::test(start_paused = true)]
async fn what_registers_abroad_is_known_there_under_the_proxys_url_and_asked_for_at_its_manager() {
    let proxy = Proxy::new();
    for floating in [at("nse@c", "tcp://nsmgr:5001"), Nse { url: "tcp://nsmgr:5001".into(), ..nse("nse", &["vpn@c"]) }]
    {
        assert_eq!(register(&proxy.registry, floating.clone()).await.unwrap(), floating);
        assert_eq!(find(&proxy.abroad, named(&floating.name)).await[0].url, OWN);
        let requests = proxy.requests(&[]);
        assert_eq!(
            ask(&requests, "vpn@c", "nse@c").await.unwrap(),
            saw("tcp://nsmgr:5001 vpn@c nse@c", "vpn@c", "nse@c")
        );
        proxy.registry.close(Call::new(floating)).await.unwrap();
        assert_eq!(proxy.bypass.registered(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_of_this_domain_goes_in_without_the_domain_and_comes_back_with_it() {
    let proxy = Proxy::new();
    register(&proxy.local, nse("nse", &["vpn"])).await.unwrap();
    for domains in [&[][..], &["a"]] {
        let requests = proxy.requests(domains);
        assert_eq!(ask(&requests, "vpn@a", "nse@a").await.unwrap(), saw(" vpn nse", "vpn@a", "nse@a"));
        assert_eq!(
            requests.close(Call::new(connection("vpn@a", "nse@a"))).await.unwrap().body().network_service,
            "vpn@a"
        );
        assert_eq!(ask(&requests, "vpn@a", "").await.unwrap(), saw(" vpn chosen", "vpn@a", "chosen@a"));
    }
    // Found by going all the way round: under our own URL.
    register(&proxy.abroad, at("other@a", OWN)).await.unwrap();
    find(&proxy.registry, named("other@a")).await;
    assert_eq!(ask(&proxy.requests(&[]), "vpn@a", "other@a").await.unwrap(), saw(" vpn other", "vpn@a", "other@a"));
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_the_other_domain_is_asked_again() {
    let proxy = Proxy::new();
    register(&proxy.abroad, at("nse@b", "tcp://b:5004")).await.unwrap();
    let seen = ask(&proxy.requests(&[]), "vpn@b", "nse@b").await.unwrap();
    assert_eq!(seen, saw("tcp://b:5004 vpn@b nse@b", "vpn@b", "nse@b"));
    let error = ask(&proxy.requests(&[]), "vpn@b", "gone@b").await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.to_string().contains(r#"no endpoint "gone@b""#), "{error}");
    let error = ask(&proxy.requests(&[]), "vpn@b", "").await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_of_the_same_name_here_is_not_mistaken_for_the_other_domains() {
    let proxy = Proxy::new();
    register(&proxy.local, nse("nse", &["another"])).await.unwrap();
    register(&proxy.abroad, at("nse@b", "tcp://b:5004")).await.unwrap();
    let there = saw("tcp://b:5004 vpn@b nse@b", "vpn@b", "nse@b");
    assert_eq!(ask(&proxy.requests(&[]), "vpn@b", "nse@b").await.unwrap(), there);
    // Of the same service as well: whoever says which domain this is is safe.
    let proxy = Proxy::new();
    register(&proxy.local, nse("nse", &["vpn"])).await.unwrap();
    register(&proxy.abroad, at("nse@b", "tcp://b:5004")).await.unwrap();
    assert_eq!(ask(&proxy.requests(&["a"]), "vpn@b", "nse@b").await.unwrap(), there);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_moved_is_found_again() {
    let proxy = Proxy::new();
    register(&proxy.abroad, at("nse@b", "tcp://dead:5004")).await.unwrap();
    find(&proxy.registry, named("nse@b")).await;
    let requests = proxy.requests(&[]);
    assert_eq!(ask(&requests, "vpn@b", "nse@b").await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(proxy.asked.load(Ordering::SeqCst), 1, "nobody is asked twice at the same place");
    register(&proxy.abroad, at("nse@b", "tcp://b:5004")).await.unwrap();
    let seen = ask(&requests, "vpn@b", "nse@b").await.unwrap();
    assert_eq!(seen.0.unwrap(), "tcp://b:5004 vpn@b nse@b");
}

#[tokio::test(start_paused = true)]
async fn names_without_a_domain_are_none_of_its_business() {
    let proxy = Proxy::new();
    assert_eq!(ask(&proxy.requests(&[]), "vpn", "nse").await.unwrap(), saw(" vpn nse", "vpn", "nse"));
}

#[test]
fn what_was_found_is_bounded() {
    let bypass = InterdomainBypass::new(OWN);
    for number in 0..3 * FOUND {
        bypass.known.found(&format!("nse-{number}@b"), "tcp://b:5004");
    }
    let kept = (0..3 * FOUND).filter(|number| bypass.known.place(&format!("nse-{number}@b")).is_some()).count();
    assert!(kept <= 2 * FOUND, "{kept}");
    assert_eq!(bypass.known.place(&format!("nse-{}@b", 3 * FOUND - 1)), Some(Place::Abroad("tcp://b:5004".into())));
}
