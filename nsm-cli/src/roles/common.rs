//! Settings that roles share.

use std::path::PathBuf;

use clap::Args;
use nsm_sdk::transport::Address;

use crate::settings::values::{Level, List, Maybe, Span, Switch};

/// What every role has.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    #[command(flatten)]
    pub(crate) identity: Identity,
    #[command(flatten)]
    pub(crate) program: Program,
}

/// Who a role is.
#[derive(Debug, Clone, Args)]
pub(crate) struct Identity {
    /// Socket of the SPIFFE Workload API that gives this role its identity, such as unix:///run/spire/sockets/agent.sock.
    #[arg(long, value_name = "URL", default_value = "")]
    pub(crate) spiffe_endpoint_socket: Maybe<String>,

    /// Directory of a development authority, made if it is not there; programs that share it trust each other. In place
    /// of the Workload API, for development.
    #[arg(long, value_name = "DIR", default_value = "")]
    pub(crate) authority: Maybe<PathBuf>,

    /// Neither identity nor encryption: everybody who reaches a socket is let in. For experiments.
    #[arg(long, value_name = "BOOL", default_value = "false", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) insecure: Switch,

    /// How long a token lives at most.
    #[arg(long, value_name = "TIME", default_value = "10m")]
    pub(crate) max_token_lifetime: Span,
}

/// Whom a registry lets in.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerPolicies {
    /// Who may register, unregister and find: masks of policies, each a path or a regular expression of paths; or
    /// allow-all.
    #[arg(
        long,
        value_name = "MASKS",
        default_value = "etc/nsm/opa/common/.*.rego,etc/nsm/opa/registry/.*.rego,etc/nsm/opa/server/.*.rego"
    )]
    pub(crate) registry_server_policies: List<String>,
}

/// Which registry is believed.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClientPolicies {
    /// Whose answers to a registration are believed: masks of policies, each a path or a regular expression of paths; or
    /// allow-all.
    #[arg(
        long,
        value_name = "MASKS",
        default_value = "etc/nsm/opa/common/.*.rego,etc/nsm/opa/registry/.*.rego,etc/nsm/opa/client/.*.rego"
    )]
    pub(crate) registry_client_policies: List<String>,
}

/// How a program behaves.
#[derive(Debug, Clone, Args)]
pub(crate) struct Program {
    /// What is logged on standard error: TRACE, DEBUG, INFO, WARN or ERROR. RUST_LOG, where set, says more exactly.
    #[arg(long, value_name = "LEVEL", default_value = "INFO")]
    pub(crate) log_level: Level,

    /// A file of settings, TOML or YAML by its name.
    #[arg(long, value_name = "FILE", default_value = "")]
    pub(crate) config: Maybe<PathBuf>,

    /// Print what every setting is and where from, and end. What is printed is a file of settings.
    #[arg(long)]
    pub(crate) print_config: bool,
}

/// Where a role listens.
#[derive(Debug, Clone, Args)]
pub(crate) struct ListenOn {
    /// Where it listens, several by commas: unix:///path or tcp://host:port; port 0 is any free one.
    #[arg(long, value_name = "URLS", default_value = "unix:///listen.on.socket")]
    pub(crate) listen_on: List<Address>,
}

/// Variables of the reference that every role accepts and that have no effect here.
pub(crate) const WITHOUT_EFFECT: &[&str] = &[
    "NSM_METRICS_EXPORT_INTERVAL",
    "NSM_OPEN_TELEMETRY_ENDPOINT",
    "NSM_PPROF_ENABLED",
    "NSM_PPROF_LISTEN_ON",
    "TELEMETRY",
];
