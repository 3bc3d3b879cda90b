//! The shape of the documents, and its translation to and from messages.

use std::collections::BTreeMap;

use prost_types::Timestamp;
use serde::{Deserialize, Serialize};

use crate::registry;
use crate::{NetworkService, NetworkServiceEndpoint};

/// What must be known before the rest can be read.
#[derive(Debug, Deserialize)]
pub(super) struct Header {
    #[serde(rename = "apiVersion")]
    pub(super) api_version: String,
    pub(super) kind: String,
    #[serde(default)]
    pub(super) metadata: Metadata,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) name: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Object<S> {
    #[serde(rename = "apiVersion")]
    pub(super) api_version: String,
    pub(super) kind: String,
    #[serde(default)]
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) spec: S,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ServiceSpec {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    payload: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    matches: Vec<Match>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    path_ids: Vec<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Match {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    source_selector: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    fallthrough: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Labels>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Destination>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Destination {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    destination_selector: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_zero")]
    weight: u32,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Labels {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct EndpointSpec {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    network_service_names: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    network_service_labels: BTreeMap<String, Labels>,
    #[serde(skip_serializing_if = "String::is_empty")]
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initial_registration_time: Option<Time>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    path_ids: Vec<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Time {
    seconds: i64,
    #[serde(skip_serializing_if = "is_zero_nanos")]
    nanos: i32,
}

fn is_zero(weight: &u32) -> bool {
    *weight == 0
}

fn is_zero_nanos(nanos: &i32) -> bool {
    *nanos == 0
}

impl From<ServiceSpec> for NetworkService {
    fn from(spec: ServiceSpec) -> Self {
        let matches = spec.matches.into_iter().map(registry::Match::from).collect();
        Self { name: spec.name, payload: spec.payload, matches, path_ids: spec.path_ids }
    }
}

impl From<&NetworkService> for ServiceSpec {
    fn from(service: &NetworkService) -> Self {
        let NetworkService { name, payload, matches, path_ids } = service.clone();
        Self { name, payload, matches: matches.into_iter().map(Match::from).collect(), path_ids }
    }
}

impl From<Match> for registry::Match {
    fn from(rule: Match) -> Self {
        let route = |route: Destination| registry::Destination {
            destination_selector: route.destination_selector,
            weight: route.weight,
        };
        Self {
            source_selector: rule.source_selector,
            routes: rule.routes.into_iter().map(route).collect(),
            fallthrough: rule.fallthrough,
            metadata: rule.metadata.map(|metadata| registry::Metadata { labels: metadata.labels }),
        }
    }
}

impl From<registry::Match> for Match {
    fn from(rule: registry::Match) -> Self {
        let route = |route: registry::Destination| Destination {
            destination_selector: route.destination_selector,
            weight: route.weight,
        };
        Self {
            source_selector: rule.source_selector,
            fallthrough: rule.fallthrough,
            metadata: rule.metadata.map(|metadata| Labels { labels: metadata.labels }),
            routes: rule.routes.into_iter().map(route).collect(),
        }
    }
}

impl From<EndpointSpec> for NetworkServiceEndpoint {
    fn from(spec: EndpointSpec) -> Self {
        let labels = |labels: Labels| registry::NetworkServiceLabels { labels: labels.labels };
        let time = |time: Time| Timestamp { seconds: time.seconds, nanos: time.nanos };
        Self {
            name: spec.name,
            network_service_names: spec.network_service_names,
            network_service_labels: spec
                .network_service_labels
                .into_iter()
                .map(|(service, entry)| (service, labels(entry)))
                .collect(),
            url: spec.url,
            expiration_time: spec.expiration_time.map(time),
            initial_registration_time: spec.initial_registration_time.map(time),
            path_ids: spec.path_ids,
        }
    }
}

impl From<&NetworkServiceEndpoint> for EndpointSpec {
    fn from(endpoint: &NetworkServiceEndpoint) -> Self {
        let endpoint = endpoint.clone();
        let labels = |labels: registry::NetworkServiceLabels| Labels { labels: labels.labels };
        let time = |time: Timestamp| Time { seconds: time.seconds, nanos: time.nanos };
        Self {
            name: endpoint.name,
            network_service_names: endpoint.network_service_names,
            network_service_labels: endpoint
                .network_service_labels
                .into_iter()
                .map(|(service, entry)| (service, labels(entry)))
                .collect(),
            url: endpoint.url,
            expiration_time: endpoint.expiration_time.map(time),
            initial_registration_time: endpoint.initial_registration_time.map(time),
            path_ids: endpoint.path_ids,
        }
    }
}
