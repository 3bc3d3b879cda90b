//! Matching: for each case what the Go code decided.

use nsm_api::matching::{Labels, satisfies};
use nsm_api::{
    Connection, MonitorScopeSelector, NetworkService, NetworkServiceEndpoint, NetworkServiceEndpointQuery,
    NetworkServiceQuery,
};
use serde::Deserialize;

use crate::corpus::{Encoded, read};

#[derive(Deserialize)]
struct Corpus {
    subsets: Vec<Subset>,
    endpoints: Vec<Encoded>,
    services: Vec<Service>,
    network_service_queries: Vec<Query>,
    endpoint_queries: Vec<Query>,
    selectors: Vec<Query>,
}

#[derive(Deserialize)]
struct Subset {
    labels: Labels,
    selector: Labels,
    client: Labels,
    result: bool,
}

#[derive(Deserialize)]
struct Service {
    service: Encoded,
    clients: Vec<Client>,
}

#[derive(Deserialize)]
struct Client {
    labels: Labels,
    result: Vec<String>,
}

#[derive(Deserialize)]
struct Query {
    query: Encoded,
    record: Encoded,
    result: bool,
}

fn corpus() -> Corpus {
    read("matching.json")
}

/// Selectors that use more of Go's templates than fields and `index`: they stand for themselves here.
const OTHER_TEMPLATES: [&str; 6] = [
    "{{- .nodeName -}} ",
    "{{/* nothing */}}x",
    "{{\"text\"}}",
    "{{if .nodeName}}yes{{end}}",
    "{{printf \"%s!\" .nodeName}}",
    "{{.nodeName | len}}",
];

#[test]
fn labels_satisfy_selectors_as_in_the_reference() {
    let mut other = 0;
    for case in corpus().subsets {
        let ours = satisfies(&case.labels, &case.selector, &case.client);
        if case.selector.values().any(|value| OTHER_TEMPLATES.contains(&value.as_str())) {
            assert_eq!((case.result, ours), (true, false), "{:?}", case.selector);
            other += 1;
        } else {
            assert_eq!(ours, case.result, "{:?} of {:?}", case.selector, case.labels);
        }
    }
    assert_eq!(other, OTHER_TEMPLATES.len());
}

#[test]
fn clients_get_the_endpoints_that_they_get_in_the_reference() {
    let corpus = corpus();
    let endpoints: Vec<NetworkServiceEndpoint> = corpus.endpoints.iter().map(Encoded::decode).collect();
    for case in corpus.services {
        let service: NetworkService = case.service.decode();
        for client in case.clients {
            // It gives an endpoint once for each route that leads to it, we give it once.
            let mut once: Vec<String> = Vec::new();
            for name in client.result {
                if !once.contains(&name) {
                    once.push(name);
                }
            }
            let ours = service.candidates(&client.labels, &endpoints);
            let ours: Vec<&str> = ours.iter().map(|candidate| candidate.endpoint.name.as_str()).collect();
            assert_eq!(ours, once, "{:?} of {service:?}", client.labels);
        }
    }
}

#[test]
fn queries_find_what_they_find_in_the_reference() {
    let corpus = corpus();
    for case in corpus.network_service_queries {
        let query = NetworkServiceQuery { network_service: Some(case.query.decode()), watch: false };
        assert_eq!(query.finds(&case.record.decode()), case.result, "{query:?}");
    }
    for case in corpus.endpoint_queries {
        let query = NetworkServiceEndpointQuery { network_service_endpoint: Some(case.query.decode()), watch: false };
        assert_eq!(query.finds(&case.record.decode()), case.result, "{query:?}");
    }
}

#[test]
fn monitors_see_the_connections_that_they_see_in_the_reference() {
    for case in corpus().selectors {
        let selector: MonitorScopeSelector = case.query.decode();
        let connection: Connection = case.record.decode();
        assert_eq!(selector.matches(&connection), case.result, "{selector:?} of {connection:?}");
    }
}
