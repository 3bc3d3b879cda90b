//! Nodes, a client and an endpoint, each with the elements that it has in the programs.

use std::net::IpAddr;
use std::sync::Arc;

use nsm_api::mechanism::{KERNEL, MEMIF, NOOP, VLAN, VXLAN, WIREGUARD};
use nsm_api::{Connection, ConnectionContext, IpContext, Mechanism, Path, PathSegment};
use nsm_chain::{Begin, Call, Chain, Element, Error, Next, NextHop, OwnedNext, Result, elements, from_fn};
use nsm_kernel::{Census, InterfaceSpec, Netns, PeerNeighbours, Underlay as Network, VethWire, VlanPort};
use nsm_mechanisms::{
    CrossConnect, KernelAccept, KernelOffer, Linux, MechanismPriority, Mechanisms, MemifAccept, MemifOffer, Noop,
    Underlay, VlanAccept, Vlans, Wireguard, WithMemif, Workload,
};
use nsm_memif::Memif;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::cell::{Cell, End, Family, Inner, Way};
use crate::mirror;

/// The MTU of Ethernet.
pub(crate) const ETHERNET_MTU: u32 = 1500;

/// The VLAN in which the endpoint's host is, and where.
pub(crate) const VLAN_ID: u16 = 100;
const SERVICE: &str = "wires";
const VIA: &str = "outside";
const UPLINK: &str = "uplink";

/// The network between the client's node, the endpoint's and one more for relays, and what may be left in them.
pub(crate) struct Nodes {
    network: Network,
    planes: [WithMemif<Linux>; 3],
}

/// One cell brought up.
pub(crate) struct Lab<'a> {
    pub(crate) client: Netns,
    pub(crate) endpoint: Netns,
    nodes: Option<&'a Nodes>,
    /// The host outside, where that is the other end.
    host: Option<VethWire>,
    /// The data planes that take part, the client's first.
    planes: Vec<WithMemif<Linux>>,
    chain: Chain,
    /// Each interface of shared memory that the client gets.
    pub(crate) interfaces: Mutex<UnboundedReceiver<Memif>>,
    /// The one that it works with.
    pub(crate) kept: Mutex<Option<Memif>>,
    before: Vec<(Netns, Census)>,
}

impl Nodes {
    pub(crate) async fn new(family: Family) -> Result<Self> {
        let prefix = match family {
            Family::V4 => "192.0.2.0/24",
            Family::V6 => "2001:db8::/64",
        };
        let network = Network::create(3, prefix.parse().map_err(wrong)?).await.map_err(wrong)?;
        let planes = [plane(&network, 0).await?, plane(&network, 1).await?, plane(&network, 2).await?];
        Ok(Self { planes, network })
    }

    /// The namespace of the client's node, where all that crosses passes.
    pub(crate) fn near(&self) -> &Netns {
        &self.network.nodes()[0].netns
    }

    /// The namespace of the endpoint's node.
    pub(crate) fn far(&self) -> &Netns {
        &self.network.nodes()[1].netns
    }

    /// Of the client's node, the endpoint's, and the one in the middle.
    pub(crate) fn addresses(&self) -> [IpAddr; 3] {
        [0, 1, 2].map(|number: usize| self.network.nodes()[number].ip())
    }
}

impl<'a> Lab<'a> {
    pub(crate) async fn new(cell: &Cell, nodes: Option<&'a Nodes>) -> Result<Self> {
        let client = Netns::create().await.map_err(wrong)?;
        let endpoint = Netns::create().await.map_err(wrong)?;
        let serves = serving(cell, &endpoint)?;
        let (planes, forwarders) = match (cell.way, nodes) {
            (Way::Local, _) => {
                let plane = WithMemif::over(Linux::new("fwd")?);
                let chain = forwarder(&plane, "unix:///nse.sock", None, serves)?;
                (vec![plane], chain)
            }
            (way, Some(nodes)) => {
                let [near, far, middle] = nodes.planes.clone();
                let first = match way {
                    Way::Wireguard(_) => WIREGUARD,
                    Way::Vlan => VLAN,
                    _ => VXLAN,
                };
                let chain = if way == Way::Vlan { serves } else { forwarder(&far, "unix:///nse.sock", None, serves)? };
                let (planes, chain) = if way == Way::Vlan {
                    (vec![near.clone()], chain)
                } else if matches!(way, Way::Relay(_)) {
                    let chain = forwarder(&middle, "tcp://far:5001", Some(first), chain)?;
                    (vec![near.clone(), middle, far], chain)
                } else {
                    (vec![near.clone(), far], chain)
                };
                (planes, forwarder(&near, "tcp://next:5001", Some(first), chain)?)
            }
            (way, None) => return Err(Error::internal(format!("{way:?} needs a network between nodes"))),
        };
        let (to, interfaces) = unbounded_channel();
        let chain = asking(cell, &client, to, forwarders)?;
        let mut before = Vec::new();
        let between = nodes.iter().flat_map(|nodes| nodes.network.nodes()).map(|node| node.netns.clone());
        for netns in [client.clone(), endpoint.clone()].into_iter().chain(between) {
            let census = Census::take(&netns).await.map_err(wrong)?;
            before.push((netns, census));
        }
        let host = match nodes.filter(|_| cell.way == Way::Vlan) {
            Some(nodes) => Some(host(cell, &endpoint, nodes.far()).await?),
            None => None,
        };
        Ok(Self {
            client,
            endpoint,
            nodes,
            host,
            planes,
            chain,
            interfaces: Mutex::new(interfaces),
            kept: Mutex::default(),
            before,
        })
    }

    pub(crate) fn nodes(&self) -> Option<&Nodes> {
        self.nodes
    }

    /// The client asks, as often as it is called.
    pub(crate) async fn ask(&self, cell: &Cell) -> Result<Arc<Connection>> {
        let segment = PathSegment { name: "nsc".into(), id: "1".into(), ..Default::default() };
        let asked = Connection {
            id: "1".into(),
            network_service: SERVICE.into(),
            payload: cell.payload.name().into(),
            path: Some(Path { index: 0, path_segments: vec![segment] }),
            ..Default::default()
        };
        Ok(self.chain.request(Call::new(asked)).await?.share())
    }

    pub(crate) async fn close(&self, connection: Arc<Connection>) -> Result<()> {
        self.chain.close(Call::new(connection)).await.map(drop)
    }

    /// What is there that was not before.
    pub(crate) async fn left(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        if let (Some(host), Some(nodes)) = (&self.host, self.nodes) {
            host.delete().await.map_err(wrong)?;
            let uplink = UPLINK.parse().map_err(wrong)?;
            VlanPort::release(&uplink, nodes.far(), &host.b().spec().name).await.map_err(wrong)?;
            let filters = VlanPort::sweep(nodes.near(), &uplink).await.map_err(wrong)?;
            left.extend((filters > 0).then(|| format!("{filters} filters at {UPLINK} for nobody")));
        }
        for (netns, before) in &self.before {
            let diff = before.diff(&Census::take(netns).await.map_err(wrong)?);
            if diff != nsm_kernel::CensusDiff::default() {
                left.push(diff.to_string().trim().to_owned());
            }
        }
        let wires = |plane: &&WithMemif<Linux>| plane.wires() + plane.other().wires() > 0;
        left.extend(self.planes.iter().filter(wires).map(|plane| format!("wires of {plane:?}")));
        Ok(left)
    }
}

pub(crate) fn wrong(error: impl Into<nsm_chain::BoxError>) -> Error {
    Error::internal("the lab").because(error)
}

/// The way to the next hop, which here is another chain.
struct To(Chain);

impl Element for To {
    async fn request(&self, mut call: Call, _next: Next<'_>) -> Result<Call> {
        let asked = Call::request(call.share(), call.preferences().to_vec());
        call.set_body(self.0.request(asked).await?.share());
        Ok(call)
    }

    async fn close(&self, call: Call, _next: Next<'_>) -> Result<Call> {
        self.0.close(Call::new(call.share())).await.map(|_| call)
    }
}

/// The data plane of a node, with all that leads to the other one.
async fn plane(network: &Network, number: usize) -> Result<WithMemif<Linux>> {
    let node = &network.nodes()[number];
    let address = (node.ip(), Wireguard::DEFAULT_PORT).into();
    let wireguard = Wireguard::bind(&node.netns, address, ETHERNET_MTU).await?;
    let linux = Linux::with_underlay(&format!("fwd-{number}"), Underlay::new(node.ip()), node.netns.clone())?;
    let linux = linux.with_wireguard(wireguard);
    Ok(WithMemif::over(match VlanPort::allowed() {
        Ok(()) => linux.with_vlans(Vlans::new(node.netns.clone(), [(VIA, UPLINK)]).await.map_err(wrong)?),
        Err(_) => linux,
    }))
}

/// Puts a host that has the endpoint's addresses into the VLAN, by the uplink of its node.
async fn host(cell: &Cell, netns: &Netns, node: &Netns) -> Result<VethWire> {
    let mac = [2, 0, 0, 0, 0, 0x77];
    let mut inside = InterfaceSpec::new("eth0", "nsm:host").map_err(wrong)?.with_mac(mac).with_mtu(ETHERNET_MTU);
    for [client, own] in addresses(cell.inner) {
        inside = inside.with_address(own.into()).with_route(client.into(), None);
    }
    let port = VlanPort { uplink: UPLINK.parse().map_err(wrong)?, id: VLAN_ID, mac: Some(mac) };
    let port = InterfaceSpec::new("host", "nsm:host").map_err(wrong)?.with_mtu(ETHERNET_MTU).into_vlan(port);
    VethWire::create((netns, &inside), (node, &port), PeerNeighbours::Learned).await.map_err(wrong)
}

fn serving(cell: &Cell, netns: &Netns) -> Result<Chain> {
    let accepts = match cell.endpoint {
        End::Kernel if cell.way == Way::Vlan => {
            let accept = VlanAccept::new().serving(SERVICE, VLAN_ID, VIA)?;
            Mechanisms::new().with(VLAN, accept).map_err(wrong)?
        }
        End::Kernel => {
            let accept = KernelAccept::new().in_netns(Workload::of(netns));
            Mechanisms::new().with(KERNEL, accept).map_err(wrong)?
        }
        End::Memif => {
            let answers = MemifAccept::new(|memif: Memif, connection: Arc<Connection>| async move {
                mirror::answers(memif, &connection.payload).await;
            });
            Mechanisms::new().with(MEMIF, answers).map_err(wrong)?
        }
        End::Noop => Mechanisms::new().with(NOOP, Noop).map_err(wrong)?,
    };
    let inner = cell.inner;
    let addresses = from_fn(move |mut call: Call, next: OwnedNext| {
        let mtu = call.connection().context.as_ref().map_or(0, |context| context.mtu);
        call.connection_mut().context =
            Some(ConnectionContext { mtu, ip_context: Some(addressed(inner)), ..Default::default() });
        async move { next.request(call).await }
    });
    Chain::new("nse", elements![Begin::default(), accepts, addresses]).map_err(wrong)
}

/// One that offers mechanisms of this type first, if any.
fn forwarder(plane: &WithMemif<Linux>, hop: &'static str, first: Option<&str>, next: Chain) -> Result<Chain> {
    let discovery = from_fn(move |mut call: Call, next: OwnedNext| {
        call.set_fact(NextHop(hop.into()));
        async move { next.request(call).await }
    });
    let priority = MechanismPriority::new(first);
    let wire = CrossConnect::new(plane.clone());
    Chain::new("fwd", elements![Begin::default(), discovery, wire, priority, To(next)]).map_err(wrong)
}

fn asking(cell: &Cell, netns: &Netns, to: UnboundedSender<Memif>, next: Chain) -> Result<Chain> {
    let mut list = elements![Begin::initiator()];
    match cell.client {
        End::Kernel => list.extend(elements![KernelOffer::new().in_netns(Workload::of(netns))]),
        // The endpoint's kernel does not begin to talk by itself: whoever tries the wire does it there.
        End::Memif if cell.endpoint == End::Kernel => {
            let answers = |memif: Memif, connection: Arc<Connection>| async move {
                mirror::answers(memif, &connection.payload).await;
            };
            list.extend(elements![MemifOffer::new(answers)]);
        }
        End::Memif => list.extend(elements![MemifOffer::new(move |memif: Memif, _: Arc<Connection>| {
            let to = to.clone();
            async move {
                // Whoever gets it works on it; here it is kept until it is closed.
                let _nobody_looks = to.send(memif);
                std::future::pending::<()>().await;
            }
        })]),
        End::Noop => list.extend(elements![from_fn(|mut call: Call, next: OwnedNext| {
            call.extra_mut().push(Mechanism::noop());
            async move { next.request(call).await }
        })]),
    }
    list.extend(elements![To(next)]);
    Chain::new("nsc", list).map_err(wrong)
}

/// The client's and the endpoint's addresses.
pub(crate) fn addresses(inner: Inner) -> Vec<[IpAddr; 2]> {
    let v4 = inner.v4().then_some([IpAddr::from([10, 7, 0, 1]), IpAddr::from([10, 7, 0, 0])]);
    let v6 = inner.v6().then(|| [1, 0].map(|host| IpAddr::from([0xfd07, 0, 0, 0, 0, 0, 0, host])));
    v4.into_iter().chain(v6).collect()
}

fn addressed(inner: Inner) -> IpContext {
    let net = |ip: IpAddr| format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 });
    let (src, dst) = addresses(inner).into_iter().map(|[client, endpoint]| (net(client), net(endpoint))).unzip();
    IpContext { src_ip_addrs: src, dst_ip_addrs: dst, ..Default::default() }
}
