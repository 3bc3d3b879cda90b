//! Putting one host into a VLAN of a network outside, on a kernel that need not know of VLANs.
//!
//! The host is behind an interface of the node, its port. BPF programs at `clsact` send what comes in through the port out of
//! the uplink, with the tag of the VLAN, and what comes in through the uplink with that tag and for the host's hardware
//! address, or for a group of them, out of the port, without it. Everything else goes its way as if they were not there. There
//! is no bridge, so nothing that hosts of one node would have to share, and two of them reach each other only if the network
//! outside sends back what comes from here.

use crate::{
    Error, InterfaceName, InterfaceSpec, Netns, Result,
    bpf::{Helper, Label, OK, Program, R0, R1, R2, R3, R4, R6, R10, SHOT, UNSPEC, Width},
    netns::{Here, Lane, work},
    rtnl::{
        Rtnl,
        filter::{self, Filter, Way},
        link::{self, LinkFacts},
        neighbour,
    },
    sysctl,
};

/// A host's place in a VLAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VlanPort {
    /// The interface of the node by which the network is reached. It may have addresses, and be the port of a bridge.
    pub uplink: InterfaceName,
    /// Number of the VLAN, 1 to 4094 (IEEE 802.1Q); 0: frames have no tag.
    pub id: u16,
    /// The host's hardware address. Frames for no other one reach it, but those for groups. `None`: it has the VLAN to itself,
    /// and all frames of it reach it.
    pub mac: Option<[u8; 6]>,
}

/// The filter's number at a port. At an uplink it is the number of the port.
const AT_PORT: u32 = 1;
/// That of the filter behind all others: the kernel asks the newest one first.
const LAST: u32 = u32::MAX >> 1;
/// In a filter's name, in place of a hardware address.
const ALL: &str = "all";
/// Tag protocol identifier, as the kernel has it in a packet's fields.
const TPID: u16 = 0x8100_u16.to_be();
const LAST_ID: u16 = 4094;

/// Where fields are in `struct __sk_buff`.
const VLAN_PRESENT: i16 = 20;
const VLAN_TCI: i16 = 24;
const VLAN_PROTO: i16 = 28;

impl VlanPort {
    pub(crate) fn validate(&self, port: &str) -> Result<()> {
        if self.id > LAST_ID || self.uplink.as_str() == port {
            let reason = format!("VLAN {} by {} is none: the last one is {LAST_ID}", self.id, self.uplink);
            return Err(Error::InvalidSpec { interface: port.to_owned(), reason });
        }
        Ok(())
    }

    /// Whether this process may put hosts into VLANs.
    ///
    /// # Errors
    /// Why it may not: BPF programs are for root of the whole system.
    pub fn allowed() -> Result<()> {
        untag().load().map(drop)
    }

    /// The largest packet, in octets, that passes by this uplink.
    ///
    /// # Errors
    /// [`Error::Uplink`] if it is not there.
    pub async fn mtu(node: &Netns, uplink: &InterfaceName) -> Result<u32> {
        let (node, uplink) = (node.clone(), uplink.clone());
        work(Lane::Quick, move |here| {
            here.enter(&node)?;
            Ok(self::uplink(&mut Rtnl::open()?, &node, &uplink)?.mtu)
        })
        .await
    }

    /// Removes what an earlier life of this process left at the uplink for ports that are gone; says how much that was.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub async fn sweep(node: &Netns, uplink: &InterfaceName) -> Result<usize> {
        let (node, uplink) = (node.clone(), uplink.clone());
        work(Lane::Quick, move |here| {
            here.enter(&node)?;
            let mut rtnl = Rtnl::open()?;
            let uplink = self::uplink(&mut rtnl, &node, &uplink)?.index;
            let (mut gone, mut left_out) = (Vec::new(), Vec::new());
            for filter in rtnl.filters(uplink, Way::In)? {
                if let Some((port, _, mac)) = read(&filter.name)
                    && rtnl.link_at(filter.number)?.is_none_or(|link| link.name != port)
                {
                    gone.push(filter::remove(uplink, Way::In, filter.number));
                    left_out.extend(mac.map(|mac| neighbour::leave_out(uplink, mac)));
                }
            }
            let count = gone.len();
            rtnl.apply(gone.into_iter().chain(left_out).collect()).map(|()| count)
        })
        .await
    }

    /// How many ports this uplink leads to; none, if it is not there.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub async fn count(node: &Netns, uplink: &InterfaceName) -> Result<usize> {
        let (node, uplink) = (node.clone(), uplink.clone());
        work(Lane::Quick, move |here| {
            here.enter(&node)?;
            let mut rtnl = Rtnl::open()?;
            match rtnl.link(&uplink)? {
                Some(uplink) => {
                    let filters = rtnl.filters(uplink.index, Way::In)?;
                    Ok(filters.iter().filter(|filter| read(&filter.name).is_some()).count())
                }
                None => Ok(0),
            }
        })
        .await
    }

    /// Has nothing else reach the node by this uplink, which is its end of a trunk, than what is for ports.
    ///
    /// # Errors
    /// [`Error::Uplink`] if it is not there, or what the kernel refuses.
    pub async fn close(node: &Netns, uplink: &InterfaceName) -> Result<()> {
        let (node, uplink) = (node.clone(), uplink.clone());
        work(Lane::Quick, move |here| {
            here.enter(&node)?;
            let mut rtnl = Rtnl::open()?;
            let uplink = self::uplink(&mut rtnl, &node, &uplink)?.index;
            let last = Filter::nothing_else();
            if rtnl.filters(uplink, Way::In)?.contains(&last) {
                return Ok(());
            }
            let drop = Program::default().verdict(SHOT).load()?;
            rtnl.apply(filter::put(uplink, Way::In, &last, &drop).into())
        })
        .await
    }

    /// Gives up what was made at the uplink for a port, which is gone.
    ///
    /// # Errors
    /// What the kernel refuses. Without the uplink there is nothing.
    pub async fn release(uplink: &InterfaceName, node: &Netns, port: &InterfaceName) -> Result<()> {
        let (uplink, node, port) = (uplink.clone(), node.clone(), port.clone());
        work(Lane::Quick, move |here| release(here, &uplink, &node, &port)).await
    }

    /// Makes what is missing of it for the interface `spec`, which has this number; says how many changes that took. `rtnl` is a
    /// socket in the namespace that the thread is in.
    pub(crate) fn put(&self, rtnl: &mut Rtnl, netns: &Netns, spec: &InterfaceSpec, port: u32) -> Result<usize> {
        sysctl::disable_ipv6(spec.name.as_str())?;
        if found(rtnl, port, spec.name.as_str())?.as_ref() == Some(self) {
            return Ok(0);
        }
        let uplink = uplink(rtnl, netns, &self.uplink)?;
        let unusable = |reason| Error::Uplink { name: self.uplink.to_string(), netns: netns.id(), reason };
        if !uplink.up {
            return Err(unusable("it is down: set it up".to_owned()));
        }
        if let Some(mtu) = spec.mtu.filter(|mtu| *mtu > uplink.mtu) {
            let less = uplink.mtu;
            return Err(unusable(format!("it takes packets of {less} octets, and {mtu} are asked for: raise its MTU")));
        }
        let before = rtnl.writes();
        let (to, from) = (Filter::to(uplink.index, self.id), Filter::from(port, spec.name.as_str(), self));
        let heard = |mac| [neighbour::take_in(uplink.index, mac), link::hear_groups(uplink.index)];
        let mut requests: Vec<_> = self.mac.into_iter().flat_map(heard).collect();
        let loaded = [self.out_of(uplink.index).load()?, untag().load()?, self.into(port).load()?];
        requests.extend(filter::put(port, Way::In, &to, &loaded[0]));
        if self.id != 0 {
            requests.extend(filter::put(port, Way::Out, &Filter::untag(), &loaded[1]));
        }
        requests.extend(filter::put(uplink.index, Way::In, &from, &loaded[2]));
        rtnl.apply(requests)?;
        Ok(rtnl.writes() - before)
    }

    /// Sends what comes in through the port out of the uplink. Who is in one VLAN does not reach others by tags of its own.
    fn out_of(&self, uplink: u32) -> Program {
        let drop = Label(0);
        let mut program = Program::default();
        program.copy(R6, R1).load_from(Width::Word, R0, R6, VLAN_PRESENT).unless(R0, 0, drop);
        if self.id != 0 {
            program.set(R2, TPID.into()).set(R3, self.id.into()).call(Helper::VlanPush).unless(R0, 0, drop);
        }
        program.set(R1, uplink.cast_signed()).set(R2, 0).call(Helper::Redirect).exit();
        program.label(drop).verdict(SHOT);
        program
    }

    /// Sends what comes in through the uplink for the host out of the port, with its tag; what is for a group goes on to others,
    /// too.
    fn into(&self, port: u32) -> Program {
        let (others, one) = (Label(0), Label(1));
        let mut program = Program::default();
        program.copy(R6, R1).load_from(Width::Word, R0, R6, VLAN_PRESENT);
        if self.id == 0 {
            program.unless(R0, 0, others);
        } else {
            program.unless(R0, 1, others);
            program.load_from(Width::Word, R0, R6, VLAN_PROTO).unless(R0, TPID.into(), others);
            program.load_from(Width::Word, R0, R6, VLAN_TCI).and(R0, 0xfff).unless(R0, self.id.into(), others);
        }
        if let Some([a, b, c, d, e, f]) = self.mac {
            let (head, tail) = (i32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes([e, f]).into());
            program
                .copy(R1, R6)
                .set(R2, 0)
                .copy(R3, R10)
                .add(R3, -8)
                .set(R4, 6)
                .call(Helper::LoadBytes)
                .unless(R0, 0, others);
            program.load_from(Width::Byte, R0, R10, -8).and(R0, 1).unless(R0, 1, one);
            program.copy(R1, R6).set(R2, port.cast_signed()).set(R3, 0).call(Helper::CloneRedirect).verdict(UNSPEC);
            program.label(one);
            program.load_from(Width::Word, R0, R10, -8).unless(R0, head, others);
            program.load_from(Width::Half, R0, R10, -4).unless(R0, tail, others);
        }
        program.set(R1, port.cast_signed()).set(R2, 0).call(Helper::Redirect).exit();
        program.label(others).verdict(UNSPEC);
        program
    }
}

/// Takes the tag off what goes out of a port.
fn untag() -> Program {
    let mut program = Program::default();
    program.call(Helper::VlanPop).verdict(OK);
    program
}

impl Filter {
    /// At a port, towards its uplink.
    fn to(uplink: u32, id: u16) -> Self {
        Self { number: AT_PORT, name: format!("to {uplink} vlan {id}") }
    }

    /// At a port, towards its host.
    fn untag() -> Self {
        Self { number: AT_PORT, name: "without tag".to_owned() }
    }

    /// At an uplink, towards a port.
    fn from(port: u32, name: &str, VlanPort { id, mac, .. }: &VlanPort) -> Self {
        let whom = mac.map_or_else(
            || ALL.to_owned(),
            |[a, b, c, d, e, f]| format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
        );
        Self { number: port, name: format!("{name} vlan {id} {whom}") }
    }

    /// At the end of a trunk.
    fn nothing_else() -> Self {
        Self { number: LAST, name: "nothing else".to_owned() }
    }
}

/// The port, the VLAN and the hardware address, if not all, of a filter at an uplink.
fn read(name: &str) -> Option<(&str, u16, Option<[u8; 6]>)> {
    let (port, rest) = name.split_once(" vlan ")?;
    let (id, mac) = rest.split_once(' ')?;
    if mac == ALL {
        return Some((port, id.parse().ok()?, None));
    }
    let octets: Vec<u8> = mac.split(':').map(|octet| u8::from_str_radix(octet, 16)).collect::<Result<_, _>>().ok()?;
    Some((port, id.parse().ok()?, Some(octets.try_into().ok()?)))
}

/// What the interface of this number and name is a way into, if all of that is there.
pub(crate) fn found(rtnl: &mut Rtnl, port: u32, name: &str) -> Result<Option<VlanPort>> {
    let out = rtnl.filters(port, Way::In)?.into_iter().find(|filter| filter.number == AT_PORT);
    let to = out.as_ref().and_then(|filter| filter.name.strip_prefix("to ")?.split_once(" vlan "));
    let Some((uplink, id)) = to.and_then(|(uplink, id)| Some((uplink.parse().ok()?, id.parse().ok()?))) else {
        return Ok(None);
    };
    if id != 0 && !rtnl.filters(port, Way::Out)?.contains(&Filter::untag()) {
        return Ok(None);
    }
    let from = rtnl.filters(uplink, Way::In)?.into_iter().find(|filter| filter.number == port);
    let Some((_, _, mac)) =
        from.as_ref().and_then(|filter| read(&filter.name)).filter(|from| (from.0, from.1) == (name, id))
    else {
        return Ok(None);
    };
    let uplink = rtnl.link_at(uplink)?.and_then(|link| link.name.parse().ok());
    Ok(uplink.map(|uplink| VlanPort { uplink, id, mac }))
}

/// As [`VlanPort::release`].
pub(crate) fn release(here: &mut Here, uplink: &InterfaceName, node: &Netns, port: &InterfaceName) -> Result<()> {
    here.enter(node)?;
    let mut rtnl = Rtnl::open()?;
    let Some(uplink) = rtnl.link(uplink)?.map(|link| link.index) else {
        return Ok(());
    };
    let mut gone = Vec::new();
    for filter in rtnl.filters(uplink, Way::In)? {
        if let Some((_, _, mac)) = read(&filter.name).filter(|(name, ..)| *name == port.as_str()) {
            gone.push(filter::remove(uplink, Way::In, filter.number));
            gone.extend(mac.map(|mac| neighbour::leave_out(uplink, mac)));
        }
    }
    rtnl.apply(gone)
}

/// Takes back what was made at the uplink for a port whose making failed.
pub(crate) fn forget(here: &mut Here, netns: &Netns, spec: &InterfaceSpec) {
    if let Some(vlan) = &spec.vlan
        && let Err(error) = release(here, &vlan.uplink, netns, &spec.name)
    {
        tracing::warn!(%error, interface = %spec.name, "could not remove what leads to a port that failed");
    }
}

fn uplink(rtnl: &mut Rtnl, netns: &Netns, name: &InterfaceName) -> Result<LinkFacts> {
    let none = || Error::Uplink {
        name: name.to_string(),
        netns: netns.id(),
        reason: "it is not there: see the file that names it".to_owned(),
    };
    rtnl.link(name)?.ok_or_else(none)
}
