//! A mesh as its file describes it: nodes, network services, endpoints and pods.

mod read;
mod shape;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use nsm_api::connectioncontext::DnsConfig;
use nsm_api::registry::{NetworkServiceEndpoint, NetworkServiceLabels};
use nsm_api::{NetworkService, ServiceUrl};

use crate::failure::Failure;
use crate::lab::{Function, Serves};

pub(super) use read::did_you_mean;
pub(super) use shape::{ANNOTATION, API_VERSION};

/// What there is to be. Two that are equal are the same mesh, whatever their files look like.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Mesh {
    /// In the order of the file, which is that of their addresses.
    pub(crate) nodes: Vec<String>,
    pub(crate) services: BTreeMap<String, NetworkService>,
    pub(crate) endpoints: BTreeMap<String, Endpoint>,
    pub(crate) pods: BTreeMap<String, Pod>,
}

/// An endpoint, in a network namespace of its own.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Endpoint {
    pub(crate) node: String,
    pub(crate) function: Function,
    pub(crate) serves: Serves,
    /// DNS servers for its clients.
    pub(crate) dns: Vec<DnsConfig>,
}

/// A workload, in a network namespace of its own.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pod {
    pub(crate) node: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// What its annotation asks for.
    pub(crate) wants: Vec<ServiceUrl>,
    /// Its containers, which are not run.
    pub(crate) containers: usize,
}

impl Mesh {
    /// That of a file.
    pub(crate) fn read(file: &Path) -> Result<Self, Failure> {
        Self::parse(&file.display().to_string(), &text(file)?)
    }

    /// That of the text of a file of this name.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Self, Failure> {
        read::mesh(file, text)
    }

    /// How many documents it takes to write it, beside those of nodes.
    pub(crate) fn size(&self) -> usize {
        self.services.len() + self.endpoints.len() + self.pods.len()
    }

    /// The position of a node.
    pub(crate) fn position(&self, node: &str) -> usize {
        self.nodes.iter().position(|name| name == node).unwrap_or_default()
    }

    /// The endpoints that a pod may get for what it wants, by the rules of the network service, the likeliest first.
    pub(crate) fn candidates(&self, pod: &str, url: &ServiceUrl) -> Vec<String> {
        let (Some(service), Some(pod)) = (self.services.get(&url.service), self.pods.get_key_value(pod)) else {
            return Vec::new();
        };
        let labels = pod.1.labels_for(pod.0, url);
        let records: Vec<NetworkServiceEndpoint> = self.endpoints.iter().map(|(name, it)| it.record(name)).collect();
        let fitting = records.iter().filter(|record| record.network_service_names.contains(&service.name));
        let found = service.candidates(&labels, fitting);
        found.into_iter().map(|candidate| candidate.endpoint.name.clone()).collect()
    }
}

impl Endpoint {
    fn record(&self, name: &str) -> NetworkServiceEndpoint {
        let labels = |labels: &BTreeMap<String, String>| NetworkServiceLabels { labels: labels.clone() };
        NetworkServiceEndpoint {
            name: name.to_owned(),
            network_service_names: self.serves.keys().cloned().collect(),
            network_service_labels: self.serves.iter().map(|(service, of)| (service.clone(), labels(of))).collect(),
            ..Default::default()
        }
    }
}

impl Pod {
    /// The labels of a connection: those of its URL, then those of the pod, then where it runs.
    pub(crate) fn labels_for(&self, name: &str, url: &ServiceUrl) -> BTreeMap<String, String> {
        let place = [(nsm_api::labels::NODE_NAME, &*self.node), (nsm_api::labels::POD_NAME, name)];
        let mut labels: BTreeMap<_, _> = place.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        labels.extend(self.labels.clone());
        labels.extend(url.labels.clone());
        labels
    }
}

/// The text of a file.
pub(crate) fn text(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file);
    text.map_err(|error| Failure::at(file.display().to_string(), error.to_string(), "give the path of a YAML file"))
}
