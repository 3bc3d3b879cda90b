//! `nsm manager`.

use std::path::PathBuf;

use clap::Args;
use nsm_chain::elements;
use nsm_sdk::context::ExcludedPrefixesFile;
use nsm_sdk::roles::{ManagerRole, Site};
use nsm_sdk::transport::Address;
use tokio_util::sync::CancellationToken;

use super::common::{ClientPolicies, Common, ServerPolicies};
use super::{public_url, serve, store};
use crate::failure::Failure;
use crate::settings::values::{List, Maybe, Span};

/// The manager of a node: its clients ask it, its forwarders and endpoints register with it.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Others reach the manager under the first TCP address it listens on, else under the first of all; where that names no \
host, under this machine's first IPv4 address that is no loopback.

Example:
  NSM_NAME=nsmgr-1 NSM_REGISTRY_URL=registry:5002 \\
  NSM_LISTEN_ON=unix:///var/lib/networkservicemesh/nsm.io.sock,tcp://:5001 nsm manager

Environment:
  NODE_NAME, POD_NAME, CLUSTER_NAME   labels of connections and endpoints that do not say where they are")]
pub(crate) struct Options {
    /// Its name: in paths, in its identity, and in errors.
    #[arg(long, value_name = "NAME", default_value = "nmgr")]
    pub(super) name: String,

    /// Where it listens, several by commas: unix:///path for its node, tcp://host:port for other nodes; port 0 is any
    /// free one.
    #[arg(long, value_name = "URLS", default_value = "unix:///var/lib/networkservicemesh/nsm.io.sock")]
    listen_on: List<Address>,

    /// The registry. Empty: the manager keeps all records itself, for a mesh of one node.
    #[arg(long, value_name = "URL", default_value = "tcp://localhost:5001")]
    registry_url: Maybe<Address>,

    /// How long a connection to a forwarder, an endpoint or the registry may take to come up.
    #[arg(long, value_name = "TIME", default_value = "750ms")]
    dial_timeout: Span,

    /// The network service that its forwarders register under.
    #[arg(long, value_name = "NAME", default_value = "forwarder")]
    forwarder_network_service_name: String,

    /// Prefixes that no connection of this node may get: YAML with a list `prefixes`. Read again when it changes; one
    /// that is not there excludes nothing.
    #[arg(long, value_name = "FILE", default_value = ExcludedPrefixesFile::DEFAULT_PATH)]
    excluded_prefixes_file: PathBuf,

    /// A file in which records survive the end of this program, also a sudden one, where it keeps them itself: without
    /// a registry. Empty: they are kept in memory alone.
    #[arg(long, value_name = "FILE", default_value = "")]
    store: Maybe<PathBuf>,

    #[command(flatten)]
    pub(super) server: ServerPolicies,

    #[command(flatten)]
    pub(super) client: ClientPolicies,

    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) async fn run(options: Options, site: Site, stop: CancellationToken) -> Result<(), Failure> {
    let name = options.name.as_str();
    let site = site.dial_timeout(options.dial_timeout.0);
    let mut role = ManagerRole::new(name, site)
        .forwarder_service(&options.forwarder_network_service_name)
        .with(elements![ExcludedPrefixesFile::new(&options.excluded_prefixes_file)]);
    for address in options.listen_on.iter() {
        role = role.listen_on(address.to_string());
    }
    if let Some(registry) = &*options.registry_url {
        role = role.registry(registry.to_string());
    }
    match store::journals(&options.store)? {
        Some(_) if options.registry_url.is_some() => {
            let remedy = "set NSM_REGISTRY_URL to nothing, or leave NSM_STORE to the registry";
            return Err(Failure::at(name, "it has a registry, and a store for records of its own", remedy));
        }
        Some(journals) => role = role.store(journals),
        None => {}
    }
    if let Some(url) = public_url::of(&options.listen_on)? {
        role = role.public_url(url);
    }
    serve(role.serve().await.map_err(|error| Failure::of(name, &error))?, stop).await
}
