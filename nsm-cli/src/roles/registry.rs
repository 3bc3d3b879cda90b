//! `nsm registry`.

use std::path::PathBuf;

use clap::Args;
use nsm_sdk::roles::{RegistryRole, Site};
use nsm_sdk::transport::Address;
use tokio_util::sync::CancellationToken;

use super::common::{ClientPolicies, Common, ListenOn, ServerPolicies};
use super::{serve, store};
use crate::failure::Failure;
use crate::settings::values::{Maybe, Span};

/// The registry of a mesh: which network services there are, and which endpoints serve them.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Example:
  NSM_LISTEN_ON=tcp://:5002 SPIFFE_ENDPOINT_SOCKET=unix:///run/spire/sockets/agent.sock nsm registry")]
pub(crate) struct Options {
    #[command(flatten)]
    listen: ListenOn,

    /// Where names of other domains are asked for: a manager-proxy or registry-proxy.
    #[arg(long, value_name = "URL", default_value = "")]
    proxy_registry_url: Maybe<Address>,

    /// How long an endpoint stays registered that does not say how long.
    #[arg(long, value_name = "TIME", default_value = "1m")]
    expire_period: Span,

    /// A file in which records survive the end of this program, also a sudden one. Empty: they are kept in memory alone.
    #[arg(long, value_name = "FILE", default_value = "")]
    store: Maybe<PathBuf>,

    #[command(flatten)]
    pub(super) server: ServerPolicies,

    #[command(flatten)]
    pub(super) client: ClientPolicies,

    #[command(flatten)]
    pub(super) common: Common,
}

/// The name it has in its identity and its errors; the reference has no setting for it.
pub(super) const NAME: &str = "registry";

pub(super) async fn run(options: Options, site: Site, stop: CancellationToken) -> Result<(), Failure> {
    let mut role = RegistryRole::new(NAME, site).default_expiration(options.expire_period.0);
    for address in options.listen.listen_on.iter() {
        role = role.listen_on(address.to_string());
    }
    if let Some(proxy) = &*options.proxy_registry_url {
        role = role.proxy(proxy.to_string());
    }
    if let Some(journals) = store::journals(&options.store)? {
        role = role.store(journals);
    }
    serve(role.serve().await.map_err(|error| Failure::of(NAME, &error))?, stop).await
}
