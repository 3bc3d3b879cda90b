//! What a careful person would ask of the kernel for the same wires by hand: nothing more, in as few datagrams as possible.

use std::error::Error;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nsm_kernel::{Netns, Node};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// One end of a wire: where it is, and what it is called and answers to.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) netns: Netns,
    pub(crate) name: String,
    /// Its number in that namespace; fixed, so that nothing needs to be asked for.
    pub(crate) index: u32,
    pub(crate) ip: Ipv4Addr,
    pub(crate) mac: [u8; 6],
}

/// A socket in a namespace, opened before anything is measured.
pub(crate) struct Rtnl {
    socket: Socket,
    sent: u32,
}

impl Rtnl {
    pub(crate) async fn open(netns: &Netns) -> Outcome<Self> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            std::io::Result::Ok(socket)
        };
        Ok(Self { socket: netns.run(open).await?, sent: 0 })
    }

    /// Sends all of them at once, and waits until each is acknowledged.
    fn apply(&mut self, messages: Vec<RouteNetlinkMessage>) -> Outcome<()> {
        let (mut datagram, count) = (Vec::new(), messages.len());
        for message in messages {
            self.sent += 1;
            let creates = !matches!(message, RouteNetlinkMessage::DelLink(_));
            let mut message = NetlinkMessage::from(message);
            message.header.flags = NLM_F_REQUEST | NLM_F_ACK | if creates { NLM_F_CREATE | NLM_F_EXCL } else { 0 };
            message.header.sequence_number = self.sent;
            message.finalize();
            let at = datagram.len();
            datagram.resize(at + message.buffer_len(), 0);
            message.serialize(&mut datagram[at..]);
        }
        self.socket.send(&datagram, 0)?;
        let mut answered = 0;
        while answered < count {
            let (answers, _) = self.socket.recv_from_full()?;
            let mut rest = &answers[..];
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)?;
                if let NetlinkPayload::Error(error) = &answer.payload
                    && error.code.is_some()
                {
                    return Err(error.to_io().into());
                }
                answered += 1;
                rest = &rest[(answer.header.length as usize).next_multiple_of(4).min(rest.len())..];
            }
        }
        Ok(())
    }
}

/// A veth pair, each end made where it belongs, with addresses, routes and neighbours, as a wire for IP has them.
pub(crate) fn veth(sockets: (&mut Rtnl, &mut Rtnl), ends: (&End, &End), mtu: u32) -> Outcome<()> {
    let mut link = new_link(ends.0, mtu);
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(new_link(ends.1, mtu)))),
    ]));
    sockets.0.apply(vec![RouteNetlinkMessage::NewLink(link)])?;
    sockets.1.apply(configured(ends.1, ends.0))?;
    sockets.0.apply(configured(ends.0, ends.1))
}

/// One end of a tunnel between two nodes: made in the node's namespace, by its socket, and put where it belongs.
pub(crate) fn vxlan(
    sockets: (&mut Rtnl, &mut Rtnl),
    nodes: (&Node, &Node),
    vni: u32,
    ends: (&End, &End),
    mtu: u32,
) -> Outcome<()> {
    let (std::net::IpAddr::V4(local), std::net::IpAddr::V4(remote)) = (nodes.0.ip(), nodes.1.ip()) else {
        return Err("the network between the nodes is of IPv4".into());
    };
    let mut link = new_link(ends.0, mtu);
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Vxlan),
        LinkInfo::Data(InfoData::Vxlan(vec![
            InfoVxlan::Id(vni),
            InfoVxlan::Local(local),
            InfoVxlan::Group(remote),
            InfoVxlan::Port(4789),
            InfoVxlan::Learning(false),
        ])),
    ]));
    sockets.0.apply(vec![RouteNetlinkMessage::NewLink(link)])?;
    sockets.1.apply(configured(ends.0, ends.1))
}

/// Takes a pair away again.
pub(crate) fn delete(socket: &mut Rtnl, end: &End) -> Outcome<()> {
    let mut link = LinkMessage::default();
    link.header.index = end.index;
    socket.apply(vec![RouteNetlinkMessage::DelLink(link)])
}

fn new_link(end: &End, mtu: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = end.index;
    link.attributes = vec![
        LinkAttribute::IfName(end.name.clone()),
        LinkAttribute::NetNsFd(end.netns.as_fd().as_raw_fd()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::Address(end.mac.to_vec()),
    ];
    link
}

/// Up, with one address, a route to the other end, and that one's hardware address.
fn configured(own: &End, other: &End) -> Vec<RouteNetlinkMessage> {
    let mut up = LinkMessage::default();
    up.header.index = own.index;
    up.header.flags = LinkFlags::Up;
    up.header.change_mask = LinkFlags::Up;

    let mut address = AddressMessage::default();
    address.header.family = AddressFamily::Inet;
    address.header.prefix_len = 32;
    address.header.index = own.index;
    address.attributes = vec![AddressAttribute::Local(own.ip.into()), AddressAttribute::Address(own.ip.into())];

    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.destination_prefix_length = 32;
    route.header.table = 254;
    route.header.protocol = RouteProtocol::Static;
    route.header.scope = RouteScope::Link;
    route.header.kind = RouteType::Unicast;
    route.attributes = vec![RouteAttribute::Destination(RouteAddress::Inet(other.ip)), RouteAttribute::Oif(own.index)];

    let mut neighbour = NeighbourMessage::default();
    neighbour.header.family = AddressFamily::Inet;
    neighbour.header.ifindex = own.index;
    neighbour.header.state = NeighbourState::Permanent;
    neighbour.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet(other.ip)),
        NeighbourAttribute::LinkLayerAddress(other.mac.to_vec()),
    ];
    vec![
        RouteNetlinkMessage::SetLink(up),
        RouteNetlinkMessage::NewAddress(address),
        RouteNetlinkMessage::NewRoute(route),
        RouteNetlinkMessage::NewNeighbour(neighbour),
    ]
}
