//! The shape of the documents: that of Kubernetes where Kubernetes has one.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Spanned;

/// The version of documents of kinds that only a lab has.
pub(crate) const API_VERSION: &str = "nsm/v1";
/// Where a pod says what it wants.
pub(crate) const ANNOTATION: &str = "networkservicemesh.io";

/// What must be known before the rest can be read.
#[derive(Debug, Deserialize)]
pub(super) struct Header {
    #[serde(rename = "apiVersion")]
    pub(super) api_version: Spanned<String>,
    pub(super) kind: Spanned<String>,
}

/// Where a network service says its name.
#[derive(Debug, Deserialize)]
pub(super) struct Named {
    pub(super) metadata: AnyMetadata,
}

#[derive(Debug, Deserialize)]
pub(super) struct AnyMetadata {
    pub(super) name: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    pub(super) metadata: Metadata,
    #[serde(default, rename = "spec")]
    _spec: Nothing,
}

/// A node has nothing to choose here.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pod {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) spec: PodSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PodSpec {
    #[serde(rename = "nodeName")]
    pub(super) node_name: Option<Spanned<String>>,
    pub(super) containers: Vec<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Endpoint {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    pub(super) metadata: Metadata,
    pub(super) spec: EndpointSpec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndpointSpec {
    #[serde(default, rename = "nodeName")]
    pub(super) node_name: Option<Spanned<String>>,
    #[serde(rename = "type")]
    pub(super) function: Spanned<String>,
    pub(super) services: Vec<Spanned<String>>,
    #[serde(default, rename = "cidrPrefixes")]
    pub(super) cidr_prefixes: Vec<Spanned<String>>,
    #[serde(default, rename = "dnsConfigs")]
    pub(super) dns_configs: Vec<DnsConfig>,
    #[serde(default)]
    pub(super) filter: Vec<Spanned<String>>,
}

/// As a Pod of Kubernetes has it in dnsConfig.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DnsConfig {
    pub(super) nameservers: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) searches: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metadata {
    pub(super) name: Spanned<String>,
    /// Accepted, so that a document can be the one that Kubernetes has.
    #[serde(default, rename = "namespace")]
    _namespace: IgnoredAny,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, Spanned<String>>,
}
