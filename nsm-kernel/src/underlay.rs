//! A network of nodes on one machine, for labs: namespaces joined by a bridge.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute},
};

use crate::{
    Error, InterfaceSpec, Netns, Result,
    converge::configure_new,
    netns::{Here, Lane, work},
    rtnl::{Request, Rtnl, link},
};

/// A node of an [`Underlay`].
#[derive(Debug, Clone)]
pub struct Node {
    /// Its namespace.
    pub netns: Netns,
    /// Its address in the underlay, with the underlay's prefix length.
    pub address: IpNet,
}

impl Node {
    /// Its address alone.
    pub fn ip(&self) -> IpAddr {
        self.address.addr()
    }
}

/// Node namespaces joined by a bridge in a namespace of its own (the "hub"); nothing is made in the caller's.
///
/// The namespaces, and with them bridge and links, end with the last handle on them: drop this and the nodes.
#[derive(Debug)]
pub struct Underlay {
    hub: Netns,
    /// The number of the bridge's interface.
    bridge: u32,
    prefix: IpNet,
    nodes: Vec<Node>,
    /// How many nodes were ever joined: their ports at the bridge never have the same name.
    joined: usize,
}

const BRIDGE: &str = "nsm-underlay";
/// The name of each node's interface into the underlay.
const UPLINK: &str = "uplink";

impl Underlay {
    /// Joins `nodes` new namespaces over a bridge; they get the first host addresses of `prefix` (of either
    /// family) on their interface `uplink`.
    ///
    /// # Errors
    /// [`Error::InvalidSpec`] if `prefix` has fewer hosts, [`Error::NoPrivileges`] or what the kernel refused.
    pub async fn create(nodes: usize, prefix: IpNet) -> Result<Self> {
        let room = hosts(prefix).take(nodes).count();
        if room < nodes {
            return Err(full(prefix, room, nodes));
        }
        let hub = Netns::create().await?;
        let bridge = {
            let hub = hub.clone();
            work(Lane::Quick, move |here| create_bridge(here, &hub)).await?
        };
        let mut underlay = Self { hub, bridge, prefix, nodes: Vec::with_capacity(nodes), joined: 0 };
        for _ in 0..nodes {
            underlay.add().await?;
        }
        Ok(underlay)
    }

    /// Joins one more node, with the first host address that no other has. It is the last of [`nodes`](Self::nodes).
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub async fn add(&mut self) -> Result<&Node> {
        let taken: Vec<IpNet> = self.nodes.iter().map(|node| node.address).collect();
        let Some(address) = hosts(self.prefix).find(|address| !taken.contains(address)) else {
            return Err(full(self.prefix, taken.len(), taken.len() + 1));
        };
        let node = Node { netns: Netns::create().await?, address };
        let (hub, bridge, number, joined) = (self.hub.clone(), self.bridge, self.joined, node.clone());
        self.joined += 1;
        work(Lane::Quick, move |here| join(here, &hub, bridge, number, &joined)).await?;
        self.nodes.push(node);
        Ok(&self.nodes[self.nodes.len() - 1])
    }

    /// Lets go of the node at this position, if there is one. Its namespace, with its end of the link, ends with the last
    /// handle on it.
    pub fn remove(&mut self, at: usize) -> Option<Node> {
        (at < self.nodes.len()).then(|| self.nodes.remove(at))
    }

    /// The nodes, in the order of their addresses.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The namespace of the bridge.
    pub fn hub(&self) -> &Netns {
        &self.hub
    }
}

/// The addresses that nodes may have.
fn hosts(prefix: IpNet) -> impl Iterator<Item = IpNet> {
    prefix
        .hosts()
        // The network's own address is every router's (RFC 4291 §2.6.1), unless there are but two.
        .filter(move |ip| ip.is_ipv4() || prefix.prefix_len() >= 127 || *ip != prefix.network())
        .filter_map(move |ip| IpNet::new(ip, prefix.prefix_len()).ok())
}

fn full(prefix: IpNet, room: usize, nodes: usize) -> Error {
    Error::InvalidSpec {
        interface: UPLINK.to_owned(),
        reason: format!("{prefix} has {room} host addresses for {nodes} nodes"),
    }
}

fn create_bridge(here: &mut Here, hub: &Netns) -> Result<u32> {
    here.enter(hub)?;
    let mut rtnl = Rtnl::open()?;
    let spec = InterfaceSpec::new(BRIDGE, "nsm underlay")?;
    let mut bridge = link::new_link(&spec, hub);
    link::kind(&mut bridge, InfoKind::Bridge, None);
    rtnl.apply(vec![Request::create(RouteNetlinkMessage::NewLink(bridge))])?;
    let facts =
        rtnl.link(&spec.name)?.ok_or_else(|| Error::LinkNotFound { name: BRIDGE.to_owned(), netns: hub.id() })?;
    rtnl.apply(vec![link::mark_and_up(facts.index, &spec.alias)])?;
    Ok(facts.index)
}

fn join(here: &mut Here, hub: &Netns, bridge: u32, number: usize, node: &Node) -> Result<()> {
    let uplink = InterfaceSpec::new(UPLINK, "nsm underlay")?.with_address(node.address);
    let port = InterfaceSpec::new(&format!("node-{number}"), "nsm underlay")?;
    here.enter(hub)?;
    let mut inside = Rtnl::open()?;
    let mut end = link::new_link(&port, hub);
    end.attributes.push(LinkAttribute::Controller(bridge));
    inside.apply(vec![link::new_veth(end, link::new_link(&uplink, &node.netns))])?;
    let not_found = |name: &str, netns: &Netns| Error::LinkNotFound { name: name.to_owned(), netns: netns.id() };
    let port_facts = inside.link(&port.name)?.ok_or_else(|| not_found(port.name.as_str(), hub))?;
    inside.apply(vec![link::mark_and_up(port_facts.index, &port.alias)])?;
    here.enter(&node.netns)?;
    let mut rtnl = Rtnl::open()?;
    let facts = rtnl.link(&uplink.name)?.ok_or_else(|| not_found(UPLINK, &node.netns))?;
    configure_new(here, &mut rtnl, &node.netns, &uplink, &facts)?;
    inside.await_operational(port_facts.index)
}
