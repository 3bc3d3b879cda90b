//! `nsm forwarder`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use nsm_chain::{Node, elements};
use nsm_kernel::{Netns, Rate, VlanPort};
use nsm_mechanisms::{
    CrossConnect, Linux, MechanismPriority, Meter, Pace, RateLimit, Reconcile, Underlay, Wireguard, WithMemif,
};
use nsm_sdk::roles::{ForwarderRole, Site};
use nsm_sdk::transport::Address;
use tokio_util::sync::CancellationToken;

use super::common::{ClientPolicies, Common, ListenOn};
use super::prometheus::Prometheus;
use super::{serve, tunnel, unless_stopped, uplinks};
use crate::failure::Failure;
use crate::settings::values::{Labels, List, Maybe, Span};

/// The forwarder of a node: makes interfaces and tunnels by the Linux kernel; of packets, WireGuard's alone pass this program.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
It needs CAP_NET_ADMIN and CAP_SYS_ADMIN, and CAP_NET_RAW to announce addresses. What it makes carries its name; started again \
under the same name it takes up what is there, so packets flow on; over WireGuard they stop meanwhile. What no client asks for again within the lifetime of a token \
is removed then. What somebody else deletes or changes of it is put right. When a workload ends its connections are closed; \
in a container that needs the PID namespace of the node.

Example:
  NSM_NAME=forwarder-1 NSM_CONNECT_TO=unix:///var/lib/networkservicemesh/nsm.io.sock \\
  NSM_TUNNEL_IP=10.0.0.1 nsm forwarder")]
pub(crate) struct Options {
    /// Its name, the same after a restart and no other forwarder's: in paths, in its identity, in the marks of what it makes.
    #[arg(long, value_name = "NAME", default_value = "forwarder")]
    pub(super) name: String,

    /// Its labels, by which a network service's metadata may choose it.
    #[arg(long, value_name = "PAIRS", default_value = "p2p:true")]
    labels: Labels,

    /// The network service that forwarders register under.
    #[arg(long, value_name = "NAME", default_value = "forwarder")]
    nsname: String,

    /// Its manager.
    #[arg(long, value_name = "URL", default_value = "unix:///connect.to.socket")]
    connect_to: Address,

    #[command(flatten)]
    listen: ListenOn,

    /// How long a connection to the manager, an endpoint or another node may take to come up.
    #[arg(long, value_name = "TIME", default_value = "750ms")]
    dial_timeout: Span,

    /// This node's address in the network that carries tunnels. Empty: the one that leads out of this machine.
    #[arg(long, value_name = "IP", default_value = "")]
    tunnel_ip: Maybe<IpAddr>,

    /// UDP port of VXLAN; 0 is the standard one, 4789.
    #[arg(long, value_name = "PORT", default_value = "0")]
    vxlan_port: u16,

    /// UDP port of WireGuard; 0 is 51820, and no WireGuard where that cannot be had.
    #[arg(long, value_name = "PORT", default_value = "0")]
    wireguard_port: u16,

    /// Which of this node's interfaces lead to networks that have VLANs: YAML, `interfaces:` with a `name` and under `matches:`,
    /// `labelSelector:` the labels `via` of connections that go there. Empty: no VLANs.
    #[arg(long, value_name = "FILE", default_value = "")]
    device_selector_file: Maybe<PathBuf>,

    /// The same, by the name that it has at the reference's forwarder for Open vSwitch.
    #[arg(long, value_name = "FILE", default_value = "")]
    l2_resource_selector_file: Maybe<PathBuf>,

    /// Mechanisms it offers first to endpoints and other nodes, the best first.
    #[arg(long, value_name = "LIST", default_value = "")]
    mechanism_priority: List<String>,

    /// How much a connection may carry each way, if neither its endpoint nor its client says: such as 100Mbit. Empty: no limit.
    #[arg(long, value_name = "RATE", default_value = "")]
    rate_limit: Maybe<Rate>,

    #[command(flatten)]
    prometheus: Prometheus,

    #[command(flatten)]
    pub(super) client: ClientPolicies,

    #[command(flatten)]
    pub(super) common: Common,
}

/// Variables of the reference's forwarders, for what this data plane does not have.
pub(super) const WITHOUT_EFFECT: &[&str] = &[
    "NSM_BRIDGE_NAME",
    "NSM_CGROUP_PATH",
    "NSM_DEVICE_PLUGIN_PATH",
    "NSM_PCI_DEVICES_PATH",
    "NSM_PCI_DRIVERS_PATH",
    "NSM_POD_RESOURCES_PATH",
    "NSM_PROMETHEUS_CA_FILE",
    "NSM_PROMETHEUS_CERT_FILE",
    "NSM_PROMETHEUS_KEY_FILE",
    "NSM_PROMETHEUS_MAX_BIND_THRESHOLD",
    "NSM_PROMETHEUS_MONITOR_CERTIFICATE",
    "NSM_PROMETHEUS_SERVER_HEADER_TIMEOUT",
    "NSM_RESOURCE_POLL_TIMEOUT",
    "NSM_SRIOV_CONFIG_FILE",
    "NSM_VFIO_PATH",
    "NSM_VPP_API_SOCKET",
    "NSM_VPP_INIT",
    "NSM_VPP_INIT_PARAMS",
    "NSM_VPP_MIN_OPERATION_TIMEOUT",
];

pub(super) async fn run(options: Options, site: Site, stop: CancellationToken) -> Result<(), Failure> {
    let name = options.name.as_str();
    if let Some(obstacle) = nsm_kernel::privileges().obstacle {
        return Err(Failure::at(name, obstacle.to_string(), "run it as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN"));
    }
    let mut linux = linux(&options).await?;
    match VlanPort::allowed() {
        Ok(()) => {
            let node = Netns::current().map_err(|error| Failure::of(name, &error))?;
            linux = linux.with_trunks(node).map_err(|error| Failure::of(name, &error))?;
        }
        Err(error) => tracing::info!(%error, "endpoints cannot have one interface for several clients"),
    }
    let selectors = [&options.device_selector_file, &options.l2_resource_selector_file];
    if let Some(vlans) = uplinks::vlans(name, selectors.into_iter().filter_map(|file| file.as_deref())).await? {
        linux = linux.with_vlans(vlans);
    }
    let data_plane = WithMemif::over(match *options.rate_limit {
        Some(rate) => linux.with_rate_limit(RateLimit::both(rate)),
        None => linux,
    });
    // By then every client of an earlier life that is alive has asked again.
    let grace = options.common.identity.max_token_lifetime.0;
    let started = Reconcile::start(data_plane.clone(), Pace { grace, ..Pace::default() });
    let Some(reconcile) = unless_stopped(&stop, started).await else { return Ok(()) };
    let meter = Meter::new(data_plane.clone());
    let _counters = options.prometheus.serve(name, meter.readings()).await?;
    let mut wire: Vec<Node> = elements![meter, reconcile, CrossConnect::new(data_plane)];
    if !options.mechanism_priority.is_empty() {
        wire.push(Node::new(MechanismPriority::new(options.mechanism_priority.iter())));
    }
    let site = site.dial_timeout(options.dial_timeout.0);
    let mut role = ForwarderRole::new(name, site, options.connect_to.to_string(), wire)
        .service(&options.nsname)
        .labels(options.labels.0.clone());
    for address in options.listen.listen_on.iter() {
        role = role.listen_on(address.to_string());
    }
    let Some(served) = unless_stopped(&stop, role.serve()).await else { return Ok(()) };
    let role = served.map_err(|error| Failure::of(name, &error))?;
    serve(role, stop).await
}

/// The Linux data plane; with tunnels where this node has an address for them.
async fn linux(options: &Options) -> Result<Linux, Failure> {
    let failed = |error: &(dyn std::error::Error + 'static)| Failure::of(&options.name, error);
    let Some((address, mtu)) = tunnel::find(*options.tunnel_ip)? else {
        tracing::warn!("no address leads out of this machine, so other nodes are out of reach; set NSM_TUNNEL_IP");
        return Linux::new(&options.name).map_err(|error| failed(&error));
    };
    let port = if options.vxlan_port == 0 { nsm_api::mechanism::Vxlan::DEFAULT_PORT } else { options.vxlan_port };
    tracing::info!(%address, port, mtu, "tunnels");
    let underlay = Underlay::new(address).on_port(port).with_mtu(mtu);
    let node = Netns::current().map_err(|error| failed(&error))?;
    let wireguard = wireguard(options, &node, address, mtu).await?;
    let linux = Linux::with_underlay(&options.name, underlay, node).map_err(|error| failed(&error))?;
    Ok(match wireguard {
        Some(wireguard) => linux.with_wireguard(wireguard),
        None => linux,
    })
}

/// WireGuard beside VXLAN; none where it cannot be had and nobody asked for its port.
async fn wireguard(options: &Options, node: &Netns, address: IpAddr, mtu: u32) -> Result<Option<Wireguard>, Failure> {
    let asked = options.wireguard_port != 0;
    let port = if asked { options.wireguard_port } else { Wireguard::DEFAULT_PORT };
    match Wireguard::bind(node, (address, port).into(), mtu).await {
        Ok(wireguard) => Ok(Some(wireguard)),
        Err(error) if asked => Err(Failure::of(&options.name, &error)),
        Err(error) => {
            tracing::warn!(%error, "wires to other nodes are VXLAN only");
            Ok(None)
        }
    }
}
