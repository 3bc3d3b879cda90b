//! Names for the programs of its network namespace.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use nsm_dns::{LocalDns, Place, ResolvConf};

use crate::settings::values::{Maybe, Switch};

/// What is set about DNS.
#[derive(Debug, Clone, Args)]
pub(super) struct Names {
    /// Resolve names by the DNS servers that endpoints name.
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, default_missing_value = "true")]
    local_dns_server_enabled: Switch,

    /// Where it listens for DNS, over UDP and TCP, while an endpoint names servers. With a port other than 53 no resolv.conf can
    /// name it.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:53")]
    local_dns_server_address: SocketAddr,

    /// The resolv.conf of its network namespace. Empty: /etc/resolv.conf, or if programs of other network namespaces read that
    /// too, /etc/netns/NAME/resolv.conf, where the namespace has a name.
    #[arg(long, value_name = "FILE", default_value = "")]
    resolv_conf: Maybe<PathBuf>,
}

impl Names {
    /// Puts back what an earlier life has left, and gives what will resolve names.
    pub(super) fn begin(&self) -> Option<LocalDns> {
        let file = self.resolv_conf.as_ref().map_or_else(ResolvConf::here, ResolvConf::at);
        match file.recover() {
            Ok(true) => tracing::info!(path = %file.path().display(), "what an earlier life has changed is put back"),
            Ok(false) => {}
            Err(error) => tracing::warn!("what an earlier life has changed is not put back: {error}"),
        }
        self.local_dns_server_enabled.0.then(|| LocalDns::new(Place::Here, self.local_dns_server_address, file))
    }
}
