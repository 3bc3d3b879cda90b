//! `nsm apply`.

use std::path::PathBuf;

use clap::Args;
use nsm_api::yaml::{self, Document};
use nsm_sdk::roles::{self, Site};
use nsm_sdk::transport::Address;
use tokio_util::sync::CancellationToken;

use super::common::Common;
use super::{say, unless_stopped};
use crate::failure::Failure;

/// Register network services, or change them: what kubectl apply is where there is Kubernetes.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Example:
  nsm apply --connect-to registry:5002 --authority /run/nsm/authority my-service.yaml")]
pub(crate) struct Options {
    /// YAML documents of kind NetworkService.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// A manager or the registry.
    #[arg(long, value_name = "URL", default_value = "unix:///var/lib/networkservicemesh/nsm.io.sock")]
    connect_to: Address,

    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) const NAME: &str = "apply";

pub(super) async fn run(options: Options, site: Site, stop: CancellationToken) -> Result<(), Failure> {
    // All is read before anything is changed.
    let files = options.files.iter().map(|file| {
        let shown = file.display().to_string();
        let failed = |cause: String| Failure::at(&shown, cause, "give YAML documents of kind NetworkService");
        let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
        yaml::parse(&text).map_err(|error| failed(error.to_string()))
    });
    let documents: Vec<Document> = files.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    let url = options.connect_to.to_string();
    for document in documents {
        match document {
            Document::NetworkService(service) => {
                let name = service.name.clone();
                let applying = roles::apply(&site, &url, service);
                let Some(applied) = unless_stopped(&stop, applying).await else { return Ok(()) };
                applied.map_err(|error| Failure::of(&name, &error))?;
                say(&format!("network service {name} applied"));
            }
            Document::NetworkServiceEndpoint(endpoint) => {
                say(&format!("endpoint {} passed over: endpoints register themselves", endpoint.name));
            }
        }
    }
    Ok(())
}
