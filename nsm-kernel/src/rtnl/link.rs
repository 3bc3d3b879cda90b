//! Links: asking, making, marking, removing.

use std::{
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkExtentMask, LinkFlags,
        LinkInfo, LinkMessage, State,
    },
};

use super::{Request, Rtnl};
use crate::{InterfaceSpec, Result, spec::InterfaceName};

/// Between two questions, where the kernel works on something it acknowledged already.
pub(crate) const PAUSE: Duration = Duration::from_micros(50);
/// Questions until we go on regardless: 0.1 s.
pub(crate) const PATIENCE: u32 = 2000;

/// What the kernel tells about a link.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LinkFacts {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alias: Option<String>,
    pub(crate) kind: Option<String>,
    /// Number and UDP port, if it is a VXLAN device.
    pub(crate) vxlan: Option<(u32, u16)>,
    pub(crate) mac: Option<[u8; 6]>,
    /// The number of the other end of a pair, in that one's namespace.
    pub(crate) peer: Option<u32>,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    /// Carrier is there and the kernel has taken note of it.
    pub(crate) operational: bool,
    /// Its driver does not tell of carriers, so it always has one: such as a TUN device that was open since it was made.
    pub(crate) untold: bool,
    /// It routes IPv6 packets (`forwarding` among its settings). Of netlink: a path in /proc/sys is the slower to find the
    /// more namespaces there are.
    pub(crate) forwards_ipv6: bool,
}

impl From<LinkMessage> for LinkFacts {
    fn from(link: LinkMessage) -> Self {
        let mut facts =
            Self { index: link.header.index, up: link.header.flags.contains(LinkFlags::Up), ..Self::default() };
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => facts.name = name,
                LinkAttribute::IfAlias(alias) => facts.alias = Some(alias),
                LinkAttribute::Mtu(mtu) => facts.mtu = mtu,
                LinkAttribute::Link(peer) => facts.peer = Some(peer),
                LinkAttribute::OperState(state) => {
                    (facts.operational, facts.untold) = (state == State::Up, state == State::Unknown);
                }
                LinkAttribute::Address(mac) => facts.mac = mac.try_into().ok(),
                LinkAttribute::AfSpecUnspec(families) => facts.forwards_ipv6 = forwards_ipv6(&families),
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        match info {
                            LinkInfo::Kind(kind) => facts.kind = Some(kind.to_string()),
                            LinkInfo::Data(InfoData::Vxlan(data)) => facts.vxlan = vxlan(&data),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        facts
    }
}

fn vxlan(data: &[InfoVxlan]) -> Option<(u32, u16)> {
    let number = data.iter().find_map(|info| if let InfoVxlan::Id(number) = info { Some(*number) } else { None });
    let port = data.iter().find_map(|info| if let InfoVxlan::Port(port) = info { Some(*port) } else { None });
    number.zip(port)
}

impl LinkFacts {
    /// Whether it is as `spec` says, up, under that name and mark.
    pub(crate) fn shows(&self, spec: &InterfaceSpec) -> bool {
        self.up
            && self.name == spec.name.as_str()
            && self.alias.as_ref() == Some(&spec.alias)
            && spec.mtu.is_none_or(|mtu| mtu == self.mtu)
            && spec.mac.is_none_or(|mac| self.mac == Some(mac))
    }
}

impl Rtnl {
    /// The link of that name in this socket's namespace.
    pub(crate) fn link(&mut self, name: &InterfaceName) -> Result<Option<LinkFacts>> {
        let mut query = LinkMessage::default();
        query.attributes =
            vec![LinkAttribute::IfName(name.to_string()), LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
        Ok(self.get(RouteNetlinkMessage::GetLink(query))?.and_then(link_facts))
    }

    /// The link of that number.
    pub(crate) fn link_at(&mut self, index: u32) -> Result<Option<LinkFacts>> {
        let mut query = on_link(index);
        query.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
        Ok(self.get(RouteNetlinkMessage::GetLink(query))?.and_then(link_facts))
    }

    /// Waits until link `index`, whose peer was brought up after it, sends packets.
    ///
    /// A link that is up without carrier has no queue. When the carrier comes, the kernel gives it one on a
    /// work queue ("linkwatch"), and what is sent before is dropped: the first answer to the first packet.
    /// Asking for the link makes the kernel do that work at once (rtnl_getlink, since Linux 6.9); before,
    /// asking tells when it is done.
    pub(crate) fn await_operational(&mut self, index: u32) -> Result<()> {
        self.await_link(index, |link| link.operational)
    }

    /// As [`await_operational`](Self::await_operational), for a TUN device that somebody has just opened.
    pub(crate) fn await_opened(&mut self, index: u32) -> Result<()> {
        self.await_link(index, |link| link.operational || link.untold)
    }

    fn await_link(&mut self, index: u32, sends: impl Fn(&LinkFacts) -> bool) -> Result<()> {
        for _ in 0..PATIENCE {
            let found = self.link_at(index)?;
            // One that is gone is noticed by whoever needs it.
            if found.is_none_or(|link| sends(&link)) {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        tracing::warn!(index, "a link that is up has no carrier although its other end is there");
        Ok(())
    }

    /// All links in this socket's namespace.
    pub(crate) fn links(&mut self) -> Result<Vec<LinkFacts>> {
        let mut query = LinkMessage::default();
        query.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
        let found = self.dump(RouteNetlinkMessage::GetLink(query))?;
        Ok(found.into_iter().filter_map(link_facts).collect())
    }

    /// Brings the loopback interface up; it is always number 1.
    pub(crate) fn loopback_up(&mut self) -> Result<()> {
        let mut lo = on_link(1);
        up(&mut lo);
        self.apply(vec![Request::change(RouteNetlinkMessage::SetLink(lo))])
    }
}

fn forwards_ipv6(families: &[AfSpecUnspec]) -> bool {
    let settings = families.iter().filter_map(|family| match family {
        AfSpecUnspec::Inet6(settings) => Some(settings),
        _ => None,
    });
    settings.flatten().any(|setting| matches!(setting, AfSpecInet6::DevConf(settings) if settings.forwarding != 0))
}

fn link_facts(message: RouteNetlinkMessage) -> Option<LinkFacts> {
    match message {
        RouteNetlinkMessage::NewLink(link) => Some(link.into()),
        _ => None,
    }
}

/// A request about link number `index`.
pub(crate) fn on_link(index: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link
}

/// Sets the link's administrative state to up.
pub(crate) fn up(link: &mut LinkMessage) {
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
}

/// A link with the final name, MTU and hardware address of `spec` in namespace `netns`.
pub(crate) fn new_link(spec: &InterfaceSpec, netns: &impl AsFd) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes =
        vec![LinkAttribute::IfName(spec.name.to_string()), LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd())];
    link.attributes.extend(spec.mtu.map(LinkAttribute::Mtu));
    link.attributes.extend(spec.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
    link
}

/// Kind and kind-specific data of a new link.
pub(crate) fn kind(link: &mut LinkMessage, kind: InfoKind, data: Option<InfoData>) {
    let mut info = vec![LinkInfo::Kind(kind)];
    info.extend(data.map(LinkInfo::Data));
    link.attributes.push(LinkAttribute::LinkInfo(info));
}

/// One request for both ends of a veth pair, each where and as it shall be.
pub(crate) fn new_veth(mut end: LinkMessage, peer: LinkMessage) -> Request {
    kind(&mut end, InfoKind::Veth, Some(InfoData::Veth(InfoVeth::Peer(peer))));
    Request::create(RouteNetlinkMessage::NewLink(end))
}

/// Changes the mark.
pub(crate) fn set_alias(index: u32, alias: &str) -> Request {
    let mut link = on_link(index);
    link.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
    Request::change(RouteNetlinkMessage::SetLink(link))
}

/// Marks a new link and brings it up. Two things creation cannot do: it ignores an alias, and the second end of
/// a veth pair has no peer yet when the kernel would bring it up (`ENOTCONN`).
pub(crate) fn mark_and_up(index: u32, alias: &str) -> Request {
    let mut link = on_link(index);
    up(&mut link);
    link.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
    Request::change(RouteNetlinkMessage::SetLink(link))
}

/// Changes the MTU.
pub(crate) fn set_mtu(index: u32, mtu: u32) -> Request {
    let mut link = on_link(index);
    link.attributes.push(LinkAttribute::Mtu(mtu));
    Request::change(RouteNetlinkMessage::SetLink(link))
}

/// Changes the hardware address.
pub(crate) fn set_mac(index: u32, mac: [u8; 6]) -> Request {
    let mut link = on_link(index);
    link.attributes.push(LinkAttribute::Address(mac.to_vec()));
    Request::change(RouteNetlinkMessage::SetLink(link))
}

/// Brings a link up.
pub(crate) fn set_up(index: u32) -> Request {
    let mut link = on_link(index);
    up(&mut link);
    Request::change(RouteNetlinkMessage::SetLink(link))
}

/// Has a link take in what is sent to any group of hardware addresses.
pub(crate) fn hear_groups(index: u32) -> Request {
    let mut link = on_link(index);
    (link.header.flags, link.header.change_mask) = (LinkFlags::Allmulti, LinkFlags::Allmulti);
    Request::change(RouteNetlinkMessage::SetLink(link))
}

/// Removes a link (and its peer).
pub(crate) fn delete(index: u32) -> Request {
    Request::remove(RouteNetlinkMessage::DelLink(on_link(index)))
}
