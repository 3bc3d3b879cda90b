//! `nsm manager-proxy`.

use std::path::PathBuf;

use clap::Args;
use nsm_sdk::interdomain::SwapIp;
use nsm_sdk::roles::{ManagerProxyRole, Site};
use nsm_sdk::transport::Address;
use tokio_util::sync::CancellationToken;

use super::common::{ClientPolicies, Common, ListenOn, ServerPolicies};
use super::{public_url, serve};
use crate::failure::Failure;
use crate::settings::values::{List, Maybe};

/// The manager proxy of a domain: connections and names that cross the domain's border go through it.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Example:
  NSM_LISTEN_ON=tcp://:5004 NSM_REGISTRY_URL=registry:5002 NSM_REGISTRY_PROXY_URL=registry-proxy:5005 nsm manager-proxy")]
pub(crate) struct Options {
    /// Its name: in paths, in its identity, and in errors.
    #[arg(long, value_name = "NAME", default_value = "nsmgr-proxy")]
    pub(super) name: String,

    #[command(flatten)]
    listen: ListenOn,

    /// The registry of this domain.
    #[arg(long, value_name = "URL", default_value = "")]
    registry_url: Maybe<Address>,

    /// The registry proxy of this domain, which finds other domains.
    #[arg(long, value_name = "URL", default_value = "")]
    registry_proxy_url: Maybe<Address>,

    /// Addresses inside and outside of this domain: YAML, pairs of both. Read again when it changes.
    #[arg(long, value_name = "FILE", default_value = SwapIp::DEFAULT_PATH)]
    map_ip_file_path: PathBuf,

    /// Names by which others know this domain. Empty: what its registry knows is taken for this domain's.
    #[arg(long, value_name = "NAMES", default_value = "")]
    domains: List<String>,

    #[command(flatten)]
    pub(super) server: ServerPolicies,

    #[command(flatten)]
    pub(super) client: ClientPolicies,

    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) async fn run(options: Options, site: Site, stop: CancellationToken) -> Result<(), Failure> {
    let name = options.name.as_str();
    let missing = |setting: &str| {
        Failure::at(name, format!("{setting} is not set"), format!("set {setting} to a URL such as tcp://host:port"))
    };
    let registry = options.registry_url.as_ref().ok_or_else(|| missing("NSM_REGISTRY_URL"))?;
    let proxy = options.registry_proxy_url.as_ref().ok_or_else(|| missing("NSM_REGISTRY_PROXY_URL"))?;
    let mut role =
        ManagerProxyRole::new(name, site, registry.to_string(), proxy.to_string()).addresses(&options.map_ip_file_path);
    for address in options.listen.listen_on.iter() {
        role = role.listen_on(address.to_string());
    }
    for domain in options.domains.iter() {
        role = role.domain(domain);
    }
    if let Some(url) = public_url::of(&options.listen.listen_on)? {
        role = role.public_url(url);
    }
    serve(role.serve().await.map_err(|error| Failure::of(name, &error))?, stop).await
}
