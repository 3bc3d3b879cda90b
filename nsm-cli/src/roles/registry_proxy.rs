//! `nsm registry-proxy`.

use std::sync::Arc;

use clap::Args;
use nsm_dns::Dns;
use nsm_sdk::roles::{RegistryProxyRole, Site};
use tokio_util::sync::CancellationToken;

use super::common::{ClientPolicies, Common, ListenOn, ServerPolicies};
use super::serve;
use crate::failure::Failure;

/// The registry proxy of a domain: asks the registries of other domains, which DNS finds.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Other domains are found by the name servers of /etc/resolv.conf.

Example:
  NSM_LISTEN_ON=tcp://:5005 nsm registry-proxy")]
pub(crate) struct Options {
    #[command(flatten)]
    listen: ListenOn,

    #[command(flatten)]
    pub(super) server: ServerPolicies,

    #[command(flatten)]
    pub(super) client: ClientPolicies,

    #[command(flatten)]
    pub(super) common: Common,
}

/// The name it has in its identity and its errors; the reference has no setting for it.
pub(super) const NAME: &str = "registry-proxy";

pub(super) async fn run(options: Options, site: Site, stop: CancellationToken) -> Result<(), Failure> {
    let failed = |error: &(dyn std::error::Error + 'static)| Failure::of(NAME, error);
    let dns = Dns::system().map_err(|error| failed(&error))?;
    let mut role = RegistryProxyRole::new(NAME, site, Arc::new(dns));
    for address in options.listen.listen_on.iter() {
        role = role.listen_on(address.to_string());
    }
    serve(role.serve().await.map_err(|error| failed(&error))?, stop).await
}
