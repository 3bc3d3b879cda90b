use std::sync::Arc;

use super::*;
use crate::registry::{Destination, Metadata, NetworkServiceLabels};

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn endpoint(name: &str, service: &str, pairs: &[(&str, &str)]) -> NetworkServiceEndpoint {
    let entry = NetworkServiceLabels { labels: labels(pairs) };
    NetworkServiceEndpoint {
        name: name.into(),
        network_service_labels: [(service.to_owned(), entry)].into(),
        ..Default::default()
    }
}

fn rule(source: &[(&str, &str)], routes: &[&[(&str, &str)]]) -> Match {
    let routes = routes.iter().map(|pairs| Destination { destination_selector: labels(pairs), weight: 0 }).collect();
    Match { source_selector: labels(source), routes, ..Default::default() }
}

fn service(matches: Vec<Match>) -> NetworkService {
    NetworkService { name: "ns".into(), matches, ..Default::default() }
}

fn endpoints() -> Vec<NetworkServiceEndpoint> {
    vec![
        endpoint("fw", "ns", &[("app", "firewall")]),
        endpoint("vpn", "ns", &[("app", "vpn"), ("nodeName", "node-1")]),
        endpoint("other", "another-ns", &[("app", "vpn")]),
    ]
}

fn chosen(service: &NetworkService, client: &[(&str, &str)]) -> Vec<String> {
    let endpoints = endpoints();
    let candidates = service.candidates(&labels(client), &endpoints);
    candidates.into_iter().map(|candidate| candidate.endpoint.name.clone()).collect()
}

#[test]
fn a_service_without_matches_gives_everything() {
    assert_eq!(chosen(&service(vec![]), &[]), ["fw", "vpn", "other"]);
}

#[test]
fn the_first_rule_for_the_client_decides() {
    let service =
        service(vec![rule(&[("app", "firewall")], &[&[("app", "vpn")]]), rule(&[], &[&[("app", "firewall")]])]);
    assert_eq!(chosen(&service, &[]), ["fw"]);
    assert_eq!(chosen(&service, &[("app", "firewall"), ("x", "y")]), ["vpn"]);
}

#[test]
fn a_rule_for_nobody_here_gives_nothing() {
    assert!(chosen(&service(vec![rule(&[("app", "x")], &[&[]])]), &[]).is_empty());
}

#[test]
fn labels_count_for_the_service_they_are_registered_under() {
    let service = service(vec![rule(&[], &[&[("app", "vpn")]])]);
    assert_eq!(chosen(&service, &[]), ["vpn"]);
}

#[test]
fn an_empty_destination_takes_every_endpoint() {
    assert_eq!(chosen(&service(vec![rule(&[], &[&[]])]), &[]).len(), 3);
}

#[test]
fn fallthrough_goes_on_only_when_nothing_fits() {
    let mut first = rule(&[], &[&[("app", "none")]]);
    let second = rule(&[], &[&[("app", "vpn")]]);
    assert!(chosen(&service(vec![first.clone(), second.clone()]), &[]).is_empty());
    first.fallthrough = true;
    assert_eq!(chosen(&service(vec![first.clone(), second.clone()]), &[]), ["vpn"]);
    first.routes[0].destination_selector = labels(&[("app", "firewall")]);
    assert_eq!(chosen(&service(vec![first, second]), &[]), ["fw"]);
}

#[test]
fn a_rule_with_metadata_and_no_routes_leaves_the_endpoints_open() {
    let metadata = Some(Metadata { labels: labels(&[("sriov", "true")]) });
    let mut open = Match { metadata, ..rule(&[], &[]) };
    assert_eq!(chosen(&service(vec![open.clone()]), &[]).len(), 3);
    open.fallthrough = true;
    assert!(chosen(&service(vec![open.clone()]), &[]).is_empty());
    open.metadata = None;
    open.fallthrough = false;
    assert!(chosen(&service(vec![open]), &[]).is_empty());
}

#[test]
fn a_template_is_rendered_over_the_clients_labels() {
    let service = service(vec![rule(&[], &[&[("nodeName", "{{.nodeName}}")]])]);
    assert_eq!(chosen(&service, &[("nodeName", "node-1")]), ["vpn"]);
    assert!(chosen(&service, &[("nodeName", "node-2")]).is_empty());
    assert!(chosen(&service, &[]).is_empty());
}

#[test]
fn an_endpoint_comes_once_with_the_weight_of_its_first_route() {
    let mut rule = rule(&[], &[&[("app", "vpn")], &[], &[("app", "firewall")]]);
    (rule.routes[0].weight, rule.routes[1].weight) = (7, 0);
    let service = service(vec![rule]);
    let endpoints: Vec<Arc<NetworkServiceEndpoint>> = endpoints().into_iter().map(Arc::new).collect();
    let candidates = service.candidates(&Labels::new(), endpoints.iter().cloned());
    let weights: Vec<(&str, u32)> =
        candidates.iter().map(|candidate| (candidate.endpoint.name.as_str(), candidate.weight)).collect();
    assert_eq!(weights, [("vpn", 7), ("fw", 1), ("other", 1)]);
}

#[test]
fn fewer_labels_than_the_selector_never_satisfy_it() {
    let selector = labels(&[("a", "")]);
    assert!(!satisfies(&Labels::new(), &selector, &Labels::new()));
    assert!(satisfies(&labels(&[("b", "x")]), &selector, &Labels::new()));
}

fn forwarders() -> Vec<NetworkServiceEndpoint> {
    vec![
        endpoint("p2p", "forwarder", &[("p2p", "true")]),
        endpoint("sriov", "forwarder", &[("sriov", "true")]),
        endpoint("elsewhere", "other", &[("p2p", "true")]),
    ]
}

fn carriers(matches: Vec<Match>) -> Vec<String> {
    let forwarders = forwarders();
    let found = service(matches).forwarder_candidates(&Labels::new(), "forwarder", &forwarders);
    found.into_iter().map(|forwarder| forwarder.name.clone()).collect()
}

#[test]
fn forwarders_are_chosen_by_metadata_and_p2p_without() {
    let metadata = Some(Metadata { labels: labels(&[("sriov", "true")]) });
    assert_eq!(carriers(vec![]).len(), 3);
    assert_eq!(carriers(vec![rule(&[], &[])]), ["p2p"]);
    assert_eq!(carriers(vec![Match { metadata: Some(Metadata::default()), ..rule(&[], &[]) }]), ["p2p"]);
    assert_eq!(carriers(vec![Match { metadata, ..rule(&[], &[]) }]), ["sriov"]);
    assert!(carriers(vec![rule(&[("app", "x")], &[])]).is_empty());
}

#[test]
fn forwarders_fall_through_only_when_none_fits() {
    let metadata = Some(Metadata { labels: labels(&[("none", "true")]) });
    let first = Match { metadata, ..rule(&[], &[]) };
    assert!(carriers(vec![first.clone(), rule(&[], &[])]).is_empty());
    assert_eq!(carriers(vec![Match { fallthrough: true, ..first }, rule(&[], &[])]), ["p2p"]);
}
