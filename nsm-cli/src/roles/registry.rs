//! `nsm registry`.

use clap::Args;
use nsm_sdk::roles::RegistryRole;
use nsm_sdk::transport::Address;
use tokio_util::sync::CancellationToken;

use super::common::{Common, ListenOn};
use super::{identity, serve};
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

    #[command(flatten)]
    pub(super) common: Common,
}

/// The name it has in its identity and its errors; the reference has no setting for it.
const NAME: &str = "registry";

pub(super) async fn run(options: Options, stop: CancellationToken) -> Result<(), Failure> {
    let failed = |error| Failure::of(NAME, &error);
    let mut role =
        RegistryRole::new(NAME, identity::site(&options.common, NAME)?).default_expiration(options.expire_period.0);
    for address in options.listen.listen_on.iter() {
        role = role.listen_on(address.to_string());
    }
    serve(role.serve().await.map_err(failed)?, stop).await
}
