//! `nsm agent`.

use std::path::PathBuf;

use clap::Args;
use nsm_sdk::identity::DevAuthority;
use nsm_sdk::transport::Address;
use nsm_spiffe::{Caller, DevAgent};
use tokio_util::sync::CancellationToken;

use super::common::Program;
use super::identity::DEVELOPMENT;
use super::say;
use crate::failure::Failure;
use crate::settings::values::{Maybe, Span};

/// An agent that serves the SPIFFE Workload API, for development without SPIRE: it gives an identity to whoever asks.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
It attests nobody: whoever can open its socket gets an identity, and may choose which by its environment. Use SPIRE where \
that matters. Programs of the reference can use it as well as ours.

Example:
  nsm agent --listen-on unix:///tmp/nsm/agent.sock --authority /tmp/nsm/authority")]
pub(crate) struct Options {
    /// Where it listens; what SPIFFE_ENDPOINT_SOCKET is to be for others.
    #[arg(long, value_name = "URL", default_value = "unix:///tmp/spire-agent/public/api.sock")]
    listen_on: Address,

    /// Directory of the development authority, made if it is not there. Empty: an authority that ends with this program.
    #[arg(long, value_name = "DIR", default_value = "")]
    authority: Maybe<PathBuf>,

    /// Path of the SPIFFE ID of everybody who asks, such as /workload. Empty: each has the name that NSM_NAME is in its
    /// environment, else that of its program.
    #[arg(long, value_name = "PATH", default_value = "")]
    identity: Maybe<String>,

    /// How long certificates live; they are renewed at half of that.
    #[arg(long, value_name = "TIME", default_value = "1h")]
    certificate_lifetime: Span,

    #[command(flatten)]
    pub(super) program: Program,
}

const NAME: &str = "agent";

pub(super) async fn run(options: &Options, stop: CancellationToken) -> Result<(), Failure> {
    let failed = |error: &(dyn std::error::Error + 'static)| Failure::of(NAME, error);
    let authority = match &*options.authority {
        Some(directory) => DevAuthority::open_or_create(directory, DEVELOPMENT),
        None => DevAuthority::new(DEVELOPMENT),
    };
    let agent = DevAgent::new(authority.map_err(|error| failed(&error))?).lifetime(options.certificate_lifetime.0);
    let agent = match &*options.identity {
        Some(path) => agent.identity(path),
        None => agent.identities(|caller| Some(named(caller))),
    };
    let agent = agent.serve(&options.listen_on).await.map_err(|error| failed(&error))?;
    say(&format!("agent of spiffe://{DEVELOPMENT} listens on {}", agent.address()));
    stop.cancelled().await;
    agent.stop().await;
    Ok(())
}

/// The path of a caller's SPIFFE ID, by what its process says of itself.
fn named(caller: &Caller) -> String {
    let read = |what: &str| std::fs::read_to_string(format!("/proc/{}/{what}", caller.pid?)).ok();
    let by_variable = read("environ").and_then(|environment| name_in(&environment).map(str::to_owned));
    let by_program = || read("comm").map(|name| name.trim().to_owned());
    path(&by_variable.or_else(by_program).unwrap_or_else(|| "workload".to_owned()))
}

/// The name in an environment as the kernel gives it.
fn name_in(environment: &str) -> Option<&str> {
    environment.split('\0').find_map(|pair| pair.strip_prefix("NSM_NAME=")).filter(|name| !name.is_empty())
}

/// A path that a SPIFFE ID may have: letters, digits, dots, dashes, underscores.
fn path(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = name.chars().map(allowed).collect();
    // These mean directories.
    if name.chars().all(|c| c == '.') { "/workload".to_owned() } else { format!("/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_the_name_in_its_environment_made_fit_for_an_id() {
        assert_eq!(name_in("PATH=/bin\0NSM_NAME=nsmgr-1\0X=y\0"), Some("nsmgr-1"));
        assert_eq!(name_in("PATH=/bin\0NSM_NAME=\0"), None);
        assert_eq!(path("my nse/1"), "/my-nse-1");
        assert_eq!(path(".."), "/workload");
        for name in ["x", "..", "\u{fc}ber", "a/b"] {
            nsm_api::SpiffeId::new(&format!("spiffe://{DEVELOPMENT}{}", path(name))).unwrap();
        }
    }

    #[test]
    fn a_caller_is_known_by_its_program_where_it_names_none() {
        let caller = Caller { pid: i32::try_from(std::process::id()).ok(), ..Caller::default() };
        assert!(named(&caller).starts_with('/'));
        assert_eq!(named(&Caller::default()), "/workload");
    }
}
