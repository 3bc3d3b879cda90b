use nsm_api::Connection;
use nsm_api::mechanism::VniParity;
use nsm_chain::{Chain, Node, elements, from_fn};
use std::sync::Mutex;

use super::*;
use crate::files::testing::Scratch;
use crate::registry::testing::{Hand, Nse, find, named, nse, register};
use crate::registry::{Endpoints, Memory};

const INSIDE: &str = "10.0.0.1";
const OUTSIDE: &str = "192.0.2.1";

fn mapped() -> (Scratch, SwapIp) {
    let scratch = Scratch::holding(&format!("{INSIDE}: {OUTSIDE}\n{OUTSIDE}: {INSIDE}\n'::1': 2001:db8::1\n"));
    let swap = SwapIp::new(scratch.file());
    (scratch, swap)
}

fn at(name: &str, url: &str) -> Nse {
    Nse { url: url.into(), ..nse(name, &[]) }
}

#[tokio::test(start_paused = true)]
async fn urls_leave_with_the_outside_address_and_come_in_with_the_inside_one() {
    let (_scratch, swap) = mapped();
    let there = Chain::new("there", elements![Memory::default()]).unwrap();
    let proxy = Chain::<Endpoints>::new("proxy", vec![Node::new(swap), Node::new(Hand(there.clone()))]).unwrap();
    for (inside, outside) in [
        ("tcp://10.0.0.1:5004", "tcp://192.0.2.1:5004"),
        ("tcp://[::1]:5004", "tcp://[2001:db8::1]:5004"),
        ("tcp://10.0.0.9:5004", "tcp://10.0.0.9:5004"),
        ("tcp://nsmgr:5004", "tcp://nsmgr:5004"),
        ("unix:///nsm.sock", "unix:///nsm.sock"),
        ("", ""),
    ] {
        assert_eq!(register(&proxy, at("nse", inside)).await.unwrap().url, inside);
        assert_eq!(find(&there, named("nse")).await[0].url, outside);
    }
    register(&there, at("nse", "tcp://192.0.2.1:5004")).await.unwrap();
    assert_eq!(find(&proxy, named("nse")).await[0].url, "tcp://10.0.0.1:5004");
    proxy.close(Call::new(at("nse", ""))).await.unwrap();
    assert!(find(&there, named("")).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_map_that_is_none_is_said() {
    let scratch = Scratch::holding("10.0.0.1: somewhere");
    let swap = Chain::<Endpoints>::new("proxy", vec![Node::new(SwapIp::new(scratch.file()))]).unwrap();
    let error = register(&swap, at("nse", "")).await.unwrap_err();
    assert!(error.to_string().contains(r#""somewhere" is not an IP address"#), "{error}");
}

/// Marks what a way out of the domain leaves.
fn leaving() -> Node {
    Node::new(from_fn(|mut call: Call, next: nsm_chain::OwnedNext| async move {
        call.set_fact(LeavesDomain);
        next.request(call).await
    }))
}

fn vxlan(parameters: &[(&str, &str)]) -> Mechanism {
    let mut mechanism = Mechanism::vxlan();
    for (key, value) in parameters {
        mechanism.parameters.insert((*key).into(), (*value).into());
    }
    mechanism
}

type Seen = Arc<Mutex<Vec<VniParity>>>;

/// A forwarder at this address: it completes what it is offered, and notes which identifiers it may issue.
fn forwarder(address: &'static str, parities: &Seen) -> Node {
    let parities = Arc::clone(parities);
    Node::new(from_fn(move |mut call: Call, _: nsm_chain::OwnedNext| {
        let offered = call.body().mechanism.clone().unwrap_or_else(|| call.preferences()[0].clone());
        let mut mechanism = offered;
        mechanism.parameters.insert("dst_ip".into(), address.into());
        parities.lock().unwrap().push(mechanism.as_vxlan().unwrap().vni_parity().unwrap());
        call.body_mut().mechanism = Some(mechanism);
        async move { Ok(call) }
    }))
}

/// Two proxies, one in each domain, and a forwarder behind the second.
fn domains(here: SwapIp, there: SwapIp, address: &'static str, parities: &Seen) -> Chain {
    Chain::new(
        "proxies",
        vec![leaving(), Node::new(here), Node::new(Forget), Node::new(there), forwarder(address, parities)],
    )
    .unwrap()
}

/// What one proxy knows of a call does not cross to the next.
struct Forget;

impl Element for Forget {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        call.clear_fact::<LeavesDomain>();
        next.request(call).await
    }
}

async fn ask(chain: &Chain, mechanism: Option<Mechanism>, preferences: Vec<Mechanism>) -> (Mechanism, Vec<Mechanism>) {
    let connection = Connection { id: "c".into(), mechanism, ..Default::default() };
    let call = chain.request(Call::request(connection, preferences)).await.unwrap();
    let preferences = call.preferences().to_vec();
    (call.into_body().mechanism.unwrap(), preferences)
}

#[tokio::test(start_paused = true)]
async fn addresses_cross_the_border_translated_and_the_caller_keeps_his_own() {
    let (_one, here) = mapped();
    let other = Scratch::holding("10.0.0.2: 198.51.100.2");
    let there = SwapIp::new(other.file());
    let parities = Seen::default();
    let chain = domains(here, there, "10.0.0.2", &parities);
    let offer = vxlan(&[("src_ip", INSIDE)]);
    let (agreed, preferences) = ask(&chain, None, vec![offer.clone()]).await;
    let expected = vxlan(&[("src_ip", INSIDE), ("dst_ip", "198.51.100.2"), ("orig_dst_ip", "10.0.0.2")]);
    assert_eq!((&agreed, preferences), (&expected, vec![offer]));
    // A refresh brings back what was agreed, and agrees on the same; both times the same side issues.
    assert_eq!(ask(&chain, Some(agreed.clone()), Vec::new()).await.0, agreed);
    assert_eq!(*parities.lock().unwrap(), [VniParity::Even, VniParity::Even]);
}

#[tokio::test(start_paused = true)]
async fn the_two_directions_issue_different_halves_whoever_is_in_a_map() {
    let (_scratch, mapped) = mapped();
    let unmapped = || SwapIp::new("/nonexistent");
    for (here, there) in [(mapped.clone(), unmapped()), (unmapped(), unmapped())] {
        let parities = Seen::default();
        let forth = domains(here.clone(), there.clone(), "10.0.0.2", &parities);
        let (agreed, _) = ask(&forth, None, vec![vxlan(&[("src_ip", INSIDE)])]).await;
        assert_eq!(agreed.parameters["dst_ip"], "10.0.0.2", "what is not in the map stays");
        let back = domains(there, here, INSIDE, &parities);
        ask(&back, None, vec![vxlan(&[("src_ip", "10.0.0.2")])]).await;
        assert_eq!(*parities.lock().unwrap(), [VniParity::Even, VniParity::Odd]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_stays_in_the_domain_is_left_alone() {
    let (_scratch, swap) = mapped();
    let parities = Seen::default();
    let chain = Chain::new("proxy", vec![Node::new(swap), forwarder("10.0.0.2", &parities)]).unwrap();
    let (agreed, _) = ask(&chain, None, vec![vxlan(&[("src_ip", INSIDE)])]).await;
    assert_eq!(agreed, vxlan(&[("src_ip", INSIDE), ("dst_ip", "10.0.0.2")]));
}
