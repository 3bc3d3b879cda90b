use std::sync::{Arc, Mutex};

use nsm_api::mechanism::{KERNEL, MEMIF, NOOP};
use nsm_api::{Connection, Mechanism, Path, PathSegment};
use nsm_chain::{Begin, Code, Order, elements};

use super::*;
use crate::{KernelAccept, Noop};

/// Notes every call; fails requests for mechanisms of the given types.
#[derive(Clone, Default)]
struct Behind {
    fails: &'static [&'static str],
    calls: Arc<Mutex<Vec<String>>>,
}

impl Behind {
    fn failing(fails: &'static [&'static str]) -> Self {
        Self { fails, ..Self::default() }
    }

    fn note(&self, verb: &str, call: &Call) -> String {
        let kind = call.connection().mechanism.as_ref().map_or("none", |m| &m.r#type).to_owned();
        self.calls.lock().unwrap().push(format!("{verb} {kind}"));
        kind
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

impl Element for Behind {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let kind = self.note("request", &call);
        if self.fails.contains(&kind.as_str()) {
            return Err(Error::exhausted(format!("no {kind} today")));
        }
        next.request(call).await
    }

    async fn close(&self, call: Call, next: Next<'_>) -> Result<Call> {
        self.note("close", &call);
        next.close(call).await
    }
}

fn chain(behind: &Behind) -> Chain {
    let mechanisms = Mechanisms::new()
        .with(KERNEL, KernelAccept::new().seeded(1))
        .and_then(|mechanisms| mechanisms.with(MEMIF, Noop))
        .unwrap();
    Chain::new("nse", elements![Begin::default(), mechanisms, behind.clone()]).unwrap()
}

fn asked(mechanism: Option<Mechanism>, preferences: &[Mechanism]) -> Call {
    let segment = PathSegment { name: "nse".into(), id: "1".into(), ..Default::default() };
    let connection = Connection {
        id: "1".into(),
        network_service: "icmp".into(),
        mechanism,
        path: Some(Path { index: 0, path_segments: vec![segment] }),
        ..Default::default()
    };
    Call::request(connection, preferences.to_vec())
}

fn kind(call: &Call) -> &str {
    &call.connection().mechanism.as_ref().unwrap().r#type
}

#[tokio::test]
async fn the_first_preference_that_is_supported_is_taken_and_completed() {
    let behind = Behind::default();
    let preferences = [Mechanism::vxlan(), Mechanism::kernel(), Mechanism::memif()];
    let call = chain(&behind).request(asked(None, &preferences)).await.unwrap();
    let mechanism = call.connection().mechanism.as_ref().unwrap();
    let name = mechanism.parameter("name").unwrap();
    assert!(mechanism.is(KERNEL) && name.starts_with("icmp-"), "{mechanism:?}");
    let netns = format!("file:///proc/{}/ns/net", std::process::id());
    assert_eq!(mechanism.parameter("inodeURL"), Some(&*netns));
    assert_eq!(behind.calls(), ["request KERNEL"]);
    let metric = &call.connection().current_segment().unwrap().metrics["server_interface"];
    assert_eq!(*metric, format!("KERNEL/{name}"));
    assert_eq!(call.preferences(), preferences);
}

#[tokio::test]
async fn a_mechanism_that_is_set_is_kept_whatever_is_preferred() {
    let behind = Behind::default();
    let call = chain(&behind).request(asked(Some(Mechanism::memif()), &[Mechanism::kernel()])).await.unwrap();
    assert_eq!(kind(&call), MEMIF);
}

#[tokio::test]
async fn what_neither_side_shares_is_refused_with_what_each_has() {
    let behind = Behind::default();
    for call in [
        asked(Some(Mechanism::vxlan()), &[Mechanism::kernel()]),
        asked(None, &[Mechanism::vxlan(), Mechanism::new("LOCAL", "kernel")]),
        asked(None, &[]),
    ] {
        let error = chain(&behind).request(call).await.unwrap_err();
        assert_eq!(error.code(), Code::Unimplemented);
        assert!(error.to_string().contains("here KERNEL, MEMIF can be used"), "{error}");
    }
    assert!(behind.calls().is_empty());
    let error = chain(&behind).request(asked(Some(Mechanism::vxlan()), &[])).await.unwrap_err();
    assert!(error.to_string().contains("the caller offers VXLAN"), "{error}");
}

#[tokio::test]
async fn the_next_preference_finds_nothing_of_one_that_failed() {
    let behind = Behind::failing(&[KERNEL]);
    let mut wrong = Mechanism::kernel();
    wrong.set_parameter("name", "a name with spaces");
    let preferences = [wrong, Mechanism::kernel(), Mechanism::memif()];
    let call = chain(&behind).request(asked(None, &preferences)).await.unwrap();
    assert_eq!(call.connection().mechanism, Some(Mechanism::memif()));
    // Nothing was asked for the first; what the second may have left is closed.
    assert_eq!(behind.calls(), ["close KERNEL", "request KERNEL", "close KERNEL", "request MEMIF"]);
}

#[tokio::test]
async fn when_all_fail_each_cause_is_kept() {
    let behind = Behind::failing(&[KERNEL, MEMIF]);
    let error = chain(&behind).request(asked(None, &[Mechanism::kernel(), Mechanism::memif()])).await.unwrap_err();
    assert_eq!((error.code(), error.causes().len()), (Code::ResourceExhausted, 2));
    assert!(error.to_string().contains("no KERNEL today") && error.to_string().contains("no MEMIF today"), "{error}");
    // A single one speaks for itself.
    let error = chain(&behind).request(asked(None, &[Mechanism::memif()])).await.unwrap_err();
    assert!(error.causes().is_empty());
}

#[tokio::test]
async fn an_established_connection_is_not_closed_by_a_refresh_that_fails() {
    let behind = Behind::default();
    let chain = chain(&behind);
    let call = chain.request(asked(None, &[Mechanism::kernel()])).await.unwrap();
    let mut refresh = call.connection().clone();
    refresh.mechanism.as_mut().unwrap().set_parameter("name", "a/b");
    chain.request(Call::new(refresh)).await.unwrap_err();
    assert_eq!(behind.calls(), ["request KERNEL"]);
    chain.close(Call::new(call.into_body())).await.unwrap();
    assert_eq!(behind.calls(), ["request KERNEL", "close KERNEL"]);
}

#[tokio::test]
async fn a_forwarder_that_forgot_gets_the_same_interface_again() {
    let chain = chain(&Behind::default());
    let name = |call: Call| call.connection().mechanism.as_ref().unwrap().parameter("name").unwrap().to_owned();
    let first = name(chain.request(asked(None, &[Mechanism::kernel()])).await.unwrap());
    let again = name(chain.request(asked(None, &[Mechanism::kernel()])).await.unwrap());
    assert_eq!(first, again);
}

#[test]
fn an_element_that_must_stand_behind_others_is_refused_when_built() {
    struct Needs;
    impl Element for Needs {
        fn order(&self) -> Order {
            Order::after(&["Begin"])
        }
    }
    assert!(Mechanisms::new().with(NOOP, Needs).is_err());
}
