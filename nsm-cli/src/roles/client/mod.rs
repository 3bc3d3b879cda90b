//! `nsm client`.

mod connection;
mod dns;
mod earlier;
mod events;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures::future::join_all;
use nsm_api::ServiceUrl;
use nsm_api::mechanism::{KERNEL, MEMIF};
use nsm_chain::{elements, from_fn};
use nsm_dns::UseDns;
use nsm_mechanisms::{KernelLiveness, KernelOffer};
use nsm_sdk::context::{AwarenessGroups, ClientInfo, ExcludedPrefixes};
use nsm_sdk::lifetime::UpstreamRefresh;
use nsm_sdk::roles::{self, Site};
use nsm_sdk::transport::Address;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::common::Common;
use super::unless_stopped;
use crate::failure::Failure;
use crate::lab::as_asked;
use crate::settings::values::{List, Span, Switch};
use connection::Wanted;
use events::Events;

/// A client: asks for network services, and keeps an interface for each in its network namespace, or shared memory, until it ends.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
What it asks for is tried until it is there, refreshed, and made again when it breaks. Started again under the same name in \
the same namespace, it goes on with the connections of its earlier life. When it ends it closes all of them.

For kernel:// it gets an interface. For memif:// it gets shared memory: it says the socket at which a program, as memif's client \
with number 0, finds the other side, and has that socket open as long as the connection is up. It sends and takes no packets itself.

As long as an endpoint names DNS servers it resolves names for the programs of its network namespace: a name under a search \
domain of the endpoint is asked of its servers, any other of those that were there before. Meanwhile the resolv.conf of the \
namespace names this program; then it is put back, after a kill at the next start.

Example:
  NSM_NAME=nsc-1 NSM_CONNECT_TO=unix:///var/lib/networkservicemesh/nsm.io.sock \\
  NSM_NETWORK_SERVICES='kernel://icmp-responder/nsm-1?app=web' nsm client

Environment:
  NODE_NAME, POD_NAME, CLUSTER_NAME   labels of its connections")]
pub(crate) struct Options {
    /// Its name: in its identity, in errors, and with a number the ids of its connections.
    #[arg(long, value_name = "NAME", default_value = "nsc")]
    pub(super) name: String,

    /// Its manager.
    #[arg(long, value_name = "URL", default_value = "unix:///var/lib/networkservicemesh/nsm.io.sock")]
    connect_to: Address,

    /// How long a connection to the manager may take to come up.
    #[arg(long, value_name = "TIME", default_value = "5s")]
    dial_timeout: Span,

    /// How long one try of a request may take.
    #[arg(long, value_name = "TIME", default_value = "15s")]
    request_timeout: Span,

    /// What it asks for, several by commas: kernel://service@domain/interface?label=value, or memif://service for shared memory.
    #[arg(long, value_name = "URLS", default_value = "")]
    network_services: List<ServiceUrl>,

    /// Network services whose endpoints know of each other and may give the same addresses: `[url,url],[url]`.
    #[arg(long, value_name = "GROUPS", default_value = "")]
    awareness_groups: AwarenessGroups,

    /// Ping the other side now and then, and ask for another endpoint when it does not answer.
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, default_missing_value = "true")]
    liveness_check_enabled: Switch,

    /// How often.
    #[arg(long, value_name = "TIME", default_value = "200ms")]
    liveness_check_interval: Span,

    /// Within what time one of three pings must be answered.
    #[arg(long, value_name = "TIME", default_value = "1s")]
    liveness_check_timeout: Span,

    #[command(flatten)]
    names: dns::Names,

    /// How it says on standard output what becomes of its connections: text for people, or json, one object a line.
    #[arg(long, value_name = "FORM", default_value = "text")]
    events: Events,

    #[command(flatten)]
    pub(super) common: Common,
}

/// Variables of the reference's client that do nothing there either.
pub(super) const WITHOUT_EFFECT: &[&str] = &["NSM_LABELS", "NSM_MECHANISM"];

/// How long each connection may take to be closed at the end.
const CLOSING: Duration = Duration::from_secs(15);
/// How long it may take to say so.
const SAYING: Duration = Duration::from_secs(1);

pub(super) async fn run(options: Options, site: Site, stop: CancellationToken) -> Result<(), Failure> {
    let name = options.name.as_str();
    if let Some(url) = options.network_services.iter().find(|url| ![KERNEL, MEMIF].contains(&&*url.mechanism)) {
        let cause = format!("{}://{} asks for {}", url.mechanism.to_lowercase(), url.service, url.mechanism);
        let remedy =
            "this client has kernel interfaces and shared memory: write kernel://service/interface or memif://service";
        return Err(Failure::at(name, cause, remedy));
    }
    let site = site.dial_timeout(options.dial_timeout.0);
    let mut builder = roles::client(name, &site, &options.connect_to.to_string())
        .try_timeout(options.request_timeout.0)
        .with(elements![
            ClientInfo::from_env(),                                             // where it runs
            UpstreamRefresh::default(), // asks again when the endpoint wants to be asked
            KernelOffer::new(),         // interfaces of this namespace
            from_fn(as_asked),          // and none in place of shared memory
            ExcludedPrefixes::sharing_within(options.awareness_groups.clone()), // no two with the same address
        ]);
    let dns = options.names.begin();
    if let Some(dns) = &dns {
        builder = builder.with(elements![UseDns::new(dns.clone())]); // names, by its endpoints' servers
    }
    if options.liveness_check_enabled.0 {
        let (interval, within) = (options.liveness_check_interval.0, options.liveness_check_timeout.0);
        builder = builder.liveness(Arc::new(KernelLiveness), interval, within);
    }
    let client = builder.build().map_err(|error| Failure::of(name, &error))?;
    let urls = options.network_services.iter().enumerate();
    let wanted: Vec<Wanted> =
        urls.map(|(at, url)| Wanted::new(format!("{name}-{at}"), url.clone(), &options)).collect();
    let events = options.events;
    events.note(&format!("{name} asks {} for {}", options.connect_to, plural(wanted.len(), "connection")));
    let telling = TaskTracker::new();
    unless_stopped(&stop, async {
        join_all(wanted.iter().map(async |wanted| {
            wanted.obtain(&client).await;
            if let Some(session) = client.session(wanted.id()) {
                telling.spawn(events.follow(session.id().to_owned(), session.changes()));
            }
        }))
        .await;
        stop.cancelled().await;
    })
    .await;
    let open = client.connections().handles().len();
    let closed = client.shutdown(CLOSING).await;
    // What could not be closed in time is left to itself, and said to be.
    drop(client);
    let restored = dns.map_or(Ok(()), |dns| dns.close());
    telling.close();
    let _said = tokio::time::timeout(SAYING, telling.wait()).await;
    closed.map_err(|error| Failure::of(name, &error))?;
    restored.map_err(|error| Failure::of(name, &error))?;
    events.note(&format!("{name} closed {}", plural(open, "connection")));
    Ok(())
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
