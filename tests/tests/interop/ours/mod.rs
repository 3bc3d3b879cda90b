//! Our roles, in the language of the suite: this test program started again as one role.

mod client;
mod servers;
mod talk;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nsm_sdk::identity::HmacTokens;
use nsm_sdk::roles::Site;
use nsm_sdk::transport::Transport;
use nsm_spiffe::WorkloadApi;

use talk::Talk;

/// The first argument that makes this program one role.
pub(crate) const COMMAND: &str = "role";

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the command line says.
#[derive(Debug)]
struct Settings {
    name: String,
    /// The first one is where others reach it.
    listen: Vec<String>,
    upstream: String,
    service: String,
    prefix: String,
    /// Of a forwarder, in the network between nodes.
    tunnel: Option<IpAddr>,
    security: String,
}

impl Settings {
    fn parse(role: &str, arguments: &[String]) -> Result<Self, Failure> {
        let mut given = BTreeMap::new();
        for pair in arguments.chunks(2) {
            let [key, value] = pair else { return Err(format!("{pair:?} has no value").into()) };
            given.insert(key.trim_start_matches('-'), value.as_str());
        }
        let mut take = |key: &str, fallback: &str| given.remove(key).unwrap_or(fallback).to_owned();
        let settings = Self {
            name: take("name", role),
            listen: take("listen", "").split(',').map(str::to_owned).collect(),
            upstream: take("upstream", ""),
            service: take("service", ""),
            prefix: take("prefix", "172.16.0.0/24"),
            tunnel: Some(take("tunnel", "")).filter(|text| !text.is_empty()).map(|text| text.parse()).transpose()?,
            security: take("security", "insecure"),
        };
        match given.keys().next() {
            None => Ok(settings),
            Some(unknown) => Err(format!("no setting {unknown:?}").into()),
        }
    }
}

/// Who the role is.
async fn site(security: &str) -> Result<Site, Failure> {
    match security {
        "insecure" => {
            let tokens = HmacTokens::with_lifetime(&"spiffe://test.com/subject".parse()?, Duration::from_secs(600));
            Ok(Site::over(Transport::insecure(Arc::new(tokens))))
        }
        "mtls" => {
            let identity = WorkloadApi::from_env()?;
            identity.ready(Duration::from_secs(10)).await?;
            Ok(Site::mtls(identity.into_source()))
        }
        other => Err(format!("no security {other:?}").into()),
    }
}

/// Is a role until it is told to leave or its standard input ends.
pub(crate) fn main(role: &str, arguments: &[String]) -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::new("info");
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
    let done = Settings::parse(role, arguments).and_then(|settings| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(run(role, settings))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{role}: {failure:#}");
            let mut cause = failure.source();
            while let Some(because) = cause {
                eprintln!("  because {because}");
                cause = because.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(role: &str, settings: Settings) -> Result<(), Failure> {
    let site = site(&settings.security).await?;
    let talk = Talk::new();
    match role {
        "registry" => servers::registry(&settings, &site, &talk).await,
        "manager" => servers::manager(&settings, &site, &talk).await,
        "forwarder" => servers::forwarder(&settings, &site, &talk).await,
        "endpoint" => servers::endpoint(&settings, &site, &talk).await,
        "client" => client::run(&settings, &site, &talk).await,
        other => Err(format!("no role {other:?}").into()),
    }
}
