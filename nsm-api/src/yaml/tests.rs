use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::registry::{self, Destination, Match, NetworkServiceLabels};

const HEAD: &str = "apiVersion: networkservicemesh.io/v1\n";

fn service(text: &str) -> NetworkService {
    match parse(text).unwrap().remove(0) {
        Document::NetworkService(service) => service,
        Document::NetworkServiceEndpoint(endpoint) => panic!("not a service: {endpoint:?}"),
    }
}

#[test]
fn a_service_as_users_write_it_is_read() {
    let service = service(&format!(
        r#"---
{HEAD}kind: NetworkService
metadata:
  name: secure
  namespace: nsm-system
  labels: {{ a: b }}
spec:
  payload: ETHERNET
  matches:
    - source_selector:
        app: firewall
      fallthrough: true
      metadata:
        labels:
          sriov: "true"
      routes:
        - destination_selector:
            nodeName: "{{{{.nodeName}}}}"
          weight: 3
    - source_selector:
      routes:
        - destination_selector: {{}}
"#
    ));
    assert_eq!((service.name.as_str(), service.payload.as_str()), ("secure", "ETHERNET"));
    let rule = &service.matches[0];
    assert_eq!(rule.source_selector["app"], "firewall");
    assert!(rule.fallthrough);
    assert_eq!(rule.metadata.as_ref().unwrap().labels["sriov"], "true");
    assert_eq!(rule.routes[0].destination_selector["nodeName"], "{{.nodeName}}");
    assert_eq!(rule.routes[0].weight, 3);
    assert_eq!(service.matches[1].routes.len(), 1);
}

#[test]
fn the_name_in_the_spec_wins() {
    let text = format!("{HEAD}kind: NetworkService\nmetadata: {{name: a}}\nspec: {{name: b@c}}\n");
    assert_eq!(service(&text).name, "b@c");
    let text = format!("{HEAD}kind: NetworkService\nmetadata: {{name: a}}\n");
    assert_eq!(service(&text).name, "a");
}

#[test]
fn an_endpoint_has_times_as_objects() {
    let text = format!(
        "{HEAD}kind: NetworkServiceEndpoint\nmetadata: {{name: e}}\nspec:\n  network_service_names: [a]\n  \
         network_service_labels: {{a: {{labels: {{app: vpn}}}}}}\n  url: tcp://10.0.0.1:5001\n  \
         expiration_time: {{seconds: 100, nanos: 5}}\n"
    );
    let Document::NetworkServiceEndpoint(endpoint) = parse(&text).unwrap().remove(0) else { panic!("not an endpoint") };
    assert_eq!(endpoint.network_service_labels["a"].labels["app"], "vpn");
    let time = endpoint.expiration_time.unwrap();
    assert_eq!((time.seconds, time.nanos), (100, 5));
}

#[test]
fn an_error_names_document_line_and_field() {
    let good = format!("{HEAD}kind: NetworkService\nmetadata: {{name: a}}\n");
    let bad =
        format!("{HEAD}kind: NetworkService\nmetadata: {{name: b}}\nspec:\n  matches:\n    - sourceSelector: {{}}\n");
    let error = parse(&format!("{good}---\n{bad}")).unwrap_err();
    let YamlError::Malformed { document: 2, reason } = &error else { panic!("{error:?}") };
    for part in ["spec.matches[0]", "sourceSelector", "source_selector", "line 10,"] {
        assert!(reason.contains(part), "{reason}");
    }
}

#[test]
fn what_is_not_accepted_is_said_with_what_is() {
    let error = |text: &str| parse(text).unwrap_err().to_string();
    assert_eq!(
        error(&format!("{HEAD}kind: Pod\n")),
        r#"document 1: kind is "Pod": it must be NetworkService or NetworkServiceEndpoint"#
    );
    assert!(error("apiVersion: v1\nkind: NetworkService\n").contains("networkservicemesh.io/v1"));
    assert!(error(&format!("{HEAD}kind: NetworkService\n")).contains("metadata.name"));
    assert!(error("kind: NetworkService\n").contains("apiVersion"));
    assert!(error("[").contains("line 1"));
    let weight = format!("{HEAD}kind: NetworkService\nspec: {{matches: [{{routes: [{{weight: -1}}]}}]}}");
    assert!(error(&weight).contains("spec.matches[0].routes[0].weight: "), "{}", error(&weight));
    assert_eq!(parse(" \n# nothing\n---\n"), Ok(Vec::new()));
}

fn labels() -> impl Strategy<Value = std::collections::BTreeMap<String, String>> {
    btree_map("[a-z./-]{1,6}", "(\\{\\{\\.a\\}\\}|true|1|~|.{0,6})", 0..3)
}

fn rules() -> impl Strategy<Value = Match> {
    let routes = vec((labels(), any::<u32>()), 0..3);
    (labels(), routes, any::<bool>(), prop::option::of(labels())).prop_map(
        |(source_selector, routes, fallthrough, metadata)| Match {
            source_selector,
            routes: routes
                .into_iter()
                .map(|(destination_selector, weight)| Destination { destination_selector, weight })
                .collect(),
            fallthrough,
            metadata: metadata.map(|labels| registry::Metadata { labels }),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read_back(
        name in "[a-z@.-]{1,10}",
        payload in "(IP|ETHERNET)?",
        matches in vec(rules(), 0..3),
        url in ".{0,12}",
        labels in labels(),
        seconds in any::<i64>(),
        nanos in any::<i32>(),
    ) {
        let service = NetworkService { name: name.clone(), payload, matches, path_ids: vec![] };
        let endpoint = NetworkServiceEndpoint {
            network_service_names: vec![name.clone()],
            network_service_labels: [(name.clone(), NetworkServiceLabels { labels })].into(),
            name,
            url,
            expiration_time: Some(prost_types::Timestamp { seconds, nanos }),
            ..Default::default()
        };
        let documents =
            vec![Document::NetworkService(service), Document::NetworkServiceEndpoint(endpoint)];
        let text = to_string(&documents).unwrap();
        prop_assert_eq!(parse(&text), Ok(documents), "{}", text);
    }

    #[test]
    fn arbitrary_text_never_panics(text in "(.|\n|---\n|: |- ){0,40}") {
        let _ = parse(&text);
    }
}
