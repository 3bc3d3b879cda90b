//! `nsm endpoint`.

mod function;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use nsm_api::NetworkService;
use nsm_api::mechanism::{KERNEL, NOOP, VLAN};
use nsm_chain::{Call, Code, Node, Timers, elements};
use nsm_kernel::{Filter, Netns, Rate};
use nsm_mechanisms::{KernelAccept, Mechanisms, Noop, RateLimit, VlanAccept};
use nsm_sdk::context::{DnsConfigs, PolicyRoutes};
use nsm_sdk::ipam::{Group, PointToPoint, Pool};
use nsm_sdk::lifetime::{Backoff, OnIdle};
use nsm_sdk::registry::stacks::RegistryClient;
use nsm_sdk::roles::{EndpointRole, Site};
use nsm_sdk::transport::Address;
use tokio_util::sync::CancellationToken;

use super::common::{ClientPolicies, Common};
use super::{announce, unless_stopped};
use crate::failure::Failure;
use crate::lab::Sockets;
use crate::passthrough::passing_on;
use crate::settings::values::{CidrGroups, DnsSettings, Labels, List, Maybe, Span, Switch, VlanServices};
use function::Function;

/// An endpoint: the ICMP responder, which gives addresses and answers pings, or one that packets pass through to the next.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Interfaces are made in the network namespace of this program. A network service that is registered already stays as it is.

A passthrough is a client again: each connection goes on to the endpoint that the rules of its network service choose for clients with \
the labels of this one, and packets are forwarded by the kernel between the two. A firewall is one that lets only those pass that \
its filter allows, and answers to them. Both make a router of their network namespace: give them one of their own.

Example:
  NSM_NAME=nse-1 NSM_CONNECT_TO=unix:///var/lib/networkservicemesh/nsm.io.sock \\
  NSM_SERVICE_NAMES=icmp-responder NSM_PAYLOAD=IP NSM_CIDR_PREFIX=172.16.1.0/24,fd00:172:16::/64 nsm endpoint")]
pub(crate) struct Options {
    /// Its name: in the registry, in paths, in its identity, and in errors.
    #[arg(long, value_name = "NAME", default_value = "icmp-server")]
    pub(super) name: String,

    /// Directory from which relative paths of other settings start.
    #[arg(long, value_name = "DIR", default_value = "./")]
    base_dir: PathBuf,

    /// Its manager.
    #[arg(long, value_name = "URL", default_value = "unix:///var/lib/networkservicemesh/nsm.io.sock")]
    connect_to: Address,

    /// Where it listens, several by commas; the first one is where its forwarder reaches it. Empty: a unix socket in a
    /// directory of its own.
    #[arg(long, value_name = "URLS", default_value = "")]
    listen_on: List<Address>,

    /// The network services it serves.
    #[arg(long, value_name = "NAMES", default_value = "icmp-responder")]
    service_names: List<String>,

    /// Network services whose clients are put into VLANs of a network outside, in place of those of `--service-names`:
    /// `finance { vlan: 100; via: gw1 }, …`. Forwarders know by `via` which interface leads there. This endpoint then has no
    /// interface; let it listen on TCP, and register with a registry.
    #[arg(long, value_name = "SERVICES", default_value = "")]
    services: VlanServices,

    /// What the network services carry: ETHERNET or IP.
    #[arg(long, value_name = "PAYLOAD", default_value = "ETHERNET")]
    payload: String,

    /// How much each connection may carry each way, such as 100Mbit. Empty: what its forwarders say.
    #[arg(long, value_name = "RATE", default_value = "")]
    rate_limit: Maybe<Rate>,

    /// What it does.
    #[arg(long, value_name = "TYPE", default_value = "icmp-responder")]
    r#type: Function,

    /// What a firewall lets pass, several by commas, of which the first that fits decides: allow or deny, then icmp, tcp, udp, sctp or
    /// any, then a port or first-last, such as `allow tcp 8080`. All else is dropped.
    #[arg(long, value_name = "RULES", default_value = "")]
    filter: List<String>,

    /// Its labels, by which the matches of a network service choose it.
    #[arg(long, value_name = "PAIRS", default_value = "")]
    labels: Labels,

    /// Prefixes to give addresses of, in groups: a connection gets a pair of each of `[a,b],[c]`, where `c` alone is as good as `[c]`.
    #[arg(long, value_name = "GROUPS", default_value = "169.254.0.0/16")]
    cidr_prefix: CidrGroups,

    /// What happens to addresses that a client brings: they stay (polite) or are taken away (strict). Those of an endpoint
    /// that it had before never stay.
    #[arg(long, value_name = "POLICY", default_value = "polite")]
    ipam_policy: Policy,

    /// DNS servers for clients, as JSON: [{"dns_server_ips": ["10.0.0.1"], "search_domains": ["my.domain"]}].
    #[arg(long, value_name = "JSON", default_value = "[]")]
    dns_configs: DnsSettings,

    /// Policy routes for clients: YAML, a list of from, proto, dstport, srcport, routes with prefix and nexthop. Read again
    /// when it changes; one that is not there, or says `[]`, has none.
    #[arg(long, value_name = "FILE", default_value = "/etc/policy-based-routing/config.yaml")]
    pbr_config_path: PathBuf,

    /// End after this much time without connections; 0 is never.
    #[arg(long, value_name = "TIME", default_value = "0")]
    idle_timeout: Span,

    /// Register the network services too.
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, default_missing_value = "true")]
    register_service: Switch,

    /// Unregister when it ends; else the registration is left to expire.
    #[arg(long, value_name = "BOOL", default_value = "false", num_args = 0..=1, default_missing_value = "true")]
    unregister_itself: Switch,

    #[command(flatten)]
    pub(super) client: ClientPolicies,

    #[command(flatten)]
    pub(super) common: Common,
}

impl Options {
    /// The network services that it serves.
    fn served(&self) -> impl Iterator<Item = &str> {
        let vlans = self.services.0.iter().map(|service| service.name.as_str());
        let names = self.service_names.iter().map(String::as_str);
        vlans.chain(names.filter(|_| self.services.0.is_empty()))
    }

    /// Into which VLANs its clients are put, if that is what it does.
    fn vlans(&self) -> nsm_chain::Result<Option<VlanAccept>> {
        let mut services = self.services.0.iter();
        let all =
            services.try_fold(VlanAccept::new(), |all, service| all.serving(&service.name, service.vlan, &service.via));
        Ok(Some(all?).filter(|_| !self.services.0.is_empty()))
    }
}

/// What to do with addresses that a client brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Policy {
    Polite,
    Strict,
}

pub(super) async fn run(options: Options, site: Site, stop: CancellationToken) -> Result<(), Failure> {
    let name = options.name.clone();
    let failed = |error: &(dyn std::error::Error + 'static)| Failure::of(&name, error);
    function::consistent(&options)?;
    if options.r#type != Function::Firewall {
        return serve(options, site, stop).await;
    }
    let filter = Filter::parse(options.filter.iter()).map_err(|error| failed(&error))?;
    let here = Netns::current().map_err(|error| failed(&error))?;
    filter.put(&here).await.map_err(|error| failed(&error))?;
    // Afterwards there are no connections any more that could pass unfiltered.
    let served = serve(options, site, stop).await;
    let removed = Filter::remove(&here).await.map_err(|error| failed(&error));
    served.and(removed)
}

/// Serves until it is told to end.
async fn serve(options: Options, site: Site, stop: CancellationToken) -> Result<(), Failure> {
    let name = options.name.clone();
    let failed = |error: &(dyn std::error::Error + 'static)| Failure::of(&name, error);
    // Removed when this function ends.
    let sockets = if options.listen_on.is_empty() { Some(Sockets::create()?) } else { None };
    let (elements, idle) = elements(&options)?;
    let mut role = EndpointRole::new(&name, site.clone()).registers_at(options.connect_to.to_string()).with(elements);
    if options.r#type != Function::IcmpResponder {
        let here = Netns::current().map_err(|error| failed(&error))?;
        let labels = options.labels.pairs().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        role = passing_on(role, &here, labels).map_err(|error| failed(&error))?;
    }
    for address in options.listen_on.iter() {
        role = role.listen_on(address.to_string());
    }
    if let Some(sockets) = &sockets {
        role = role.listen_on(sockets.url("endpoint"));
    }
    for service in options.served() {
        role = role.serves_with(service, options.labels.pairs());
    }
    let starting = async {
        let services = match options.register_service.0 {
            true => Some(register_services(&options, &site).await.map_err(|error| failed(&error))?),
            false => None,
        };
        Ok::<_, Failure>((role.serve().await.map_err(|error| failed(&error))?, services))
    };
    let Some(started) = unless_stopped(&stop, starting).await else {
        return Ok(());
    };
    let (role, _services) = started?;
    announce(&role);
    tokio::select! {
        () = stop.cancelled() => {}
        () = idle.cancelled() => tracing::info!("idle for {:?}: ending", options.idle_timeout.0),
    }
    let role = if options.unregister_itself.0 { role } else { role.staying_registered() };
    role.shutdown().await.map_err(|error| failed(&error))
}

/// What makes it the endpoint it is, and what tells that it is idle.
fn elements(options: &Options) -> Result<(Vec<Node>, CancellationToken), Failure> {
    let failed = |error: &(dyn std::error::Error + 'static)| Failure::of(&options.name, error);
    let mut list = Vec::new();
    let mut idle = CancellationToken::new();
    if !options.idle_timeout.0.is_zero() {
        let on_idle = OnIdle::after(options.idle_timeout.0, Timers::default());
        idle = on_idle.idle();
        list.push(Node::new(on_idle)); // first: a Request that is refused takes nothing
    }
    if options.r#type != Function::IcmpResponder {
        return Ok((list, idle));
    }
    let policies = options.base_dir.join(&options.pbr_config_path);
    let mechanisms = match options.vlans().map_err(|error| failed(&error))? {
        Some(vlans) => Mechanisms::new().with(VLAN, vlans),
        None => Mechanisms::new().with(KERNEL, KernelAccept::new()).and_then(|some| some.with(NOOP, Noop)),
    };
    list.extend(elements![
        addresses(options)?,                                         // what both sides are called
        PolicyRoutes::file(policies),                                // which traffic comes here; adds addresses
        DnsConfigs::new(options.dns_configs.0.clone()),              // where names are asked for
        options.rate_limit.map(RateLimit::both).unwrap_or_default(), // how much it may carry
        mechanisms.map_err(|error| failed(&error))?,                 // the interface
    ]);
    Ok((list, idle))
}

fn addresses(options: &Options) -> Result<Group, Failure> {
    let remedy = "correct NSM_CIDR_PREFIX";
    let failed = |error: nsm_sdk::ipam::PoolError| Failure::at(&options.name, error.to_string(), remedy);
    let pools = options.cidr_prefix.0.iter().map(|prefixes| Pool::new(prefixes.iter().copied()));
    let sources = pools.map(|pool| Ok(PointToPoint::new(pool?).into())).collect::<Result<Vec<_>, _>>();
    let group = sources.and_then(Group::new).map_err(failed)?;
    Ok(if options.ipam_policy == Policy::Strict { group.strict() } else { group })
}

/// Registers the network services, but for those that somebody has registered in another form. As long as the client
/// lives, they are registered again with a registry that has lost them.
async fn register_services(options: &Options, site: &Site) -> nsm_chain::Result<RegistryClient> {
    let client = site
        .registry_client(&options.name, site.channels(), options.connect_to.to_string())
        .build()
        .map_err(|error| nsm_chain::Error::internal("the registry client").because(error))?;
    for name in options.served() {
        if let Some(found) = registered(&client, name).await? {
            let (theirs, ours) = (&found.payload, &options.payload);
            if theirs != ours {
                tracing::warn!(
                    service = name,
                    "it is registered for {theirs} and stays so; this endpoint is for {ours}"
                );
            }
            if theirs != ours || !found.matches.is_empty() {
                continue;
            }
        }
        let service = NetworkService { name: name.to_owned(), payload: options.payload.clone(), ..Default::default() };
        client.services.request(Call::new(service).within(REGISTERING)).await?;
    }
    Ok(client)
}

/// The network service of that name, as soon as the manager can say whether it is there.
async fn registered(client: &RegistryClient, name: &str) -> nsm_chain::Result<Option<Arc<NetworkService>>> {
    let end = tokio::time::Instant::now() + REGISTERING;
    let mut pauses = Backoff::of(Duration::from_millis(200), Duration::from_secs(5), name);
    loop {
        pauses.wait().await;
        match client.finder().service(name, "").await {
            Ok(found) => return Ok(Some(found)),
            Err(error) if error.code() == Code::NotFound => return Ok(None),
            Err(error) if error.code() != Code::Unavailable || tokio::time::Instant::now() >= end => return Err(error),
            Err(error) => tracing::debug!(%error, "the manager cannot be asked yet"),
        }
    }
}

/// How long the registration of a network service may take, tries included.
const REGISTERING: Duration = Duration::from_secs(30);
