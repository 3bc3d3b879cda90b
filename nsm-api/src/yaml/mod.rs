//! Network services and endpoints as YAML documents, in the shape of the Kubernetes objects.
//!
//! ```
//! let documents = nsm_api::yaml::parse(r#"
//! apiVersion: networkservicemesh.io/v1
//! kind: NetworkService
//! metadata:
//!   name: secure
//! spec:
//!   payload: ETHERNET
//!   matches:
//!     - source_selector: { app: firewall }
//!       routes:
//!         - destination_selector: { app: vpn }
//! "#)?;
//! let nsm_api::yaml::Document::NetworkService(service) = &documents[0] else { panic!() };
//! assert_eq!(service.name, "secure");
//! # Ok::<(), nsm_api::yaml::YamlError>(())
//! ```
//!
//! Field names are those of the wire in snake case; timestamps are objects of `seconds` and `nanos`. The name of
//! the record is `spec.name`, or `metadata.name` when that is absent. The Kubernetes schema takes any field in
//! `spec`; here an unknown field is an error, because it is a misspelt one whose rule would be lost in silence.
//! Other fields of `metadata` are accepted and not kept.

mod error;
mod shape;
mod split;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{NetworkService, NetworkServiceEndpoint};
use shape::{EndpointSpec, Header, Metadata, Object, ServiceSpec};
use split::documents;

pub use error::YamlError;
pub use split::Source;

/// The API version of every document.
pub const API_VERSION: &str = "networkservicemesh.io/v1";
/// The kind of a document that holds a network service.
pub const NETWORK_SERVICE: &str = "NetworkService";
/// The kind of a document that holds an endpoint.
pub const NETWORK_SERVICE_ENDPOINT: &str = "NetworkServiceEndpoint";

/// A record read from a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// A document of kind [`NETWORK_SERVICE`].
    NetworkService(NetworkService),
    /// A document of kind [`NETWORK_SERVICE_ENDPOINT`].
    NetworkServiceEndpoint(NetworkServiceEndpoint),
}

/// Reads all documents of a text. Documents without content are skipped.
///
/// # Errors
/// [`YamlError`] says which document (counted from 1) is wrong, where and how.
pub fn parse(text: &str) -> Result<Vec<Document>, YamlError> {
    sources(text).map(|source| source.read()).collect()
}

/// The documents of a text, not yet read: for files that also hold documents of other kinds. Those without content are
/// skipped.
///
/// ```
/// use nsm_api::yaml::{self, Document};
///
/// #[derive(serde::Deserialize)]
/// struct Kind { kind: String }
/// #[derive(serde::Deserialize)]
/// struct Node { metadata: Metadata }
/// #[derive(serde::Deserialize)]
/// struct Metadata { name: String }
///
/// let text = "apiVersion: v1\nkind: Node\nmetadata: {name: left}\n---\napiVersion: networkservicemesh.io/v1\n\
///             kind: NetworkService\nmetadata: {name: vpn}\n";
/// for source in yaml::sources(text) {
///     match source.deserialize::<Kind>()?.kind.as_str() {
///         "Node" => assert_eq!(source.deserialize::<Node>()?.metadata.name, "left"),
///         _ => assert!(matches!(source.read()?, Document::NetworkService(service) if service.name == "vpn")),
///     }
/// }
/// # Ok::<(), yaml::YamlError>(())
/// ```
pub fn sources(text: &str) -> impl Iterator<Item = Source<'_>> {
    documents(text)
}

/// Writes records as documents that [`parse`] reads back.
///
/// # Errors
/// [`YamlError::Unwritable`] when the writer refuses a value.
pub fn to_string(documents: &[Document]) -> Result<String, YamlError> {
    let mut out = String::new();
    for document in documents {
        let text = match document {
            Document::NetworkService(service) => write(NETWORK_SERVICE, &service.name, ServiceSpec::from(service)),
            Document::NetworkServiceEndpoint(endpoint) => {
                write(NETWORK_SERVICE_ENDPOINT, &endpoint.name, EndpointSpec::from(endpoint))
            }
        }?;
        out.push_str("---\n");
        out.push_str(&text);
    }
    Ok(out)
}

fn write<S: Serialize>(kind: &str, name: &str, spec: S) -> Result<String, YamlError> {
    let object = Object {
        api_version: API_VERSION.to_owned(),
        kind: kind.to_owned(),
        metadata: Metadata { name: name.to_owned() },
        spec,
    };
    serde_saphyr::to_string(&object).map_err(|error| YamlError::Unwritable { reason: error.to_string() })
}

impl Source<'_> {
    /// Reads a document of one of the kinds that [`parse`] takes.
    ///
    /// # Errors
    /// As [`parse`].
    pub fn read(&self) -> Result<Document, YamlError> {
        let header: Header = self.deserialize()?;
        if header.api_version != API_VERSION {
            return Err(self.refuse("apiVersion", &header.api_version, API_VERSION));
        }
        match header.kind.as_str() {
            NETWORK_SERVICE => {
                let mut service = NetworkService::from(spec::<ServiceSpec>(self)?);
                service.name = name(self, service.name, header.metadata)?;
                Ok(Document::NetworkService(service))
            }
            NETWORK_SERVICE_ENDPOINT => {
                let mut endpoint = NetworkServiceEndpoint::from(spec::<EndpointSpec>(self)?);
                endpoint.name = name(self, endpoint.name, header.metadata)?;
                Ok(Document::NetworkServiceEndpoint(endpoint))
            }
            other => Err(self.refuse("kind", other, "NetworkService or NetworkServiceEndpoint")),
        }
    }
}

fn spec<S: Default + DeserializeOwned>(source: &Source<'_>) -> Result<S, YamlError> {
    source.deserialize::<Object<S>>().map(|object| object.spec)
}

fn name(source: &Source<'_>, name: String, metadata: Metadata) -> Result<String, YamlError> {
    let name = if name.is_empty() { metadata.name } else { name };
    if name.is_empty() {
        return Err(source.refuse("metadata.name", "", "the name of the record"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
