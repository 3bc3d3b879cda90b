//! The documents that a quickstart applies.

use std::path::Path;

use nsm_api::NetworkService;
use nsm_api::registry::NetworkServiceEndpoint;
use nsm_api::yaml::{self, Document};

use crate::failure::Failure;
use crate::lab::Serves;

/// What is applied where no file is given.
const DEFAULT: &str = include_str!("ns-first.yaml");

/// Network services, and what endpoints serve of them.
#[derive(Debug)]
pub(super) struct Documents {
    /// Where they are from.
    pub(super) source: String,
    /// At least one.
    pub(super) services: Vec<NetworkService>,
    /// At least one; endpoints take them in turn.
    pub(super) serves: Vec<Serves>,
}

impl Documents {
    /// Those of a file, or the default.
    pub(super) fn read(file: Option<&Path>) -> Result<Self, Failure> {
        let Some(file) = file else {
            return Self::parse("the built-in ns-first.yaml", DEFAULT);
        };
        let source = file.display().to_string();
        let text = std::fs::read_to_string(file);
        let text = text.map_err(|error| Failure::at(&source, error.to_string(), "give the path of a YAML file"))?;
        Self::parse(&source, &text)
    }

    fn parse(source: &str, text: &str) -> Result<Self, Failure> {
        let documents =
            yaml::parse(text).map_err(|error| Failure::at(source, error.to_string(), "correct the document"))?;
        let (mut services, mut serves) = (Vec::new(), Vec::new());
        for document in documents {
            match document {
                Document::NetworkService(service) => services.push(service),
                Document::NetworkServiceEndpoint(endpoint) => serves.push(served(endpoint)),
            }
        }
        let Some(first) = services.first() else {
            return Err(Failure::at(source, "it has no NetworkService", "add a document of that kind"));
        };
        if serves.is_empty() {
            serves.push(Serves::from([(first.name.clone(), Default::default())]));
        }
        Ok(Self { source: source.to_owned(), services, serves })
    }

    /// What clients ask for where they are not told.
    pub(super) fn url(&self) -> String {
        let service = self.services.first().map_or("", |service| &service.name);
        format!("kernel://{service}/nsm-1")
    }
}

fn served(endpoint: NetworkServiceEndpoint) -> Serves {
    let mut labels = endpoint.network_service_labels;
    let names = endpoint.network_service_names.into_iter();
    names
        .map(|name| (labels.remove(&name).unwrap_or_default().labels, name))
        .map(|(labels, name)| (name, labels))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_documents_fit_each_other() {
        let documents = Documents::read(None).unwrap();
        assert_eq!(documents.url(), "kernel://ns-first/nsm-1");
        let serves = &documents.serves[0]["ns-first"];
        let endpoint = NetworkServiceEndpoint {
            name: "nse-1".into(),
            network_service_names: vec!["ns-first".into()],
            network_service_labels: [(
                "ns-first".to_owned(),
                nsm_api::registry::NetworkServiceLabels { labels: serves.clone() },
            )]
            .into(),
            ..Default::default()
        };
        assert_eq!(documents.services[0].candidates(&Default::default(), [&endpoint]).len(), 1);
    }

    #[test]
    fn a_file_without_a_service_or_that_is_none_is_told() {
        let failure = Documents::parse("x.yaml", "# nothing").unwrap_err();
        assert!(failure.cause.contains("no NetworkService"));
        assert!(Documents::parse("x.yaml", "kind: 7").is_err());
        assert!(Documents::read(Some(Path::new("/nonexistent/x.yaml"))).is_err());
    }

    #[test]
    fn without_endpoint_documents_the_first_service_is_served_without_labels() {
        let text =
            "apiVersion: networkservicemesh.io/v1\nkind: NetworkService\nmetadata: {name: vpn}\nspec: {payload: IP}";
        let documents = Documents::parse("x.yaml", text).unwrap();
        assert!(documents.serves[0]["vpn"].is_empty());
    }
}
